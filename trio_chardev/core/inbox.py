"""How bytes and events get from the backend in place to the frontend.

All of it is synchronous. A frontend is offered what comes in the task that read it; what it
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

INBOX_CAPACITY = 1 << 16  # bytes; a backend is not read while that many wait
INBOX_LIMIT = 8 << 20  # bytes; more than a kernel's buffer holds, of a peer that has left


OnPiped = Callable[[int], None]
"""Is told how many bytes have come into the pipe; 0: look again at what is in it."""


def ignore(size: int) -> None:
    """Do nothing: the `OnPiped` of an inbox without a pipe."""


class UserCalls(Protocol):
    """What an inbox calls. None of it raises."""

    def offer(self, data: bytes) -> int:
        """Offer *data*; return how much was taken."""

    def offer_piped(self, on_piped: OnPiped, size: int) -> None:
        """Call *on_piped*: *size* bytes have come into the pipe."""

    def tell(self, event: BackendEvent) -> None:
        """Tell of *event*, in order with the bytes."""

    def tell_opened(self) -> None:
        """Tell at once that somebody has come, for a user that waits to send."""


class User(Protocol):
    """Gets what comes: a frontend."""

    @property
    def calls(self) -> UserCalls:
        """What is called of it."""


UserT = TypeVar("UserT", bound=User)


@attrs.define(eq=False)
class Inbox(Generic[UserT]):
    """The way to the frontend, whether one is there or not."""

    queue: InboxQueue = attrs.Factory(lambda: InboxQueue(INBOX_CAPACITY, INBOX_LIMIT))
    frontend: UserT | None = None
    is_held: bool = False
    is_muted: bool = False
    """CLOSED was told for a change: until that is over the frontend hears no OPENED or CLOSED."""
    is_owed_closed: bool = False
    """It is muted, though it was not told CLOSED."""
    _on_piped: OnPiped = attrs.field(default=ignore, init=False)
    _is_flushing: bool = attrs.field(default=False, init=False)

    @property
    def has_items(self) -> bool:
        """Would `take` give or tell something?"""
        return bool(self.queue) and not self.is_held and self.frontend is not None

    def attach(self, frontend: UserT, *, is_open: bool) -> None:
        """Make *frontend* the user; it hears OPENED at once if *is_open*."""
        self.frontend = frontend
        self.queue.drop_events()  # they concerned an earlier frontend
        if is_open and not self.is_muted:
            self._tell(Event.OPENED)
        self.flush()

    def detach(self) -> None:
        """Have no user any more; a task that waits to receive looks again."""
        self.frontend = None
        self.close_pipe()
        self.queue.resume()
        self.queue.wake_readers()

    def data(self, data: bytes) -> None:
        """Hand over *data*, which has come, or queue it."""
        if not self.is_held and not self.queue:
            taken = self._push(data)
            if taken == len(data):
                return
            data = data[taken:]
        self.queue.put(data)

    def open_pipe(self, on_piped: OnPiped) -> None:
        """Have bytes come into a pipe, as long as nobody looks at them; *on_piped* is told.

        A change ends that. Raises OSError.
        """
        if not self.is_held:
            self.queue.open_pipe()
            self._on_piped = on_piped

    def fill_pipe(self, direct: Direct | None) -> int | None:
        """Have *direct* put what has come into the pipe, and tell of it; return how much it was.

        None: it has to come the plain way, because there is no pipe or no room in it, because
        something stands behind it, or because bytes have to be looked at, as all without *direct*.
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
        """Have bytes be handed over again; those in the pipe stay the first."""
        self.queue.close_pipe()
        self._on_piped = ignore

    def _offer_piped(self, size: int) -> None:
        if self.frontend is not None:
            self.frontend.calls.offer_piped(self._on_piped, size)

    @property
    def is_clear(self) -> bool:
        """May what comes next be handed over at once, behind what is in the pipe?"""
        return self.queue.is_clear and not (self.queue.is_paused or self.is_held or self.is_muted)

    def event(self, event: BackendEvent) -> None:
        """Tell *event*, which has come, after the bytes that came before it."""
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
        """Wake a user that waits for somebody to come, whatever stands in the queue."""
        if self.frontend is not None:
            self.queue.wake_readers()
            self.frontend.calls.tell_opened()

    def take(self, max_bytes: int) -> bytes:
        """Tell the frontend the events that come before the next bytes, and return those.

        A frontend that is detached meanwhile gets none.
        """
        while not self.is_held and self.frontend is not None:
            item = self.queue.take(max_bytes)
            if item is None or isinstance(item, bytes):
                return item or b""
            self._tell(item)
        return b""

    def peek(self) -> bytes:
        """Return some of the next bytes without taking them; none while an event comes first."""
        item = None if self.is_held else self.queue.peek()
        return item if isinstance(item, bytes) else b""

    def flush(self) -> None:
        """Hand over what is queued, as far as the frontend takes it by itself.

        A handler may call this, too: the call that it is in goes on when it returns.
        """
        if self._is_flushing:
            return
        self._is_flushing = True
        try:
            self._flush()
        finally:
            self._is_flushing = False

    def accept(self) -> None:
        """Hand over what is queued, and have the backend read again, unless that pauses it anew."""
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
        """Hand over nothing, for a change begins; *closed*: the frontend hears CLOSED first."""
        if closed:
            self.event(Event.CLOSED)
            self.is_muted = True
        self.close_pipe()
        self.is_held = True

    def let_last_in(self, *, is_open: bool) -> None:
        """Hand over what the replaced backend still says, though another is in place.

        If that *is_open* the frontend hears so behind those last bytes, by `release`.
        """
        self.is_owed_closed = is_open and not self.is_muted
        self.is_held, self.is_muted = False, True
        self.flush()
        self.queue.wake_readers()
        if is_open:
            self.event(Event.OPENED)  # for a user that waits to send

    def release(self, *, is_open: bool) -> None:
        """Hand over again: the change is over. *is_open*: the frontend is to hear OPENED."""
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
