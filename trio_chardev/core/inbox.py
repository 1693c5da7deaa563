"""How bytes and events get from the backend in place to the frontend.

All of it is synchronous. The task that reads offers the frontend what comes; what the frontend
does not take waits in the queue. While a change is under way (`hold`) nothing is handed over, but
the queue goes on taking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import attrs

from trio_chardev.core.direct import Direct
from trio_chardev.core.queue import InboxQueue
from trio_chardev.core.splicing import CannotSplice
from trio_chardev.events import BackendEvent, Event

INBOX_CAPACITY = 1 << 16  # bytes; while that many wait, the backend is not read
INBOX_LIMIT = 8 << 20  # bytes from a peer that has left; more than a kernel's buffer holds


OnPiped = Callable[[int], None]
"""Called with the number of bytes that have come into the pipe; 0 asks to look at it again."""


def ignore(size: int) -> None:
    """Do nothing: the `OnPiped` of an inbox without a pipe."""


class UserCalls(Protocol):
    """What an inbox calls. None of it raises."""

    def offer(self, data: bytes) -> int:
        """Offer *data*; return how much was taken."""

    def offer_piped(self, on_piped: OnPiped, size: int) -> None:
        """Call *on_piped*: *size* bytes have come into the pipe."""

    def tell(self, event: BackendEvent) -> None:
        """Report *event*, in order with the bytes."""

    def tell_opened(self) -> None:
        """Report at once that a peer has come, for a user that waits to send."""

    def tell_line(self) -> None:
        """Tell the user that the line may be another, or set otherwise."""

    def answers_line(self) -> bool:
        """Does the user acknowledge what the other end asks of the line?"""


class User(Protocol):
    """A receiver of what comes: a frontend."""

    @property
    def calls(self) -> UserCalls:
        """Its handlers."""


UserT = TypeVar("UserT", bound=User)


@attrs.define(eq=False, repr=False)
class Inbox(Generic[UserT]):
    """The way to the frontend, whether one is there or not."""

    queue: InboxQueue = attrs.Factory(lambda: InboxQueue(INBOX_CAPACITY, INBOX_LIMIT))
    frontend: UserT | None = None
    is_held: bool = False
    is_muted: bool = False
    """CLOSED was reported for a change: until its end the frontend gets no OPENED or CLOSED."""
    is_owed_closed: bool = False
    """It is muted, but was not told CLOSED."""
    _on_piped: OnPiped = attrs.field(default=ignore, init=False)
    _is_flushing: bool = attrs.field(default=False, init=False)

    @property
    def has_items(self) -> bool:
        """Would `take` return or report something?"""
        return bool(self.queue) and not self.is_held and self.frontend is not None

    def attach(self, frontend: UserT, *, is_open: bool) -> None:
        """Make *frontend* the user; it gets OPENED at once if *is_open*."""
        self.frontend = frontend
        self.queue.drop_events()  # they concerned an earlier frontend
        if is_open and not self.is_muted:
            self._tell(Event.OPENED)
        self.flush()

    def detach(self) -> None:
        """Remove the user; a task that waits to receive looks again."""
        self.frontend = None
        self.close_pipe()
        self.queue.resume()
        self.queue.wake_readers()

    def data(self, data: bytes) -> None:
        """Hand over *data*, which has come, or queue it."""
        if self.frontend is not None and not (self.is_held or self.queue.size):
            taken = self.frontend.calls.offer(data)
            if taken == len(data):
                return
            data = data[taken:]
        self.queue.put(data)

    def open_pipe(self, on_piped: OnPiped) -> None:
        """Let bytes come into a pipe, while nobody looks at them, and call *on_piped* for them.

        A change ends that. Raises OSError.
        """
        if not self.is_held:
            self.queue.open_pipe()
            self._on_piped = on_piped

    def fill_pipe(self, direct: Direct | None) -> int | None:
        """Let *direct* put what has come into the pipe, and report it. Returns how many bytes.

        None means that they have to take the plain path: there is no pipe or no room in it,
        something waits behind it, or bytes have to be looked at, as always without *direct*.
        """
        queue = self.queue
        pipe, room = queue.pipe, queue.room
        if pipe is None or not queue.is_clear or room <= 0:
            return None
        try:
            if direct is None:
                raise CannotSplice
            size = direct.receive_into(pipe, room)
        except CannotSplice:
            self.close_pipe()
            return None
        if size:
            self._offer_piped(size)
        elif pipe.is_full:
            return None
        return size

    def close_pipe(self) -> None:
        """Hand bytes over again; those in the pipe stay the first."""
        self.queue.close_pipe()
        self._on_piped = ignore

    def _offer_piped(self, size: int) -> None:
        if self.frontend is not None:
            self.frontend.calls.offer_piped(self._on_piped, size)

    @property
    def is_clear(self) -> bool:
        """Could what comes next be handed over at once, after what is in the pipe?"""
        return self.queue.is_clear and not (self.queue.is_paused or self.is_held or self.is_muted)

    def event(self, event: BackendEvent) -> None:
        """Report *event*, which has come, after the bytes that came before it."""
        if self.frontend is None:
            return
        if event is Event.OPENED:
            self.tell_opened()
        if self.is_muted and event in (Event.OPENED, Event.CLOSED):
            return
        if self.is_held or self.queue:
            self.queue.put_event(event)
        else:
            self._tell(event)

    def tell_opened(self) -> None:
        """Wake a user that waits for a peer, whatever waits in the queue."""
        if self.frontend is not None:
            self.queue.wake_readers()
            self.frontend.calls.tell_opened()

    def take(self, max_bytes: int) -> bytes:
        """Report the events that come before the next bytes, and return those.

        A frontend that is detached meanwhile gets none.
        """
        while not self.is_held and self.frontend is not None:
            item = self.queue.take(max_bytes)
            if item is None or isinstance(item, bytes):
                return item or b""
            self._tell(item)
        return b""

    def peek(self) -> bytes:
        """Return some of the next bytes without taking them; none if an event comes first."""
        item = None if self.is_held else self.queue.peek()
        return item if isinstance(item, bytes) else b""

    def peek_run(self, max_bytes: int) -> tuple[bytes, bool]:
        """See `InboxQueue.peek_run`; nothing while a change is under way."""
        return (b"", False) if self.is_held else self.queue.peek_run(max_bytes)

    def flush(self) -> None:
        """Hand over what is queued, as far as the frontend takes it.

        A handler may call this, too: then the outer call goes on when the handler returns.
        """
        if self._is_flushing:
            return
        self._is_flushing = True
        try:
            self._flush()
        finally:
            self._is_flushing = False

    def accept(self) -> None:
        """Hand over what is queued, and let the backend read again, unless paused again by that."""
        was_paused, self.queue.is_paused = self.queue.is_paused, False
        self.flush()
        if was_paused and not self.queue.is_paused:
            self.queue.wake_writers()

    def _flush(self) -> None:
        while not self.is_held:
            if self.queue.is_next_piped:
                self._offer_piped(0)
                if self.queue.is_next_piped:
                    break
            elif (item := self.queue.peek()) is None:
                break
            elif not isinstance(item, bytes):
                self.queue.take(0)
                self._tell(item)
            elif (taken := self._push(item)) > 0:
                self.queue.take(taken)
            else:
                break

    def hold(self, *, closed: bool) -> None:
        """Hand over nothing, as a change begins; with *closed* the frontend gets CLOSED first."""
        if closed:
            self.event(Event.CLOSED)
            self.is_muted = True
        self.close_pipe()
        self.is_held = True

    def let_last_in(self, *, is_open: bool) -> None:
        """Hand over the last bytes of the replaced backend, though another is in place.

        If that one *is_open*, the frontend gets OPENED after them, by `release`.
        """
        self.is_owed_closed = is_open and not self.is_muted
        self.is_held, self.is_muted = False, True
        self.flush()
        self.queue.wake_readers()
        if is_open:
            self.event(Event.OPENED)  # for a user that waits to send

    def release(self, *, is_open: bool) -> None:
        """Hand over again, as the change is over; with *is_open* the frontend gets OPENED."""
        is_owed_closed, self.is_owed_closed = self.is_owed_closed, False
        self.is_held = self.is_muted = False
        self.flush()
        self.queue.wake_readers()
        if is_open:
            self.event(Event.OPENED)
        elif is_owed_closed:
            self.event(Event.CLOSED)

    def _push(self, data: bytes) -> int:
        return self.frontend.calls.offer(data) if self.frontend is not None else 0

    def _tell(self, event: BackendEvent) -> None:
        if self.frontend is not None:
            self.frontend.calls.tell(event)
