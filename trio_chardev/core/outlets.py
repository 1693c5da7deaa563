"""The ways to the users of a chardev: one, or with a mux as many as it takes.

There is always one delivery, which keeps what nobody has read for the next user. Bytes go to
the one that has the focus, events of the backend to all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic

import attrs

from trio_chardev.core.delivery import Delivery, UserT
from trio_chardev.core.splicing import SplicePipe
from trio_chardev.core.tap import Tap, show
from trio_chardev.events import BackendEvent, Event


@attrs.define(eq=False)
class Outlets(Generic[UserT]):
    """The deliveries of a chardev; they outlive the backends."""

    deliveries: list[Delivery[UserT]] = attrs.Factory(lambda: [Delivery()])
    focus: Delivery[UserT] = attrs.Factory(lambda self: self.deliveries[0], takes_self=True)
    taps: tuple[Tap, ...] = ()
    """Those of the backend in place: they see what comes before the users do."""
    is_reserved: bool = False
    """The last bytes of a backend that was replaced come first: the one in place is not read."""

    @property
    def frontends(self) -> list[UserT]:
        """The users, in the order in which they came."""
        return [d.frontend for d in self.deliveries if d.frontend is not None]

    @property
    def room(self) -> int:
        """How many bytes the one with the focus may get; not positive when it is full."""
        return 0 if self.is_reserved else self.focus.inbound.wanted

    @property
    def spare(self) -> int:
        """How many bytes of a peer that has left it may get; not positive when it is full."""
        return 0 if self.is_reserved else self.focus.inbound.spare

    @property
    def is_paused(self) -> bool:
        """Does the one with the focus want nothing for now, room or not?"""
        return self.focus.inbound.is_paused

    @property
    def is_muted(self) -> bool:
        """CLOSED was told for a change under way."""
        return any(delivery.is_muted for delivery in self.deliveries)

    async def wait_room(self) -> None:
        """Wait until the one with the focus has taken something, or another gets the focus."""
        await self.focus.inbound.wait_room()

    async def wait_room_attending(self, attend: Callable[[], Awaitable[None]]) -> None:
        """As `wait_room`, but in *attend*, see `Inbound.wait_room_attending`."""
        await self.focus.inbound.wait_room_attending(attend)

    def vacant(self) -> Delivery[UserT]:
        """A delivery for one more user; `attach` takes it."""
        if not self.frontends:
            return self.deliveries[0]
        first = self.deliveries[0]
        return Delivery(is_held=first.is_held, is_muted=first.is_muted)

    def attach(self, delivery: Delivery[UserT], frontend: UserT, *, is_open: bool) -> None:
        """*frontend* uses *delivery* from now on."""
        if delivery not in self.deliveries:
            self.deliveries.append(delivery)
        delivery.attach(frontend, is_open=is_open)

    def detach(self, delivery: Delivery[UserT]) -> None:
        """Its user is gone; if it was one of several, so is what that has not read."""
        delivery.detach()
        if len(self.deliveries) > 1:
            self.deliveries.remove(delivery)
            if delivery is self.focus:
                self.set_focus(self.deliveries[0])

    def set_focus(self, delivery: Delivery[UserT]) -> None:
        """Bytes go to *delivery* from now on; both sides are told (MUX_OUT, MUX_IN)."""
        if delivery is not self.focus:
            before, self.focus = self.focus, delivery
            before.event(Event.MUX_OUT)
            delivery.event(Event.MUX_IN)
            before.inbound.wake_writers()

    def data(self, data: bytes) -> None:
        """*data* has come from the backend in place."""
        if self.taps:
            self._show_received(data)
        self.focus.data(data)

    def fill_pipe(self, receive_into: Callable[[SplicePipe, int], int]) -> int | None:
        """See `Delivery.fill_pipe`; `piped` is to be called then."""
        inbound = self.focus.inbound
        if inbound.pipe is None:
            return None
        if self.taps:  # they are shown what comes
            inbound.close_pipe()
            return None
        return self.focus.fill_pipe(receive_into)

    def piped(self, size: int) -> None:
        """*size* bytes have come from the backend in place into the pipe."""
        self.focus.piped(size)

    def focus_event(self, event: BackendEvent) -> None:
        """*event* has come for the one that has the focus."""
        show(self.taps, lambda tap: tap.event(event))
        self.focus.event(event)

    def event(self, event: BackendEvent) -> None:
        """*event* has come from the backend in place, and its taps have been shown it."""
        for delivery in list(self.deliveries):
            delivery.event(event)

    def wake_readers(self) -> None:
        """Make those who wait to receive look again."""
        for delivery in self.deliveries:
            delivery.inbound.wake_readers()

    def hold(self, *, closed: bool) -> None:
        """A change begins, see `Delivery.hold`."""
        for delivery in list(self.deliveries):
            delivery.hold(closed=closed)

    def let_last_in(self, *, is_open: bool) -> None:
        """See `Delivery.let_last_in`; the one in place is not read until `release`."""
        self.is_reserved = True
        for delivery in list(self.deliveries):
            delivery.let_last_in(is_open=is_open)

    def release(self, *, is_open: bool) -> None:
        """The change is over, see `Delivery.release`."""
        was_reserved, self.is_reserved = self.is_reserved, False
        for delivery in list(self.deliveries):
            delivery.release(is_open=is_open)
            if was_reserved:
                delivery.inbound.wake_writers()

    def _show_received(self, data: bytes) -> None:
        show(self.taps, lambda tap: tap.received(data))
