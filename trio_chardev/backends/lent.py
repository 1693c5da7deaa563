"""What stands in for a device while it is lent: to another program, or to the user of a PTY.

In the first case the device is closed. In the second it stays open, and a PTY leads to it: bytes go
both ways, and the PTY's settings to the device, whose line is shared like in any change to the same
device, so that DTR and RTS have no edge. In both, nobody is there for the chardev's own users.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import attrs
import trio

from trio_chardev.backends.pty.pty import PtyOptions, open_pty
from trio_chardev.core.at_once import AtOnce
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.leaving import Leaving
from trio_chardev.core.line import Line
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.core.tap import Tap
from trio_chardev.errors import BackendDisconnectedError, BackendError, ChardevError
from trio_chardev.events import BackendEvent, Event, LineSettings

log = logging.getLogger(__name__)

PIECE = 1 << 16  # bytes
LOOK_INTERVAL = 0.1  # seconds between looks at the PTY's settings, while somebody has it open
CLOSE_DELAY = 0.5  # seconds in which the next program may open the PTY, as after stty(1)
RETRY_INTERVAL = 1.0  # seconds until bytes are sent again that a device that is away did not take


class LentBackend(Backend):
    """Nobody is here: the device is lent."""

    is_silent = True

    def __init__(self, request: OpenRequest, device: str) -> None:
        """*device* is its name, as query-chardev shows it."""
        super().__init__(request)
        self._device_name = device

    @property
    def filename(self) -> str:
        return f"lent:{self._device_name}"

    def send_nowait(self, data: memoryview) -> int:
        raise BackendDisconnectedError(f"'{self._device_name}' is lent")


class LentToPty(LentBackend):
    """The device is open, and the user of a PTY has it."""

    is_silent = False
    pty: str

    def __init__(
        self,
        request: OpenRequest,
        device: Backend,
        its_request: OpenRequest,
        terminal: Terminal,
        set_up: Callable[[Line], Awaitable[None]],
    ) -> None:
        """*device* was opened with *its_request*; *set_up* sets its line as it was."""
        super().__init__(request, device.filename)
        self._its_request = its_request
        self._set_up = set_up
        assert terminal.backend.pty is not None
        self.pty = terminal.backend.pty
        self._device = device
        self._terminal = terminal
        self._is_in_place = trio.Event()
        self._setting = trio.Lock()
        self._rest = memoryview(b"")
        """What has come from the device and the terminal has not taken."""
        self._may_read = trio.Event()
        """Unset by a commit: what the device sends from then on is not for the terminal."""
        self._may_read.set()

    @property
    def shared(self) -> Backend:
        return self._device

    @property
    def taps(self) -> tuple[Tap, ...]:
        """They are kept at the device, where the next backend looks for those to take over."""
        return self._device.taps

    @taps.setter
    def taps(self, taps: tuple[Tap, ...]) -> None:
        self._device.taps = taps

    @property
    def leaving(self) -> Leaving:
        return _Returning(self, self._device.leaving, self._terminal.backend.leaving)

    def set_reading(self, *, is_on: bool) -> None:
        """Stop reading the device for the terminal, as it is returned; or go on."""
        if is_on:
            self._may_read.set()
        else:
            self._may_read = trio.Event()

    def receive_nowait(self, max_bytes: int) -> bytes:
        """Give what the terminal has not taken of the device, when that is returned."""
        if self._may_read.is_set():
            return b""
        data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return bytes(data)

    async def prepare(self) -> None:
        await self._set_up(self._device.line)
        await self._device.prepare()

    def activate(self) -> None:
        self._device.activate()
        self._terminal.backend.activate()
        self._is_in_place.set()
        self._its_request.replaces = None

    # ------------------------------------------------------------ passing on

    async def run(self) -> None:
        """Pass on what comes, once it is in place. Raises BackendError if the device ends."""
        await self._is_in_place.wait()
        with suppress(ChardevError):
            self._terminal.backend.line.show(self._device.line.settings)
        self._terminal.backend.line.look()  # from now on it also looks before it gives bytes
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_to_terminal)
            nursery.start_soon(self._pass_to_device)
            nursery.start_soon(self._look)

    async def _pass_to_terminal(self) -> None:
        device, terminal = self._device, self._terminal.backend
        while True:
            await self._may_read.wait()
            if not self._rest:
                self._rest = memoryview(device.receive_nowait(PIECE))
            if not self._rest:
                await device.wait_readable()
                continue
            try:
                if sent := terminal.send_nowait(self._rest):
                    self._rest = self._rest[sent:]
                else:
                    await terminal.wait_writable()
            except BackendDisconnectedError:
                self._rest = memoryview(b"")  # nobody has the PTY open, so nobody wants it
            await trio.lowlevel.checkpoint()

    async def _pass_to_device(self) -> None:
        terminal = self._terminal
        while True:
            data = terminal.backend.receive_nowait(PIECE)
            await self._set_line()
            await self._send(memoryview(data))
            if data:
                continue
            with trio.move_on_at(terminal.left_at + CLOSE_DELAY) as waited:
                await terminal.backend.wait_readable()
            if waited.cancelled_caught:
                terminal.left_at = math.inf
                terminal.on_close()

    async def _send(self, rest: memoryview) -> None:
        while rest:
            try:
                rest = rest[await self._device.send_some(rest) :]
            except BackendDisconnectedError:
                await trio.sleep(RETRY_INTERVAL)

    async def _look(self) -> None:
        """Look for new settings, which a PTY reports to nobody, while somebody has it open."""
        while True:
            await self._terminal.wait_open()
            self._terminal.backend.line.look()
            await self._set_line()
            await trio.sleep(LOOK_INTERVAL)

    async def _set_line(self) -> None:
        """Set the device's line to what the terminal's user has set."""
        async with self._setting:
            while self._terminal.settings:
                wanted = in_force = self._terminal.settings.popleft()
                try:
                    await self._device.line.set(wanted)
                except BackendError as exc:
                    log.warning("chardev '%s', lent to '%s': %s", self.id, self.pty, exc)
                    with suppress(ChardevError):
                        in_force = self._device.line.settings
                except ChardevError:
                    continue  # it has no line
                self._terminal.backend.line.acknowledge(wanted, in_force)


@attrs.frozen
class _Returning(Leaving):
    """The device's way to leave, while the terminal's user takes the last that is for him."""

    _lent: LentToPty
    _device: Leaving
    _terminal: Leaving

    async def settle(self, timeout: float) -> None:
        await self._device.settle(timeout)

    @property
    def is_taking(self) -> bool:
        return self._device.is_taking

    def prepare(self, *, carry: bool) -> None:
        self._device.prepare(carry=carry)
        self._terminal.prepare(carry=False)
        self._lent.set_reading(is_on=False)

    def stay(self) -> None:
        self._lent.set_reading(is_on=True)
        self._terminal.stay()
        self._device.stay()

    def take_back(self) -> bytes:
        return self._device.take_back()

    async def finish(self, take: Callable[[bytes], None]) -> None:
        await self._device.finish(take)

    @property
    def is_finished(self) -> bool:
        return self._device.is_finished

    async def drain(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._terminal.drain)
            await self._device.drain()

    @property
    def is_drained(self) -> bool:
        return self._device.is_drained and self._terminal.is_drained


@attrs.define(eq=False, repr=False)
class Terminal:
    """The PTY to whose user a device is lent."""

    on_close: Callable[[], None]
    """Called `CLOSE_DELAY` after its last user has closed it; all that came is passed on by then."""
    backend: Backend = attrs.field(init=False)
    settings: deque[LineSettings] = attrs.field(factory=deque, init=False)
    """Those that its user has made, and that the device does not have yet."""
    left_at: float = math.inf
    """When its last user has closed it; infinity while it is open, or `on_close` was called."""
    _came: trio.Event = attrs.field(factory=trio.Event, init=False)

    def note(self, event: BackendEvent) -> None:
        """Handle an event of the PTY."""
        if event is Event.OPENED:
            self._came.set()
            self.left_at = math.inf
        elif event is Event.CLOSED:
            self._came = trio.Event()
            self.left_at = trio.current_time()
        elif isinstance(event, LineSettings):
            self.settings.append(event)

    async def wait_open(self) -> None:
        """Wait until somebody has it open."""
        await self._came.wait()


def open_lent(name: str) -> Opener:
    """Give an opener for what stands in for a device, called *name*, that is closed meanwhile."""

    return lambda request: AtOnce(partial(LentBackend, request, name))


def open_lent_to_pty(
    open_device: Opener,
    set_up: Callable[[Line], Awaitable[None]],
    on_close: Callable[[], None],
) -> Opener:
    """Give an opener that puts a PTY before a device, which *open_device* opens.

    *set_up* sets the device's line as it was, and *on_close* is called when the PTY's last user has
    closed it. Entering raises BackendError.
    """

    @asynccontextmanager
    async def opener(request: OpenRequest) -> AsyncIterator[Backend]:
        terminal = Terminal(on_close)
        its_request = attrs.evolve(request, on_event=ignore, users=None)
        async with (
            open_device(its_request) as device,
            open_pty(PtyOptions(), OpenRequest(id=request.id, on_event=terminal.note)) as backend,
        ):
            terminal.backend = backend
            lent = LentToPty(request, device, its_request, terminal, set_up)
            async with open_background_nursery() as nursery:
                nursery.start_soon(lent.run)
                yield lent

    return opener


def ignore(event: BackendEvent) -> None:
    """Take an event of a device that others use."""
