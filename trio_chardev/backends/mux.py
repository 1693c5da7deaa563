"""mux: several users share another chardev, and keys switch between them.

What the base receives is looked at as it comes: bytes go to the user that has the focus,
commands behind the escape character are carried out. That goes on while the focused user does
not read, until LOOK_AHEAD more bytes wait than its queue should hold; only then the base is
not read any more, and nothing typed behind those bytes is seen. (QEMU stops at 32 bytes.)

All users' output goes to the base; a `send_all` of one is not mixed with another's, because
the users are frontends of one chardev.

The base can be changed under the mux: its `be_change` is that of all the users.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.delivery import Delivery
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.outlets import Outlets
from trio_chardev.errors import BackendDisconnectedError, BackendError, ChardevError
from trio_chardev.events import BackendEvent, Event, LineSettings, ModemLines
from trio_chardev.options import BackendOptions
from trio_chardev.protocols.escape import DEFAULT_ESCAPE, Command, EscapeParser

LOOK_AHEAD = 1 << 16  # bytes
STAMPED_AT_ONCE = 1 << 12  # bytes that are searched for the end of a line


@attrs.frozen(kw_only=True)
class MuxOptions(BackendOptions):
    """Shares another chardev among several users; keys switch between them."""

    chardev: str
    """The chardev to share."""


class _Base:
    """The one user of the base: a mux, or after a change the mux that took its place."""

    def __init__(self, chardev: Chardev) -> None:
        """Raises ChardevError if the base has another user."""
        self.chardev = chardev
        self.mux: MuxBackend | None = None
        self.frontend = chardev.attach(
            be_change=self._be_change, on_event=self._on_event, on_receive=self._on_receive
        )
        self.frontend.fe_open = lambda: self.mux is not None and self.mux.is_used

    async def _be_change(self, backend: Controls) -> None:
        if self.mux is not None:
            await self.mux.base_changes(backend)

    def _on_event(self, event: BackendEvent) -> None:
        if self.mux is not None:
            self.mux.base_event(event)

    def _on_receive(self, data: bytes) -> int:
        return self.mux.base_received(data) if self.mux is not None else 0


class MuxBackend(Backend):
    """Stands on another chardev, for up to 32 users (QEMU: 4)."""

    max_frontends = 32

    def __init__(self, request: OpenRequest, base: _Base) -> None:
        super().__init__(request)
        assert request.outlets is not None, "a mux is of a chardev"
        self.base = base
        self.bases = (base.chardev.id,)
        self._outlets: Outlets = request.outlets
        self._request = request
        self._escape = EscapeParser()
        self._own_output = bytearray()  # help and time stamps, not sent yet
        self._stamps_since: float | None = None
        self._is_at_line_start = False

    @property
    def filename(self) -> str:
        return "mux"

    @property
    def is_used(self) -> bool:
        """Has it users that are open?"""
        return any(frontend.fe_open() for frontend in self._outlets.frontends)

    @property
    def _frontend(self) -> Frontend:
        return self.base.frontend

    def activate(self) -> None:
        """Become the one that hears of the base. Raises BackendError.

        It may have come to stand on us since it was found: a change of it may overlap.
        """
        find_base(self.base.chardev.id, self._request)
        self.base.mux = self
        self.set_open(self._frontend.is_open)

    def close(self) -> None:
        """Leave the base, unless another mux has taken it over."""
        if self.base.mux in (self, None):
            self.base.chardev.detach(self._frontend)

    # ------------------------------------------------------------ input

    def base_received(self, data: bytes) -> int:
        """The base offers *data*; how much was taken.

        Each stretch ends where a command may end, for that may move the focus, and the room
        is that of who has it.
        """
        taken = 0
        while taken < len(data) and (room := self._room()) > 0:
            if self._escape.is_escaped:
                end = taken + 1
            else:
                end = data.find(DEFAULT_ESCAPE, taken) + 1 or len(data)
            stretch = data[taken : min(end, taken + room)]
            taken += len(stretch)
            for piece in self._escape.feed(stretch):
                if isinstance(piece, bytes):
                    self._outlets.data(piece)
                else:
                    self._carry_out(piece)
        return taken

    def _room(self) -> int:
        """How many bytes the one with the focus may get, counting those to look ahead."""
        focus = self._outlets.focus
        if focus.frontend is None or focus.inbound.is_paused:
            return 0
        return focus.inbound.room + LOOK_AHEAD

    async def wait_readable(self) -> None:
        """There is never anything to read here: take the base's again, as users have read."""
        while True:
            if self._frontend.is_attached:
                self._frontend.accept_input()
            await self._outlets.wait_room()

    def base_event(self, event: BackendEvent) -> None:
        """An event of the base goes to all users."""
        if event in (Event.OPENED, Event.CLOSED):
            self.set_open(event is Event.OPENED)  # it may be known since `activate`
        else:
            self._on_event(event)

    async def base_changes(self, backend: Controls) -> None:
        """Have every user that has a line to set up do it on the base's new backend."""
        asked: set[Frontend] = set()  # others may come meanwhile
        while frontend := next((f for f in self._outlets.frontends if f not in asked), None):
            asked.add(frontend)
            if frontend.be_change is not None:
                await frontend.be_change(backend)

    def attached(self, delivery: Delivery) -> None:
        """The last to come has the focus, unless a handler of it failed at once."""
        if delivery.frontend is None:
            return
        if delivery is self._outlets.focus:
            delivery.event(Event.MUX_IN)
        self._outlets.set_focus(delivery)
        if self._frontend.is_attached:
            self._frontend.accept_input()

    def guard(self) -> None:
        """See `Backend.guard`: it is the base to which somebody comes."""
        self.base.chardev.guard()

    def touch(self) -> None:
        """Whether the base is used depends on whether this is."""
        self.base.chardev.touch()

    def _carry_out(self, command: Command) -> None:
        match command:
            case Command.HELP:
                self._say(self._escape.help_text())
            case Command.QUIT:
                self._say(b"trio-chardev: Terminated\r\n")
                self._request.quit()
            case Command.BREAK:
                self._outlets.focus.event(Event.BREAK)
            case Command.SWITCH:
                self._focus_next()
            case Command.TIMESTAMPS:
                self._stamps_since = time.monotonic() if self._stamps_since is None else None
                self._is_at_line_start = False

    def _focus_next(self) -> None:
        deliveries = self._outlets.deliveries
        place = deliveries.index(self._outlets.focus)
        self._outlets.set_focus(deliveries[(place + 1) % len(deliveries)])

    # ------------------------------------------------------------ output

    def _say(self, text: bytes) -> None:
        """Send *text* of our own, now or before what is sent next."""
        self._own_output += text
        try:
            self._send_own_nowait()
        except BackendError:
            self._own_output.clear()  # nobody is there to read it

    def send_nowait(self, data: memoryview) -> int:
        sent = 0
        while sent < len(data):
            stretch = self._stretch(data[sent:])
            if not self._send_own_nowait():
                break
            count = self._send_to_base(stretch)
            self._note_sent(stretch[:count])
            sent += count
            if count < len(stretch):
                break
        return sent

    async def send_some(self, data: memoryview) -> int:
        stretch = self._stretch(data)
        try:
            while self._own_output:
                sent = await self._frontend.send_some(bytes(self._own_output))
                del self._own_output[:sent]
            sent = await self._frontend.send_some(stretch)
        except (ChardevError, trio.ClosedResourceError) as exc:
            raise _as_backend_error(exc) from exc
        self._note_sent(stretch[:sent])
        return sent

    def _send_own_nowait(self) -> bool:
        """Send what is our own; is it all gone?"""
        if self._own_output:
            sent = self._send_to_base(memoryview(bytes(self._own_output)))
            del self._own_output[:sent]
        return not self._own_output

    def _send_to_base(self, data: memoryview) -> int:
        try:
            return self._frontend.send_nowait(data)
        except (ChardevError, trio.ClosedResourceError) as exc:
            raise _as_backend_error(exc) from exc

    def _stretch(self, data: memoryview) -> memoryview:
        """As much of *data* as needs no time stamp within; one before it is put down."""
        if self._stamps_since is None:
            return data
        if self._is_at_line_start:
            self._own_output += _stamp(time.monotonic() - self._stamps_since)
            self._is_at_line_start = False
        data = data[:STAMPED_AT_ONCE]
        return data[: bytes(data).find(b"\n") + 1] or data

    def _note_sent(self, data: memoryview) -> None:
        if data and self._stamps_since is not None:
            self._is_at_line_start = data[-1] == ord("\n")

    # ------------------------------------------------------------ the line is the base's

    async def set_line(self, settings: LineSettings) -> None:
        """See LineControl."""
        await self._frontend.set_line(settings)

    async def get_modem(self) -> ModemLines:
        """See ModemControl."""
        return await self._frontend.get_modem()

    async def set_modem(self, lines: ModemLines) -> None:
        """See ModemControl."""
        await self._frontend.set_modem(lines)

    async def send_break(self, duration: float) -> None:
        """See BreakControl."""
        await self._frontend.send_break(duration)


@asynccontextmanager
async def open_mux(options: MuxOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Stand on the chardev that *options* name. Raises BackendError."""
    chardev = find_base(options.chardev, request)
    replaced = request.replaces
    if isinstance(replaced, MuxBackend) and replaced.base.chardev is chardev:
        base = replaced.base  # it is handed over by the commit
    else:
        try:
            base = _Base(chardev)
        except ChardevError as exc:
            raise BackendError(str(exc)) from exc
    backend = MuxBackend(request, base)
    try:
        backend.set_open(base.frontend.is_open)
        yield backend
    finally:
        backend.close()


def find_base(id: str, request: OpenRequest) -> Chardev:
    """The chardev *id*, for a mux that is to stand on it.

    Raises BackendError if there is none, or if it stands on ours.
    """
    if id == request.id or id not in request.chardevs:
        raise BackendError(f"mux: base chardev {id} not found")
    chardev = request.chardevs[id]
    below = list(chardev.backend.bases)
    while below:
        lower = below.pop()
        if lower == request.id:
            raise BackendError(f"Chardev '{id}' stands on '{lower}' itself")
        if lower in request.chardevs:
            below += request.chardevs[lower].backend.bases
    return chardev


def _stamp(seconds: float) -> bytes:
    milliseconds = int(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    rest, milliseconds = divmod(milliseconds, 1000)
    return b"[%02d:%02d:%02d.%03d] " % (hours, minutes, rest, milliseconds)


def _as_backend_error(error: Exception) -> BackendError:
    if isinstance(error, BackendError):
        return error
    return BackendDisconnectedError(str(error) or "the base of the mux is gone")
