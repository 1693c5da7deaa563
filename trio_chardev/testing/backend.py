"""The backend of a fake device."""

from __future__ import annotations

import os
from collections.abc import Callable

import attrs
import trio

from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.leaving import Leaving
from trio_chardev.core.line import BREAK_DURATION, Line
from trio_chardev.core.peer import Peer
from trio_chardev.core.splicing import CannotSplice, SplicePipe
from trio_chardev.core.stacking import Stacking
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import (
    OUTPUTS,
    BackendEvent,
    LineRequest,
    LineSettings,
    ModemLines,
    Purge,
    WindowSize,
)
from trio_chardev.testing.world import FakeWorld

FAKE_SPLICE = 1 << 15  # bytes; they fit into a pipe(7) of any size


@attrs.frozen
class FakeDirect:
    """Takes and gives a fake device's bytes by a `SplicePipe`."""

    device: FakeWorld
    plain_socket: None = None
    """A fake device has none."""

    def receive_into(self, pipe: SplicePipe, max_bytes: int) -> int:
        """See `trio_chardev.core.direct.Direct`."""
        assert self.device.is_active, "read before it was in place"
        ours, theirs = os.pipe2(os.O_NONBLOCK)
        try:
            data = self.device.take(min(max_bytes, FAKE_SPLICE))
            return pipe.fill(ours, os.write(theirs, data)) if data else 0
        finally:
            os.close(ours)
            os.close(theirs)

    def send_from(self, pipe: SplicePipe) -> int:
        """See `trio_chardev.core.direct.Direct`."""
        if not self.device.is_held_open:
            raise CannotSplice
        room = 0 if self.device.stuck else self.device.room
        ours, theirs = os.pipe2(os.O_NONBLOCK)
        try:
            sent = pipe.empty_into(theirs, FAKE_SPLICE if room is None else min(room, FAKE_SPLICE))
            if sent:
                self.device.put(memoryview(os.read(ours, sent)))
            return sent
        finally:
            os.close(ours)
            os.close(theirs)


class FakeBackend(Backend):
    """A backend in memory; made by `FakeDevice.open`."""

    def __init__(self, request: OpenRequest, device: FakeWorld) -> None:
        super().__init__(request)
        self.device = device
        self.gives_all, self.is_polled = device.gives_all, device.is_polled
        self.is_silent = device.is_silent
        self.keeps_peer = device.keeps_peer and request.keep_peer
        self.is_hung_up = False
        self._waited_for = 0  # bytes
        self.is_carried = False

    @property
    def filename(self) -> str:
        return f"fake:{self.device.name}"

    @property
    def line(self) -> Line:
        return FakeLine(self.filename, self.device) if self.device.has_line else super().line

    def activate(self) -> None:
        if not self.device.activates:
            raise BackendError(f"{self.device.name} does not take its place")
        self.device.is_active = True

    def receive_nowait(self, max_bytes: int) -> bytes:
        assert self.device.is_active, "read before it was in place"
        data = self.device.take(max_bytes)
        if not data and self.device.has_left:
            self.device.has_left = self.is_hung_up = False
            self.device.connect(False)
        return data

    @property
    def direct(self) -> FakeDirect | None:
        return FakeDirect(self.device) if self.device.can_splice and self.is_open else None

    async def wait_readable(self) -> None:
        if self.device.dies_after is not None:
            for _ in range(self.device.dies_after):
                await trio.lowlevel.checkpoint()
            raise BackendError(f"{self.device.name} died")
        if self.device.unread or self.device.has_left:  # since the last look
            await trio.lowlevel.checkpoint()
        else:
            await self.device.wait_fed()

    @property
    def peer(self) -> Peer:
        return FakePeer(self)

    @property
    def stacking(self) -> Stacking:
        return FakeStacking(self.device)

    @property
    def leaving(self) -> Leaving:
        return FakeLeaving(self)

    def say(self, event: BackendEvent) -> None:
        """Report *event* to the chardev."""
        self._on_event(event)

    def send_nowait(self, data: memoryview) -> int:
        self._check_send()
        if self.device.stuck:
            return 0
        if self.device.eager:
            return self.device.put(data[: self.device.gulp])
        taken = data[: self._waited_for]
        self._waited_for = 0
        self.device.sent += taken
        return len(taken)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.device.stuck:
            await trio.sleep_forever()
        if self.device.eager:
            await self.device.wait_room()
        else:
            self._waited_for = 2

    def _check_send(self) -> None:
        assert self.device.is_active, "written before it was in place"
        if not self.is_open or not self.device.is_held_open:
            raise BackendDisconnectedError(f"nobody is at {self.device.name}")


class FakePeer(Peer):
    """The peer at the device of a fake backend."""

    needs_attention = True

    def __init__(self, backend: FakeBackend) -> None:
        super().__init__(backend.filename)
        self.backend = backend
        self.device = backend.device

    @property
    def is_kept(self) -> bool:
        return self.backend.keeps_peer

    @property
    def is_hung_up(self) -> bool:
        return self.backend.is_hung_up

    async def attend(self) -> None:
        while not self.device.has_left or self.backend.is_hung_up:
            await self.device.wait_fed()
        self.backend.is_hung_up = True


class FakeStacking(Stacking):
    """The number of users that a fake device allows; it passes `touch` on to the device."""

    def __init__(self, device: FakeWorld) -> None:
        self.max_frontends = device.max_frontends
        self.device = device

    def touch(self) -> None:
        self.device.on_touch()


class FakeLeaving(Leaving):
    """How a fake backend leaves, by the faults of its device."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend
        self.device = backend.device

    async def settle(self, timeout: float) -> None:
        self.device.is_taking, self.device.is_settling = False, True
        await trio.lowlevel.checkpoint()
        if self.device.settle_seconds is not None:
            await trio.sleep(self.device.settle_seconds)
            self.device.take_all()

    @property
    def is_taking(self) -> bool:
        return self.device.is_taking

    def prepare(self, *, carry: bool) -> None:
        assert not self.device.is_leaving, "asked twice"
        if not self.device.lets_go:
            raise BackendError(f"{self.device.name} can't be replaced")
        self.device.is_leaving, self.backend.is_carried = True, carry
        self.device.is_settling = False

    def stay(self) -> None:
        self.device.is_leaving = self.device.is_settling = False

    def take_back(self) -> bytes:
        assert self.device.is_leaving, "not prepared for that"
        assert self.backend.is_carried, "not asked to prepare for that"
        return self.device.take_back()

    @property
    def is_finished(self) -> bool:
        is_heard = self.device.answers and not self.device.last_words
        return not self.backend.is_open or is_heard

    async def finish(self, take: Callable[[bytes], None]) -> None:
        assert self.device.is_leaving, "not prepared for that"
        for byte in self.device.last_words:
            await trio.lowlevel.checkpoint()
            self.device.feed(bytes([byte]))
            take(self.device.take_fed())
        while not self.device.answers:
            await self.device.wait_fed()
            take(self.device.take_fed())

    @property
    def is_drained(self) -> bool:
        return False

    async def drain(self) -> None:
        assert self.device.is_leaving, "not prepared for that"
        await trio.lowlevel.checkpoint()
        if not self.device.drains:
            await trio.sleep_forever()


class FakeLine(Line):
    """The serial line of a fake device with `has_line`; it records the calls."""

    is_settable = True

    def __init__(self, filename: str, device: FakeWorld) -> None:
        super().__init__(filename)
        self.device = device

    @property
    def settings(self) -> LineSettings:
        return super().settings if self.device.line is None else self.device.line

    @property
    def polled(self) -> frozenset[str]:
        return self.device.polled

    def look(self, *, anew: bool = False) -> None:
        self.device.looks += 1
        if anew and self.device.backend is not None:
            self.device.backend._on_event(self.device.modem)

    async def set(self, settings: LineSettings) -> None:
        await trio.lowlevel.checkpoint()
        if self.device.line_fails:
            raise BackendError(f"{self.device.name} does not take {settings}")
        self._called(settings)
        if self.device.line is not None:
            self.device.line = settings

    async def get_modem(self) -> ModemLines:
        await trio.lowlevel.checkpoint()
        return self.device.modem

    async def set_modem(self, lines: ModemLines) -> None:
        await trio.lowlevel.checkpoint()
        self._called(lines)
        if self.device.line is not None:
            self.device.modem = (self.device.modem & ~OUTPUTS) | (lines & OUTPUTS)

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        await trio.sleep(duration)
        self.device.line_calls.append(duration)

    async def set_break(self, is_on: bool) -> None:
        await trio.lowlevel.checkpoint()
        self._called(is_on)

    def _called(self, argument: object) -> None:
        if argument == self.device.line_refuses:
            raise BackendError(f"{self.device.name} does not take {argument}")
        self.device.line_calls.append(argument)

    async def purge(self, buffers: Purge) -> None:
        await trio.lowlevel.checkpoint()
        self.device.line_calls.append(buffers)

    async def set_window_size(self, size: WindowSize) -> None:
        await trio.lowlevel.checkpoint()
        self._called(size)

    def acknowledge(self, request: LineRequest, in_force: LineRequest | None) -> None:
        self.device.acknowledged.append((request, in_force))

    async def set_echo(self, echo: bool) -> None:
        await trio.lowlevel.checkpoint()
        self.device.line_calls.append(echo)
