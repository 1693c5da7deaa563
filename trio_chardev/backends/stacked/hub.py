"""hub: one user on several chardevs at once, its members.

The input of all members is read, each member's in its order; output goes to every member that is
open.

What counts as sent: a piece of output of up to PIECE bytes that one member has taken can't be
taken back. So as much of it as the fastest member takes at once counts as sent, and the others
are owed the rest (see `trio_chardev.backends.stacked.base`). With ``slow=wait`` the next piece
waits until no member is owed anything, so the slowest sets the pace. With ``slow=drop`` a slow
member is owed up to BACKLOG bytes, then loses what comes, which is counted, and the fastest sets
the pace. A send that is cancelled has sent nothing to any member; no member gets a byte twice.

A member that is not open is skipped: it begins with what is sent after it has opened.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import attrs
import trio

from trio_chardev.backends.stacked.base import Base
from trio_chardev.backends.stacked.bases import BackendOnBases, open_on_bases
from trio_chardev.backends.stacked.hub_line import HubLine, all_of
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.kind import Kind
from trio_chardev.core.line import Line
from trio_chardev.errors import BackendDisconnectedError, BackendError, OptionsError
from trio_chardev.events import (
    UNKNOWN_SIZE,
    BackendEvent,
    BreakState,
    Event,
    LineSettings,
    ModemLines,
    Purge,
    WindowSize,
)
from trio_chardev.options.backend import BackendOptions

MAX_MEMBERS = 32
PIECE = 1 << 14  # bytes; the size of a TLS record
BACKLOG = 1 << 16  # bytes

Slow = Literal["wait", "drop"]


@attrs.frozen(kw_only=True)
class HubOptions(BackendOptions):
    """Joins several chardevs: input of all of them, output to all of them."""

    chardevs: tuple[str, ...]
    """The chardevs to join, up to 32."""

    slow: Slow = "wait"
    """Whether a chardev that does not take the output as fast as the others makes them wait,
    or loses some of it."""

    @property
    def stands_on(self) -> tuple[str, ...]:
        """Its members."""
        return self.chardevs


class HubBackend(BackendOnBases):
    """A backend that stands on up to 32 chardevs (QEMU: 4)."""

    def __init__(
        self, request: OpenRequest, slow: Slow, bases: Sequence[Base], nursery: trio.Nursery
    ) -> None:
        super().__init__(request, bases, nursery)
        self._waits_for_slow = slow == "wait"
        self._up = {base for base in bases if base.is_open}  # as their events say, in order
        self._sizes: dict[Base, WindowSize] = {}  # of the members there, the last one told last
        self._turn = 0  # the index of the member that is read first
        self._readers = trio.lowlevel.ParkingLot()
        self._full: list[Base] = []  # the members for which the last send was not even begun
        self._line = HubLine(self.filename, bases)
        self.set_open(bool(self._up))

    @property
    def filename(self) -> str:
        return "hub"

    @property
    def line(self) -> Line:
        return self._line

    def activate(self) -> None:
        super().activate()
        self._up = {base for base in self.on_bases if base.is_open}
        for base in (base for base in self.on_bases if base in self._up):
            self._note_size(base, base.frontend.window_size)
        self.set_open(bool(self._up))

    def _note_size(self, base: Base, size: WindowSize) -> None:
        """Note the window *size* of a member; that which was told last, of those there, counts."""
        was_known = self._sizes.pop(base, None) is not None
        if size.is_known:
            self._sizes[base] = size
        if size.is_known or was_known:
            self._on_event(next(reversed(self._sizes.values()), UNKNOWN_SIZE))

    def base_event(self, base: Base, event: BackendEvent) -> None:
        """Open the hub when its first member opens, and close it when the last one closes."""
        match event:
            case Event.OPENED:
                self._up.add(base)
                self._line.show_at(base.frontend.line)
                self._note_size(base, base.frontend.window_size)
            case Event.CLOSED:
                self._up.discard(base)
                base.driven = ModemLines(0)
            case WindowSize():
                self._note_size(base, event)
                return
            case ModemLines():
                base.driven = event
                together = all_of(base.driven for base in self.on_bases)
                self._line.asked(base, event, together)
                self._on_event(together)
                return
            case LineSettings() | BreakState() | Purge():
                self._line.asked(base, event, event)
                self._on_event(event)
                return
            case _:
                self._on_event(event)
                return
        self.set_open(bool(self._up))
        if event is Event.CLOSED:
            self._note_size(base, UNKNOWN_SIZE)
        self.wake_senders()
        self.base_line_changed()

    async def base_changes(self, backend: Controls) -> None:
        """Let the user set up a member's new backend, if that has a line."""
        self._line.show_at(backend.line)
        if backend.line.is_settable:
            await super().base_changes(backend)

    # ------------------------------------------------------------ input

    def base_received(self, data: bytes) -> int:
        """Leave *data* with the member, until `receive_nowait` takes it."""
        self._readers.unpark_all()
        return 0

    def receive_nowait(self, max_bytes: int) -> bytes:
        """Read the members in turn, so that none is starved."""
        count = len(self.on_bases)
        for place in range(self._turn, self._turn + count):
            frontend = self.on_bases[place % count].frontend
            if frontend.is_attached and (data := frontend.take_ready(max_bytes)):
                self._turn = (place + 1) % count
                return data
        return b""

    async def wait_readable(self) -> None:
        if any(base.frontend.relay.has_input for base in self.on_bases):
            await trio.lowlevel.checkpoint()
        else:
            await self._readers.park()

    # ------------------------------------------------------------ output

    def send_nowait(self, data: memoryview) -> int:
        """Send a piece to each member; an error is raised only if none takes it, now or later."""
        members = self._open_members()
        piece = data[:PIECE]
        taken: dict[Base, int] = {}
        failed: dict[Base, BackendError] = {}
        self._full = [base for base in members if not base.is_paid()]
        if self._full and self._waits_for_slow:
            return 0
        for base in members:
            try:
                taken[base] = base.send_nowait(piece)
            except BackendError as exc:
                failed[base] = exc
        sent = max(taken.values(), default=0)
        if piece and not sent:
            if not taken:
                raise failed[members[-1]]
            self._full = list(taken)
        for base, count in taken.items():
            self._owe(base, piece[count:sent])
        for base, error in failed.items():
            base.lose(piece[:sent], error)
        if sent:
            for base in self.on_bases:
                if base not in members:
                    base.frontend.relay.give_up(piece[:sent])
        return sent

    def _open_members(self) -> list[Base]:
        """Return the members that get output. Raises BackendDisconnectedError if there are none."""
        for base in self.on_bases:
            if base.owed and not base.takes_output:
                base.forgive("nobody is there any more")
        if members := [base for base in self.on_bases if base.takes_output]:
            return members
        raise BackendDisconnectedError(f"no member of hub '{self.id}' is open")

    def _owe(self, base: Base, rest: memoryview) -> None:
        if len(base.owed) + len(rest) > BACKLOG:
            base.lose(rest, "it is too slow")
        elif rest:
            base.owed += rest
            self.pay_soon(base)

    async def wait_writable(self) -> None:
        if not self._full:
            await trio.lowlevel.checkpoint()
            return
        for base in self._full:
            self.pay_soon(base)
        await self.wait_paid()


@asynccontextmanager
async def open_hub(options: HubOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Stand on the chardevs that *options* list. Raises OptionsError, BackendError."""
    members: list[Chardev] = []
    if not options.chardevs:
        raise OptionsError("hub: 'chardevs' list is not defined")
    for id in options.chardevs:
        if id == request.id or id not in request.environment.chardevs:
            raise OptionsError(f"hub: chardev can't be found by id '{id}'")
        if len(members) == MAX_MEMBERS:
            raise OptionsError(
                f"hub: too many uses of chardevs '{request.id}' (maximum is {MAX_MEMBERS})"
            )
        members.append(request.environment.chardevs[id])
    make = functools.partial(HubBackend, request, options.slow)
    async with open_on_bases(members, request, make) as backend:
        yield backend


HUB = Kind(HubOptions, open_hub)
