"""What a PTY's user has not read, in a change that carries it over, perhaps during a read."""

from __future__ import annotations

import os
import termios
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_chardev.backends.descriptor import DRAIN_INTERVAL, READ_SIZE, TERMINAL_READ, count_unread
from trio_chardev.backends.inotify import IN_Q_OVERFLOW
from trio_chardev.backends.pty import opens, unread as module
from trio_chardev.backends.pty.pty import PtyBackend, PtyOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.core.runner import DRAIN_TIMEOUT
from trio_chardev.errors import ChangeFailedError
from trio_chardev.registry import Registry, open_registry

PATTERN = bytes(range(256)) * 256  # more than the kernel holds for a PTY
RING = RingbufOptions(size=1 << 20)
QUIET = max(module.QUIET_TIME, DRAIN_TIMEOUT * module.QUIET_SHARE)
SLOWLY = 64  # bytes a read
PIECE = 1000  # bytes a write; the kernel takes more of them in small pieces


@attrs.define
class Rig:
    """A chardev on a PTY, which its user has open, and who writes to it."""

    registry: Registry
    backend: PtyBackend
    frontend: Frontend
    slave: int
    sent: int = 0
    got: bytearray = attrs.Factory(bytearray)
    last_read: float = 0.0

    def fill(self, size: int = len(PATTERN)) -> None:
        """Send up to *size* bytes, as long as the PTY takes them."""
        while more := self.frontend.try_send(PATTERN[self.sent : min(size, self.sent + PIECE)]):
            self.sent += more
        self._wait_moved()

    def read(self, size: int = READ_SIZE) -> bool:
        """Have the user read; was there something?"""
        with suppress(OSError):  # nothing is left, or the master is closed
            self.got += os.read(self.slave, size)
            self.last_read = trio.current_time()
            self._wait_moved()
            return True
        return False

    async def read_on(self, size: int, interval: float) -> None:
        """Have the user read until there is nothing left, but not for nothing."""
        while self.read(size):  # noqa: ASYNC110 - it is no wait
            await trio.sleep(interval)

    def _wait_moved(self) -> None:
        """Wait until the kernel has moved up what there is room for."""
        size = min(TERMINAL_READ, self.sent - len(self.got))
        deadline = time.monotonic() + 5
        while count_unread(self.slave) < size:
            assert time.monotonic() < deadline
            os.sched_yield()

    async def change(self, drain_timeout: float = DRAIN_TIMEOUT) -> bytes:
        """Change it to a ring; what was carried over."""
        await self.registry.change("x", RING, carry=True, drain_timeout=drain_timeout)
        ring = self.registry["x"].backend
        assert isinstance(ring, RingbufBackend)
        return ring.read(READ_SIZE)

    def detach(self) -> None:
        self.registry["x"].detach(self.frontend)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    async with open_registry() as registry:
        await registry.add("x", PtyOptions())
        chardev = registry["x"]
        assert isinstance(chardev.backend, PtyBackend)
        slave = os.open(chardev.backend.pty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            frontend = chardev.attach(be_change=stateless)
            yield Rig(registry, chardev.backend, frontend, slave)
        finally:
            os.close(slave)


def hear_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have inotify tell of opens only."""

    def refuse(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(opens.OpenWatcher, "hear_reads", refuse)


# ---------------------------------------------------------------- who reads


async def test_who_reads_all_he_can_at_a_time_is_let_finish(autojump_clock: MockClock) -> None:
    """As much as he has read has moved up behind it: FIONREAD tells no difference."""
    async with rig() as rig_, trio.open_nursery() as nursery:
        rig_.fill(3 * TERMINAL_READ)
        nursery.start_soon(rig_.read_on, READ_SIZE, QUIET * 0.8)
        assert await rig_.change() == b""
        assert rig_.got == PATTERN[: rig_.sent]


@pytest.mark.parametrize("hears", [False, True])
async def test_who_reads_a_little_at_a_time_is_let_finish(
    hears: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hears:
        hear_nothing(monkeypatch)
    async with rig() as rig_, trio.open_nursery() as nursery:
        rig_.fill(4 * SLOWLY)
        nursery.start_soon(rig_.read_on, SLOWLY, QUIET / 2)
        assert await rig_.change() == b""
        assert rig_.got == PATTERN[: rig_.sent]


async def test_who_does_not_read_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with rig() as rig_:
        rig_.fill()
        begin = trio.current_time()
        assert await rig_.change() == PATTERN[: rig_.sent]
        assert trio.current_time() - begin == pytest.approx(QUIET, abs=2 * DRAIN_INTERVAL)


async def test_with_a_longer_drain_timeout_who_reads_seldom_is_let_finish(
    autojump_clock: MockClock,
) -> None:
    async with rig() as rig_, trio.open_nursery() as nursery:
        rig_.fill()
        nursery.start_soon(rig_.read_on, READ_SIZE, QUIET * 10)
        await rig_.change(DRAIN_TIMEOUT * 20)
        assert rig_.got == PATTERN[: rig_.sent]


async def test_who_reads_on_and_on_is_cut_off_when_he_has_just_read(
    autojump_clock: MockClock,
) -> None:
    """So soon he does not read again, between two pieces of what is taken back."""
    interval = QUIET / 5
    async with rig() as rig_, trio.open_nursery() as nursery:
        rig_.fill()
        begin = trio.current_time()
        nursery.start_soon(rig_.read_on, SLOWLY, interval)
        await rig_.backend.leaving.settle(DRAIN_TIMEOUT)
        assert trio.current_time() - rig_.last_read <= 1.5 * DRAIN_INTERVAL
        assert DRAIN_TIMEOUT / 2 < trio.current_time() - begin < DRAIN_TIMEOUT
        nursery.cancel_scope.cancel()


async def test_who_begins_to_read_while_users_are_set_up_is_let_finish(
    autojump_clock: MockClock,
) -> None:
    async with rig() as rig_, trio.open_nursery() as nursery:
        rig_.fill()

        async def set_up(backend: Controls) -> None:
            assert rig_.read(), "he had been quiet, and nothing was taken back"
            await trio.sleep(QUIET / 2)
            nursery.start_soon(rig_.read_on, READ_SIZE, QUIET / 2)

        rig_.detach()
        rig_.registry["x"].attach(be_change=set_up)
        assert await rig_.change() == b""
        assert rig_.got == PATTERN[: rig_.sent]


@pytest.mark.parametrize("drain_timeout", [DRAIN_TIMEOUT, QUIET / 5], ids=["quiet", "timed-out"])
async def test_who_reads_in_the_midst_of_it_is_told_of(
    drain_timeout: float,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The kernel serves two who read by turns: nobody can keep him away."""
    async with rig() as rig_:
        rig_.fill()
        sent = rig_.sent
        read_piece = module._read_piece

        def be_overtaken(slave: int) -> bytes:
            if rig_.sent == sent:
                piece = read_piece(slave)
                rig_.sent -= len(piece)
                return piece
            if not rig_.got:  # he is at it when we want to go on
                assert rig_.read(100)
                return b""
            return read_piece(slave)

        monkeypatch.setattr(module, "_read_piece", be_overtaken)
        carried = await rig_.change(drain_timeout)
        assert len(carried) + len(rig_.got) == sent
        assert rig_.got == PATTERN[TERMINAL_READ : TERMINAL_READ + 100]
    assert "has read in the midst of what is carried over" in caplog.text


async def test_who_does_not_is_not_told_of(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig() as rig_:
        rig_.fill()
        assert await rig_.change() == PATTERN[: rig_.sent]
    assert caplog.text == ""


async def test_reads_are_heard_no_more_when_there_is_no_change(autojump_clock: MockClock) -> None:
    """Each would wake the service."""
    async with rig() as rig_:
        rig_.fill(200)

        async def refuse(backend: Controls) -> None:
            if backend.filename != rig_.backend.filename:
                raise ValueError("not that one")

        rig_.detach()
        rig_.registry["x"].attach(be_change=refuse)
        watcher = opens.get_watcher()
        with pytest.raises(ChangeFailedError):
            await rig_.change()
        assert not watcher._reads
        with trio.move_on_after(QUIET / 2) as scope:
            await rig_.change()
        assert scope.cancelled_caught
        assert not watcher._reads
        watcher.catch_up()
        assert rig_.read(100)
        with pytest.raises(BlockingIOError):
            os.read(watcher.inotify.fd, 4096)


async def test_an_overflow_of_the_queue_counts_as_a_read() -> None:
    async with rig() as rig_:
        rig_.fill(100)
        await rig_.backend.leaving.settle(DRAIN_TIMEOUT)
        assert not rig_.backend.leaving.is_taking
        opens.get_watcher()._tell(-1, IN_Q_OVERFLOW)
        assert rig_.backend.leaving.is_taking


# ---------------------------------------------------------------- modes that the user has made


RAW = 0
CBREAK = termios.ISIG  # no lines are put together
COOKED = termios.ICANON | termios.ISIG


@pytest.mark.parametrize("local_modes", [RAW, CBREAK, COOKED], ids=["raw", "cbreak", "cooked"])
@pytest.mark.parametrize("size", [30, READ_SIZE])
async def test_in_all_modes_it_is_taken_back_too_a_line_that_has_no_end_yet(
    local_modes: int, size: int
) -> None:
    """Such as a prompt: a user who has lines put together can't read it yet."""
    text = b"".join(b"line %d\n" % number for number in range(5000))
    async with rig() as rig_:
        modes = termios.tcgetattr(rig_.slave)
        modes[module.IFLAG], modes[module.LFLAG] = termios.ICRNL, local_modes
        termios.tcsetattr(rig_.slave, termios.TCSANOW, modes)
        sent = 0
        while more := rig_.frontend.try_send(text[sent : min(size, sent + 1000)]):
            sent += more
        assert await rig_.change() == text[:sent]
