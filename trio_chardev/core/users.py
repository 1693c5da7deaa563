"""The users of a chardev: one, or with a mux as many as it allows.

There is always at least one inbox, which keeps unread bytes for the next user. Bytes go to the
user that has the focus, events of the backend to all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic

import attrs

from trio_chardev.core.counts import Counts
from trio_chardev.core.direct import Source
from trio_chardev.core.inbox import Inbox, UserT
from trio_chardev.core.tap import Tap, show
from trio_chardev.events import BackendEvent, Event, WindowSize

MAX_READ = 1 << 16  # bytes of one read; more cost more than they gain


@attrs.define(eq=False, repr=False)
class Users(Generic[UserT]):
    """The inboxes of a chardev; they outlive the backends."""

    counts: Counts = attrs.Factory(Counts)
    """The chardev's."""
    inboxes: list[Inbox[UserT]] = attrs.Factory(lambda: [Inbox()])
    focus: Inbox[UserT] = attrs.Factory(lambda self: self.inboxes[0], takes_self=True)
    taps: tuple[Tap, ...] = ()
    """The taps of the backend in place; they are shown what comes before the users get it."""
    is_reserved: bool = False
    """Do the last bytes of a replaced backend come first? Then the one in place is not read."""

    @property
    def frontends(self) -> list[UserT]:
        """The users, in the order in which they came."""
        return [d.frontend for d in self.inboxes if d.frontend is not None]

    @property
    def answers_line(self) -> bool:
        """Does a user acknowledge what the other end asks of the line? See `Line.acknowledge`."""
        return any(frontend.calls.answers_line() for frontend in self.frontends)

    @property
    def room(self) -> int:
        """How many bytes the focused user may get; not positive when its inbox is full."""
        queue = self.focus.queue
        return 0 if self.is_reserved or queue.is_paused else queue.capacity - queue.size

    @property
    def spare(self) -> int:
        """How many more bytes it may get of a peer that has left; not positive if none."""
        return 0 if self.is_reserved else self.focus.queue.spare

    @property
    def is_paused(self) -> bool:
        """Has the focused user paused its input?"""
        return self.focus.queue.is_paused

    @property
    def is_muted(self) -> bool:
        """Was CLOSED reported for a change under way?"""
        return any(inbox.is_muted for inbox in self.inboxes)

    async def wait_room(self) -> None:
        """Wait until the focused user has taken something, or another user gets the focus."""
        await self.focus.queue.wait_room()

    async def wait_room_attending(self, attend: Callable[[], Awaitable[None]]) -> None:
        """Do as `wait_room`, but in *attend*, see `InboxQueue.wait_room_attending`."""
        await self.focus.queue.wait_room_attending(attend)

    def vacant(self) -> Inbox[UserT]:
        """Return an inbox for one more user, to be given to `attach`."""
        if not self.frontends:
            return self.inboxes[0]
        first = self.inboxes[0]
        return Inbox(is_held=first.is_held, is_muted=first.is_muted)

    def attach(self, inbox: Inbox[UserT], frontend: UserT, *, is_open: bool) -> None:
        """Make *frontend* the user of *inbox*."""
        if inbox not in self.inboxes:
            self.inboxes.append(inbox)
        inbox.attach(frontend, is_open=is_open)

    def inbox_of(self, frontend: UserT) -> Inbox[UserT]:
        """Return the inbox of a user."""
        return next(inbox for inbox in self.inboxes if inbox.frontend is frontend)

    def detach(self, inbox: Inbox[UserT]) -> None:
        """Remove the user of *inbox*; what one of several users has not read is dropped."""
        inbox.detach()
        if len(self.inboxes) > 1:
            self.inboxes.remove(inbox)
            if inbox is self.focus:
                self.set_focus(self.inboxes[0])

    def set_focus(self, inbox: Inbox[UserT]) -> None:
        """Give the focus to *inbox*; both users are told (MUX_OUT, MUX_IN)."""
        if inbox is not self.focus:
            before, self.focus = self.focus, inbox
            before.event(Event.MUX_OUT)
            inbox.event(Event.MUX_IN)
            before.queue.wake_writers()

    def receive_from(self, backend: Source, room: int) -> int:
        """Hand over at most *room* bytes that have come from *backend*, the one in place.

        Returns how many there were; 0 if nothing has come.
        """
        if self.focus.queue.pipe is not None:  # the fast path, which bypasses this process
            direct = None if self.taps else backend.direct
            if (size := self.focus.fill_pipe(direct)) is not None:
                self.counts.received += size
                return size
        if data := backend.receive_nowait(min(room, MAX_READ)):
            self.data(data)
        return len(data)

    def data(self, data: bytes) -> None:
        """Show *data*, which has come from the backend in place, to the taps, and hand it over."""
        self.counts.received += len(data)
        if self.taps:
            self._show_received(data)
        self.focus.data(data)

    def focus_event(self, event: BackendEvent) -> None:
        """Show *event* to the taps, and report it to the focused user."""
        show(self.taps, lambda tap: tap.event(event))
        self.focus.event(event)

    def event(self, event: BackendEvent) -> None:
        """Report *event*, which the backend's taps have been shown, to all users.

        A window's size is the business of the focused one, as what is typed there is.
        """
        inboxes = [self.focus] if isinstance(event, WindowSize) else list(self.inboxes)
        for inbox in inboxes:
            inbox.event(event)

    def tell_opened(self) -> None:
        """See `Inbox.tell_opened`."""
        for inbox in list(self.inboxes):
            inbox.tell_opened()

    def tell_line(self) -> None:
        """Tell all users that the line may be another, or set otherwise."""
        for frontend in self.frontends:
            frontend.calls.tell_line()

    def wake_readers(self) -> None:
        """Make the tasks that wait to receive look again."""
        for inbox in self.inboxes:
            inbox.queue.wake_readers()

    def hold(self, *, closed: bool) -> None:
        """Begin a change, see `Inbox.hold`."""
        for inbox in list(self.inboxes):
            inbox.hold(closed=closed)

    def let_last_in(self, *, is_open: bool) -> None:
        """See `Inbox.let_last_in`; the backend in place is not read until `release`."""
        self.is_reserved = True
        for inbox in list(self.inboxes):
            inbox.let_last_in(is_open=is_open)

    def release(self, *, is_open: bool) -> None:
        """End a change, see `Inbox.release`."""
        was_reserved, self.is_reserved = self.is_reserved, False
        for inbox in list(self.inboxes):
            inbox.release(is_open=is_open)
            if was_reserved:
                inbox.queue.wake_writers()

    def _show_received(self, data: bytes) -> None:
        show(self.taps, lambda tap: tap.received(data))
