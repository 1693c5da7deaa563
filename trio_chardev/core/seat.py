"""The place that a backend has in a chardev, and the commit, which gives it to another.

The commit is one function without a checkpoint: before it every failure unwinds to the
original, after it nothing can fail. It calls nobody but the two backends: what others are to be
told it returns as `Effects`, for when the state is whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import ParamSpec

import attrs

from trio_chardev.core.backend import Backend
from trio_chardev.core.delivery import INBOUND_LIMIT
from trio_chardev.core.effects import Effects
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.outbound import Outbound
from trio_chardev.core.outlets import Outlets
from trio_chardev.core.slot import Slot
from trio_chardev.core.tap import Tap, show
from trio_chardev.errors import BackendError, ChangeRefusedError, ChardevClosedError
from trio_chardev.events import BackendEvent, Event

log = logging.getLogger(__name__)
P = ParamSpec("P")

DRAIN_CHUNK = 1 << 16  # bytes
DRAIN_LIMIT = INBOUND_LIMIT  # bytes that one change keeps; refused while more wait


@attrs.define(eq=False)
class Seat:
    """Who has the place, and the ways from and to it, which outlive whoever has it."""

    id: str
    on_event: Callable[[BackendEvent, Backend], None]
    """Is told every event of the backend in place, whether a frontend is there or not."""
    row: bytes | None = attrs.field(default=None, init=False)
    """What a lister has written about it; None once something that a list shows has changed."""
    is_guarded: bool = attrs.field(default=False, init=False)
    """Backends to come are guarded, too, see `Backend.guard`."""
    leaving: Slot | None = attrs.field(default=None, init=False)
    """Was replaced, and its last bytes come before those of the one in place."""
    _limit: int = attrs.field(default=0, init=False)  # of what is queued when they have come
    _names: tuple[str, str] = attrs.field(default=("", ""), init=False)  # the last two in place
    _effects: Effects | None = attrs.field(default=None, init=False)
    """Of the commit that is at work, until they are done: what happens meanwhile is told behind."""
    outbound: Outbound = attrs.field(init=False)
    outlets: Outlets[Frontend] = attrs.field(factory=Outlets, init=False)

    def __attrs_post_init__(self) -> None:
        self.outbound = Outbound(self.id)

    @property
    def slot(self) -> Slot:
        """What is in place."""
        return self.outbound.slot

    @property
    def backend(self) -> Backend:
        """The backend in place."""
        return self.outbound.slot.backend

    @property
    def frontends(self) -> list[Frontend]:
        """Who uses it now; more than one only with a mux."""
        return self.outlets.frontends

    def check_not_closed(self) -> None:
        """Raise ChardevClosedError."""
        if self.outbound.is_closed:
            raise ChardevClosedError(f"Chardev '{self.id}' is closed")

    def touch(self) -> None:
        """Something that a list shows has changed, of it or of what it stands on."""
        self.row = None
        if self.slot.started:
            self.backend.touch()

    # ------------------------------------------------------------ the commit

    def commit(self, old: Slot | None, new: Slot, *, carry: bool = False) -> Effects:
        """Put *new* in place of *old*. If it raises, the original is untouched.

        `tell_all` does what it returns; nothing may come in between.
        """
        self._check_fit(new)
        self._effects = effects = Effects()
        try:
            self._give_way(old, new, carry=carry)
        except BaseException:
            self.tell_all(effects)
            raise
        # From here on nothing raises.
        effects.add(show, new.backend.taps, lambda tap: tap.activate())
        if old is not None:
            if carry:  # first of all, for its peer may begin to read at any moment
                new.carried = old.take_back()
            self._drain(old)
            old.is_replaced = True
            if not (old.closed.is_set() or old.backend.is_finished):
                self.leaving = old
        self.outbound.slot = new
        effects.add(self.touch)
        self._switch_taps(old, new)
        if new.backend.is_open:
            effects.add(self.on_event, Event.OPENED, new.backend)
        elif old is not None and old.backend.is_open:
            self._note(new, Event.CLOSED)
        new.in_place.set()
        if old is not None:
            old.look_again()
        effects.add(self._let_go_on)
        return effects

    def tell_all(self, effects: Effects) -> None:
        """Tell what a commit has to tell; raises nothing."""
        effects.run()
        self._effects = None

    def _give_way(self, old: Slot | None, new: Slot, *, carry: bool) -> None:
        """Have both backends do what only they can; raising, all is as before."""
        if old is not None:
            old.backend.prepare_to_leave(carry=carry)
        try:
            if self.is_guarded:
                new.backend.guard()
            new.backend.activate()
        except BaseException:
            if old is not None:
                old.stay()
            raise

    def _check_fit(self, new: Slot) -> None:
        """Raise what is against *new*."""
        self.check_not_closed()
        if (users := len(self.frontends)) > new.backend.max_frontends:
            raise ChangeRefusedError(
                f"Chardev '{self.id}' has {users} users, "
                f"but '{new.backend.filename}' can have only {new.backend.max_frontends}"
            )
        if new.closed.is_set():
            raise BackendError(
                f"the new backend of chardev '{self.id}' closed before it was in place"
            ) from new.error

    def _drain(self, old: Slot) -> None:
        """What the old backend has received comes before the new one's bytes.

        With a frontend DRAIN_LIMIT of it, which is more than a kernel's buffer holds, but a
        file, or a peer as fast as we are, has always more. Without one nobody takes it, so
        no more than always is kept.
        """
        if old.closed.is_set():
            return
        inbound = self.outlets.focus.inbound
        self._limit = len(inbound) + DRAIN_LIMIT if self.frontends else inbound.capacity
        try:
            while (room := self._room) > 0:
                if not (data := old.backend.receive_nowait(min(room, DRAIN_CHUNK))):
                    break
                self._late_data(old, data)
        except Exception as exc:
            log.warning("chardev '%s': the old backend broke in the drain: %r", self.id, exc)

    @property
    def _room(self) -> int:
        """How many bytes of a backend that leaves are kept."""
        return self._limit - len(self.outlets.focus.inbound)

    def _late_data(self, old: Slot, data: bytes) -> None:
        """*data* has come from *old*, which is being replaced or was."""
        self._tell(_show_received, old.backend.taps, data)
        self.outlets.focus.data(data)

    def _switch_taps(self, old: Slot | None, new: Slot) -> None:
        if old is not None:
            self._names = old.backend.filename, new.backend.filename
            if self.leaving is None:
                self._end_taps(old)
        self.outlets.taps = new.backend.taps
        state = Event.OPENED if new.backend.is_open else Event.CLOSED
        self._tell(_show_event, new.backend.taps, state)

    def _end_taps(self, old: Slot) -> None:
        """Those of *old* have been shown all."""
        before, after = self._names
        self._tell(show, old.backend.taps, lambda tap: tap.replaced(before, after))

    def _let_go_on(self) -> None:
        """Have everybody go on with the backend in place, once a commit has put it there."""
        if self.slot.carried:
            self.outbound.push_nowait(self.slot)
        if self.leaving is None:
            self.outlets.release(is_open=self.backend.is_open)
        else:
            self.outlets.let_last_in(is_open=self.backend.is_open)

    # ------------------------------------------------------------ the one who leaves

    async def see_off(self, old: Slot, timeout: float) -> None:
        """Let the peer of *old*, which was replaced, have its last bytes, and have all it says.

        For *timeout* seconds. Cancelled is not heard here.
        """
        try:
            await self._drain_slowly(old, timeout)
        finally:
            if self.leaving is not None:
                self.leaving = None
                self._end_taps(old)
                self.outlets.release(is_open=self.slot.started and self.backend.is_open)

    async def hear_out(self, timeout: float) -> None:
        """The chardev is to be closed: have its users get all that the peer says, as `see_off`."""
        slot = self.slot
        if not self.frontends or not slot.started or slot.closed.is_set():
            return
        if slot.backend.is_finished:
            return
        try:
            slot.backend.prepare_to_leave(carry=False)
        except BackendError as exc:
            log.warning("chardev '%s': its peer is not heard out: %s", self.id, exc)
            return
        self.outlets.hold(closed=False)
        try:
            self._drain(slot)
            slot.is_replaced = True
            await self._drain_slowly(slot, timeout)
        finally:
            self.outlets.release(is_open=False)

    async def _drain_slowly(self, slot: Slot, timeout: float) -> None:
        """Let the peer of *slot* have and say its last, behind what `_drain` has read."""
        lost = 0

        def take(data: bytes) -> None:
            nonlocal lost
            if kept := data[: max(0, self._room)]:
                self._late_data(slot, kept)
            lost += len(data) - len(kept)

        await slot.drain(timeout, take)
        if lost:
            log.warning("chardev '%s': %d bytes that nobody has read are lost", self.id, lost)

    # ------------------------------------------------------------ in place

    def backend_event(self, slot: Slot, event: BackendEvent) -> None:
        """An event of *slot*; only the backend in place is heard."""
        if slot is self.slot:
            self.row = None
            self._note(slot, event)
            if event is Event.OPENED:
                slot.look_again()
        elif slot is self.leaving and event is Event.BREAK:  # it has its place among the last bytes
            self._note(slot, event)

    def _note(self, slot: Slot, event: BackendEvent) -> None:
        """Have *event* of *slot* told, and queued for the frontends, behind the bytes."""
        self._tell(self.on_event, event, slot.backend)
        self._tell(_show_event, self.outlets.taps, event)
        self.outlets.event(event)

    def _tell(self, call: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Make a call to others at once, or while a commit is at work behind what that has to tell."""
        if self._effects is None:
            call(*args, **kwargs)
        else:
            self._effects.add(call, *args, **kwargs)

    def note_end(self, slot: Slot) -> None:
        """The task of *slot* is over; if it was in place, its frontend is told."""
        if slot is self.slot and not self.outbound.is_closed:
            log.error("chardev '%s': the backend is gone: %s", self.id, slot.error)
            self.outbound.interrupt()
            slot.backend.set_open(False)


def _show_received(taps: Iterable[Tap], data: bytes) -> None:
    show(taps, lambda tap: tap.received(data))


def _show_event(taps: Iterable[Tap], event: BackendEvent) -> None:
    show(taps, lambda tap: tap.event(event))
