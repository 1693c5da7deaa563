"""Which monitor's client has sent the command that causes an event: to it that is no news."""

from __future__ import annotations

from contextvars import ContextVar, Token

import attrs


@attrs.define(eq=False)
class Cause:
    """Within its block a command of *monitor*'s client is at work.

    Tasks that it starts inherit this by their context.
    """

    monitor: object
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
    def of_now() -> object:
        """The monitor of the command that is at work; None if none is."""
        cause = _cause.get()
        return cause.monitor if cause is not None and cause._is_at_work else None


_cause: ContextVar[Cause | None] = ContextVar("QMP command", default=None)
