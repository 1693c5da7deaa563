"""Which client's command caused an event, so that it is not echoed to that client."""

from __future__ import annotations

from contextvars import ContextVar, Token

import attrs


@attrs.define(eq=False, repr=False)
class Origin:
    """A block in which a command of *dispatcher*'s client runs.

    Tasks that it starts inherit this through their context.
    """

    dispatcher: object
    _is_at_work: bool = attrs.field(default=False, init=False)
    _token: Token[Origin | None] | None = attrs.field(default=None, init=False)

    def __enter__(self) -> None:
        self._is_at_work = True
        self._token = _origin.set(self)

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        self._is_at_work = False
        _origin.reset(self._token)
        self._token = None  # the token refers to the origin before this one

    @staticmethod
    def of_now() -> object:
        """The dispatcher of the command that runs now; None if there is none."""
        origin = _origin.get()
        return origin.dispatcher if origin is not None and origin._is_at_work else None


_origin: ContextVar[Origin | None] = ContextVar("QMP command", default=None)
