"""The place that a backend has in a chardev, and the commit, which gives it to another.

The commit is one function without a checkpoint: before it every failure unwinds to the
original, after it nothing can fail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs
import trio

from trio_chardev.core.backend import Backend, show
from trio_chardev.core.delivery import INBOUND_LIMIT
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.outbound import Outbound
from trio_chardev.core.outlets import Outlets
from trio_chardev.core.slot import Slot
from trio_chardev.errors import BackendError, ChangeRefusedError, ChardevClosedError
from trio_chardev.events import BackendEvent, Event

log = logging.getLogger(__name__)

DRAIN_CHUNK = 1 << 16  # bytes
DRAIN_LIMIT = INBOUND_LIMIT  # bytes that one change keeps; refused while more wait


@attrs.define(eq=False)
class Seat:
    """Who has the place, and the ways from and to it, which outlive whoever has it."""

    id: str
    on_event: Callable[[BackendEvent], None]
    """Is told every event of the backend in place, whether a frontend is there or not."""
    row: bytes | None = attrs.field(default=None, init=False)
    """What a lister has written about it; None once something that a list shows has changed."""
    is_guarded: bool = attrs.field(default=False, init=False)
    """Backends to come are guarded, too, see `Backend.guard`."""
    leaving: Slot | None = attrs.field(default=None, init=False)
    """Was replaced, and its last bytes come before those of the one in place."""
    _limit: int = attrs.field(default=0, init=False)  # of what is queued when they have come
    _names: tuple[str, str] = attrs.field(default=("", ""), init=False)  # the last two in place
    outbound: Outbound = attrs.field(init=False)
    outlets: Outlets = attrs.field(factory=Outlets, init=False)

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

    @trio.lowlevel.enable_ki_protection
    def commit(self, old: Slot | None, new: Slot, *, carry: bool = False) -> None:
        """Put *new* in place of *old*. If it raises, the original is untouched."""
        self._check_fit(new)
        if old is not None:
            old.backend.prepare_to_leave(carry=carry)
        try:
            if self.is_guarded:
                new.backend.guard()
            new.backend.activate()
        except BaseException:
            if old is not None:
                old.backend.stay()
            raise
        # From here on nothing raises; code of others is called where that is caught.
        show(new.backend.taps, lambda tap: tap.activate())
        if old is not None:
            self._drain(old)
            if carry:
                new.carried = old.take_back()
            old.is_replaced = True
            if not (old.closed.is_set() or old.backend.is_finished):
                self.leaving = old
        self.outbound.slot = new
        self._switch_taps(old, new)
        self.touch()
        self._tell(old, new)
        new.in_place.set()
        if old is not None:
            old.look_again()
        if new.carried:
            self.outbound.push_nowait(new)

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
                self.outlets.late_data(data, old.backend.taps)
        except Exception as exc:
            log.warning("chardev '%s': the old backend broke in the drain: %r", self.id, exc)

    @property
    def _room(self) -> int:
        """How many bytes of a backend that leaves are kept."""
        return self._limit - len(self.outlets.focus.inbound)

    def _switch_taps(self, old: Slot | None, new: Slot) -> None:
        if old is not None:
            self._names = old.backend.filename, new.backend.filename
            if self.leaving is None:
                self._end_taps(old)
        self.outlets.taps = new.backend.taps
        state = Event.OPENED if new.backend.is_open else Event.CLOSED
        show(new.backend.taps, lambda tap: tap.event(state))

    def _end_taps(self, old: Slot) -> None:
        """Those of *old* have been shown all."""
        show(old.backend.taps, lambda tap: tap.replaced(*self._names))

    def _tell(self, old: Slot | None, new: Slot) -> None:
        """Tell of the new one's state what `Outlets.hold` has not told."""
        if new.backend.is_open:
            self.on_event(Event.OPENED)
        if old is not None and old.backend.is_open and not new.backend.is_open:
            self.backend_event(new, Event.CLOSED)
        if self.leaving is None:
            self.outlets.release(is_open=new.backend.is_open)
        else:
            self.outlets.let_last_in(is_open=new.backend.is_open)

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
                self.outlets.late_data(kept, slot.backend.taps)
            lost += len(data) - len(kept)

        await slot.drain(timeout, take)
        if lost:
            log.warning("chardev '%s': %d bytes that nobody has read are lost", self.id, lost)

    # ------------------------------------------------------------ in place

    def backend_event(self, slot: Slot, event: BackendEvent) -> None:
        """An event of *slot*; only the backend in place is heard."""
        if slot is self.slot:
            self.row = None
            self.on_event(event)
            self.outlets.event(event)
            if event is Event.OPENED:
                slot.look_again()
        elif slot is self.leaving and event is Event.BREAK:  # it has its place among the last bytes
            self.on_event(event)
            self.outlets.event(event)

    def note_end(self, slot: Slot) -> None:
        """The task of *slot* is over; if it was in place, its frontend is told."""
        if slot is self.slot and not self.outbound.is_closed:
            log.error("chardev '%s': the backend is gone: %s", self.id, slot.error)
            self.outbound.interrupt()
            slot.backend.set_open(False)
