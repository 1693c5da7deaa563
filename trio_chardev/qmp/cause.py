"""Whose command it is that makes happen what happens: it is no news for that client."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from trio_chardev.qmp.monitor import Monitor


@attrs.define(eq=False)
class Cause:
    """Within its block a command of *monitor*'s client is at work.

    Tasks that it starts inherit this by their context.
    """

    monitor: Monitor
    _is_at_work: bool = attrs.field(default=False, init=False)
    _token: Token[Cause | None] | None = attrs.field(default=None, init=False)

    def __enter__(self) -> None:
        self._is_at_work = True
        self._token = _cause.set(self)

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        self._is_at_work = False
        _cause.reset(self._token)
        self._token = None  # it has the cause before this one

    @staticmethod
    def of_now() -> Monitor | None:
        """The monitor of the command that is at work, if one is."""
        cause = _cause.get()
        return cause.monitor if cause is not None and cause._is_at_work else None


_cause: ContextVar[Cause | None] = ContextVar("QMP command", default=None)
