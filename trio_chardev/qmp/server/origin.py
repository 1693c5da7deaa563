"""Which monitor's client has sent the command that causes an event: to it that is no news."""

from __future__ import annotations

from contextvars import ContextVar, Token

import attrs


@attrs.define(eq=False)
class Origin:
    """Within its block a command of *monitor*'s client is at work.

    Tasks that it starts inherit this by their context.
    """

    monitor: object
    _is_at_work: bool = attrs.field(default=False, init=False)
    _token: Token[Origin | None] | None = attrs.field(default=None, init=False)

    def __enter__(self) -> None:
        self._is_at_work = True
        self._token = _origin.set(self)

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        self._is_at_work = False
        _origin.reset(self._token)
        self._token = None  # it has the origin before this one

    @staticmethod
    def of_now() -> object:
        """The monitor of the command that is at work; None if none is."""
        origin = _origin.get()
        return origin.monitor if origin is not None and origin._is_at_work else None


_origin: ContextVar[Origin | None] = ContextVar("QMP command", default=None)
