"""A user's handlers, which a chardev calls, and what happens when one raises."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import attrs

from trio_chardev.core.controls import Controls
from trio_chardev.core.inbox import OnPiped
from trio_chardev.events import BackendEvent

log = logging.getLogger(__name__)

BeChange = Callable[[Controls], Awaitable[None]]
"""Sets the frontend up for a backend: line settings, modem lines, echo. Raises to refuse it."""
OnEvent = Callable[[BackendEvent], None]
"""Called with OPENED, CLOSED, BREAK ..., in order with the bytes; must not block.

Also with line settings and modem lines, by backends that see the other end change them.
"""
OnReceive = Callable[[bytes], int]
"""Takes bytes in the task that received them; returns how many. See `Frontend`."""


@attrs.frozen(kw_only=True, repr=False)
class Handlers:
    """The handlers that `Chardev.attach` was given."""

    be_change: BeChange | None = None
    on_event: OnEvent | None = None
    on_receive: OnReceive | None = None
    on_open: Callable[[], None] = lambda: None
    """Called at once when a peer has come, for a task that waits to send: *on_event* gets OPENED
    only after what came before it was taken."""
    on_line: Callable[[], None] = lambda: None
    """Called when the line may be another, or set otherwise: after a change of the backend, also of
    one that a mux or hub stands on, and after a user has set it."""
    on_failure: Callable[[], None] = lambda: None
    """Called when another handler has raised, which detaches the frontend."""
    fe_open: Callable[[], bool] = lambda: True
    """Does the user consider itself open? query-chardev shows it as frontend-open."""
    answers_line: Callable[[], bool] = lambda: False
    """Does the user do what the other end asks of the line, and call `Line.acknowledge` for each?
    Otherwise the backend itself acknowledges it at once, as if there were a line that does all."""


async def stateless(backend: Controls) -> None:
    """Do nothing: the ``be_change`` of a frontend that needs no set-up."""


@attrs.frozen(eq=False, repr=False)
class Calls:
    """Calls a user's handlers. One that raises detaches its user, and the error goes no further."""

    _id: str
    _handlers: Handlers
    _detach: Callable[[], None]

    @property
    def be_change(self) -> BeChange | None:
        """The handler that a change awaits, and that may refuse it; None if there is none."""
        return self._handlers.be_change

    def offer(self, data: bytes) -> int:
        """Offer *data* to on_receive; return how much it took."""
        if (on_receive := self._handlers.on_receive) is None:
            return 0
        try:
            taken = on_receive(data)
            if not 0 <= taken <= len(data):
                raise ValueError(f"it was given {len(data)} bytes and says it took {taken}")
            return taken
        except Exception:
            self._fail("on_receive")
            return 0

    def offer_piped(self, on_piped: OnPiped, size: int) -> None:
        """Call *on_piped*: *size* bytes have come into the pipe."""
        try:
            on_piped(size)
        except Exception:
            self._fail("on_piped")

    def tell(self, event: BackendEvent) -> None:
        """Call on_event."""
        if self._handlers.on_event is not None:
            try:
                self._handlers.on_event(event)
            except Exception:
                self._fail("on_event")

    def tell_opened(self) -> None:
        """Call on_open."""
        try:
            self._handlers.on_open()
        except Exception:
            self._fail("on_open")

    def tell_line(self) -> None:
        """Call on_line."""
        try:
            self._handlers.on_line()
        except Exception:
            self._fail("on_line")

    def is_ready(self) -> bool:
        """Ask fe_open."""
        try:
            return self._handlers.fe_open()
        except Exception:
            self._fail("fe_open")
            return False

    def answers_line(self) -> bool:
        """Ask answers_line."""
        try:
            return self._handlers.answers_line()
        except Exception:
            self._fail("answers_line")
            return False

    def _fail(self, handler: str) -> None:
        log.exception("chardev '%s': %s failed; it is detached", self._id, handler)
        self._detach()
        try:
            self._handlers.on_failure()
        except Exception:
            log.exception("chardev '%s': on_failure failed", self._id)
