from __future__ import annotations

import errno
import fcntl
import math
import os
import random
import re
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked
from trio_serial.linux import LinuxSerialStream

from tests.hostile.meter import metering
from tests.peers import need
from tests.users import Seen, join
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.descriptor import TERMINAL_READ, open_fd
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.serial import (
    arrivals as serial_arrivals,
    device as serial_device,
    holders as serial_holders,
    line as serial_line,
    serial as module,
)
from trio_chardev.backends.serial.line import Termios2
from trio_chardev.backends.serial.modem import TIOCCBRK, TIOCSBRK
from trio_chardev.backends.serial.serial import (
    BREAKS_AT_ONCE,
    SerialBackend,
    SerialOptions,
    open_serial,
)
from trio_chardev.core import look_again
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.environment import Files
from trio_chardev.core.handlers import stateless
from trio_chardev.core.inbox import INBOX_CAPACITY
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    NotSupportedError,
    OptionsError,
)
from trio_chardev.events import BackendEvent, Event, LineSettings, ModemLines
from trio_chardev.registry import open_registry
from trio_chardev.testing.pair import receive_some

OPENED, CLOSED, BREAK = Event.OPENED, Event.CLOSED, Event.BREAK
TIOCGEXCL = 0x80045440  # asm-generic/ioctls.h and termbits.h
BOTHER = 0o010000
MOST_CALLS = 60_000  # of functions in a step, see tests/test_hostile.py
CMSPAR = 0o10000000000
BITS = termios.CSIZE | termios.PARENB | termios.PARODD | CMSPAR


@attrs.define
class Tty:
    """A line as we find it, in the form of a PTY: cooked, echoing, 9600 baud."""

    master: int
    slave: int  # kept open, as by a program that looks on
    path: str

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def alter(self, **bits: int) -> None:
        """Do as another program does: ``iflag=~PARMRK`` clears, other values are set."""
        settings = self.settings()
        index = {"iflag": 0, "lflag": 3}
        for name, value in bits.items():
            if name == "vmin":
                settings[6][termios.VMIN] = value
            elif value < 0:
                settings[index[name]] &= value
            else:
                settings[index[name]] |= value
        termios.tcsetattr(self.slave, termios.TCSANOW, settings)

    def write(self, data: bytes) -> None:
        """Be the device at the other end; *data* can be read at once."""
        assert os.write(self.master, data) == len(data)

    def read(self) -> bytes:
        """What has come to the device at the other end."""
        return os.read(self.master, 65536)

    def hang_up(self) -> None:
        os.close(self.master)
        os.close(self.slave)


def make_tty() -> Tty:
    master, slave = os.openpty()
    os.set_blocking(master, False)
    settings = termios.tcgetattr(slave)
    settings[4] = settings[5] = termios.B9600
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    return Tty(master, slave, os.ttyname(slave))


@pytest.fixture
def line() -> Iterator[Tty]:
    made = make_tty()
    yield made
    made.hang_up()


@pytest.fixture
def other() -> Iterator[Tty]:
    made = make_tty()
    yield made
    made.hang_up()


@asynccontextmanager
async def opened(
    device: str | Path,
    seen: Seen | None = None,
    replaces: Backend | None = None,
    active: bool = True,
    **options: Any,
) -> AsyncIterator[SerialBackend]:
    request = OpenRequest(
        id="x", on_event=(seen if seen is not None else []).append, replaces=replaces
    )
    async with open_serial(SerialOptions(path=str(device), **options), request) as backend:
        assert isinstance(backend, SerialBackend)
        if active:
            backend.activate()
        yield backend


@asynccontextmanager
async def reading(
    device: str | Path, reopen_ms: int = 1, **options: Any
) -> AsyncIterator[tuple[SerialBackend, Seen]]:
    """A backend that is read as a chardev does it; the list has events and bytes in order."""
    seen: Seen = []

    async def read(backend: Backend) -> None:
        while True:
            seen.append(await receive_some(backend, 4096))

    async with opened(device, seen, reopen_ms=reopen_ms, **options) as backend:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, backend)
                yield backend, seen
                nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """For what no event tells; a deadline is round the test."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.001)


async def send_for_ever(backend: Backend) -> None:
    while True:
        await backend.send_some(memoryview(bytes(4096)))


async def fill(backend: Backend, data: memoryview) -> int:
    """Send what can be sent with nobody reading; ends with a send that is cancelled."""
    sent = 0
    while True:
        with trio.move_on_after(0.01) as cut:
            sent += await backend.send_some(data[sent:])
        if cut.cancelled_caught and sent:
            return sent


def refuse(error: int) -> OSError:
    return OSError(error, os.strerror(error))


class Uart:
    """Makes a PTY look like a UART: modem lines, break, a queue, and bits of a character."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.modem = ModemLines.DTR | ModemLines.RTS | ModemLines.CTS
        self.unsent = 0
        self.error: OSError | None = None
        """What modem lines and break fail with."""
        self.alter: Callable[[Termios2], Termios2] = lambda settings: settings
        """What the driver makes of the settings it is asked for."""
        self.history: list[str] = []
        self.bits: int | None = None  # what a PTY does not keep
        self._ioctl = fcntl.ioctl
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, fd: int, request: int, arg: Any = 0, *rest: Any) -> Any:
        if request in (termios.TIOCMGET, termios.TIOCMBIS, termios.TIOCMBIC):
            self._fail()
            return self._modem_ioctl(request, arg)
        if request in (TIOCSBRK, TIOCCBRK):
            self._fail()
            self.history.append("break on" if request == TIOCSBRK else "break off")
            return 0
        if request == termios.TIOCOUTQ:
            return struct.pack("i", self.unsent)
        if request == LinuxSerialStream.TCSETS2:
            self.history.append("settings")
            settings = self.alter(Termios2(*Termios2.LAYOUT.unpack(arg)))
            self.bits = settings.cflag & BITS
            arg = Termios2.LAYOUT.pack(*attrs.astuple(settings))
        result = self._ioctl(fd, request, arg, *rest)
        if request == LinuxSerialStream.TCGETS2 and self.bits is not None:
            settings = Termios2(*Termios2.LAYOUT.unpack(result))
            settings = attrs.evolve(settings, cflag=settings.cflag & ~BITS | self.bits)
            result = Termios2.LAYOUT.pack(*attrs.astuple(settings))
        return result

    def _fail(self) -> None:
        if self.error:
            raise self.error

    def _modem_ioctl(self, request: int, arg: bytes) -> bytes:
        if request == termios.TIOCMGET:
            return struct.pack("I", self.modem.value | 0x001)  # and a line that we don't know
        (bits,) = struct.unpack("I", arg)
        self.modem = (
            self.modem | ModemLines(bits)
            if request == termios.TIOCMBIS
            else self.modem & ~ModemLines(bits)
        )
        return arg


@pytest.fixture
def uart(monkeypatch: pytest.MonkeyPatch) -> Uart:
    return Uart(monkeypatch)


# ---------------------------------------------------------------- opening


async def test_opens_at_once_as_qemu_does(line: Tty) -> None:
    """115200 8N1, raw, and OPENED when in place."""
    async with opened(line.path) as backend:
        assert backend.is_open
        assert backend.filename == "serial"
        assert backend.line.settings == LineSettings()
        assert backend.line.is_settable
        _, oflag, cflag, lflag, ispeed, ospeed, cc = line.settings()
        assert ispeed == ospeed == termios.B115200
        assert cflag & (termios.CSIZE | termios.PARENB | termios.CSTOPB) == termios.CS8
        assert not oflag & termios.OPOST
        assert not lflag & (termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        assert cc[termios.VMIN] == 1


async def test_options_set_the_line(line: Tty) -> None:
    async with opened(line.path, speed=9600, stop_bits=2, xonxoff=True, rtscts=True) as backend:
        iflag, _, cflag, _, _, ospeed, _ = line.settings()
        assert ospeed == termios.B9600
        assert cflag & termios.CSTOPB
        assert cflag & termios.CRTSCTS
        assert iflag & termios.IXON
        assert iflag & termios.IXOFF
        assert backend.line.settings == LineSettings(9600, 8, "N", 2, True, True)


async def test_a_missing_device_is_an_error() -> None:
    with pytest.raises(BackendError) as caught:
        async with opened("/dev/ttyNOSUCH"):
            pass
    assert str(caught.value) == "Could not open '/dev/ttyNOSUCH': No such file or directory"


async def test_a_port_without_hardware_is_an_error(line: Tty, uart: Uart) -> None:
    """The kernel opens /dev/ttyS3 where there is none, and says EIO to all else."""

    def fail(fd: int, request: int, arg: Any = 0) -> Any:
        raise refuse(errno.EIO)

    uart._ioctl = fail  # type: ignore[assignment]
    before = os.listdir("/proc/self/fd")
    with pytest.raises(BackendError, match=r"Could not open '.*': Input/output error"):
        async with opened(line.path):
            pass
    assert os.listdir("/proc/self/fd") == before


async def test_an_error_of_trio_serial_is_a_backend_error(
    line: Tty, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise termios.error(errno.EIO, "Input/output error")

    monkeypatch.setattr(termios, "tcsetattr", fail)
    with pytest.raises(BackendError, match=r"Could not set up '.*': Input/output error$"):
        async with opened(line.path):
            pass


async def test_the_null_device_stands_for_a_line() -> None:
    request = OpenRequest(id="x", on_event=lambda event: None)
    async with open_serial(SerialOptions(path="/dev/null"), request) as backend:
        backend.activate()
        assert backend.is_open
        assert backend.filename == "serial"
        assert not backend.line.is_settable
        with pytest.raises(NotSupportedError, match=r"^'serial' has no line settings$"):
            await backend.line.set(LineSettings())
        with pytest.raises(NotSupportedError, match=r"^'serial' has no modem lines$"):
            await backend.line.get_modem()
        with pytest.raises(NotSupportedError, match=r"^'serial' has no break$"):
            await backend.line.send_break(0)
        assert await backend.send_some(memoryview(b"abc")) == 3
        with trio.move_on_after(0):
            await receive_some(backend, 10)


@pytest.mark.parametrize("kind", ["file", "fifo", "device"])
async def test_what_is_no_tty_is_refused_and_left_as_it_was(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    if kind == "file":
        path.write_bytes(b"precious")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(BackendError, match=rf"^Could not open '{path}': it is not a tty$"):
        async with opened(path):
            pass
    assert os.listdir("/proc/self/fd") == before
    if kind == "file":
        assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("commit", [True, False])
async def test_what_was_is_restored_only_without_a_commit(line: Tty, commit: bool) -> None:
    before = line.settings()
    async with opened(line.path, active=commit, speed=57600):
        assert line.settings() != before
    assert (line.settings() == before) is not commit


async def test_a_custom_rate_that_was_is_restored(line: Tty) -> None:
    """termios(3) would lose it."""
    attrs.evolve(
        Termios2.of(line.slave), cflag=termios.CS8 | BOTHER, ispeed=7777, ospeed=7777
    ).apply(line.slave)
    async with opened(line.path, active=False):
        pass
    assert Termios2.of(line.slave).ospeed == 7777


# ---------------------------------------------------------------- bytes


async def test_bytes_go_both_ways(line: Tty) -> None:
    async with reading(line.path) as (backend, seen):
        every_byte = bytes(range(256)) * 3
        assert await backend.send_some(memoryview(every_byte)) == len(every_byte)
        assert line.read() == every_byte
        line.write(every_byte)
        await until(lambda: seen[1:] == [every_byte])
    assert seen[0] is OPENED


async def test_send_counts_exactly_when_the_line_is_full(line: Tty) -> None:
    data = memoryview(random.Random(1).randbytes(1 << 16))
    received = bytearray()

    async def receive() -> None:
        while len(received) < len(data):
            await trio.lowlevel.wait_readable(line.master)
            received.extend(line.read())

    async with opened(line.path) as backend:
        sent = await fill(backend, data)
        assert 0 < sent < len(data)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                while sent < len(data):
                    sent += await backend.send_some(data[sent:])
    assert received == data


async def test_a_cancelled_receive_has_consumed_nothing(line: Tty) -> None:
    async with opened(line.path) as backend:
        line.write(b"abc")
        with trio.CancelScope() as scope:
            scope.cancel()
            await receive_some(backend, 10)
        assert scope.cancelled_caught
        assert backend.receive_nowait(10) == b"abc"


async def test_a_cancelled_send_has_sent_nothing(line: Tty) -> None:
    async with opened(line.path) as backend:
        with trio.CancelScope() as scope:
            scope.cancel()
            await backend.send_some(memoryview(b"abc"))
        assert scope.cancelled_caught
        with pytest.raises(BlockingIOError):
            line.read()


async def test_no_data_is_no_hang_up_whoever_changes_vmin(line: Tty) -> None:
    """With VMIN=0, which trio-serial and pyserial set, read(2) gives nothing for either."""
    async with opened(line.path) as backend:
        line.alter(vmin=0)
        assert backend.receive_nowait(10) == b""
        assert backend.is_open
        line.write(b"a")
        assert backend.receive_nowait(10) == b"a"


# ---------------------------------------------------------------- received breaks


@pytest.fixture
def breakable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PTY counts as a line where breaks can come; what the kernel would give has to be fed in."""
    monkeypatch.setattr(serial_line, "UNIX98_PTY_SLAVES", ())


async def test_a_break_has_its_place_among_the_bytes(
    line: Tty, breakable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Seen = []
    async with opened(line.path, seen) as backend:
        feed = [b"ab\xff\x00\x00c\xff", b"\xff", b"\xff", b"\x00", b"\x00", b"d"]
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", lambda fd, size: feed.pop(0))
            while feed:
                seen.append(backend.receive_nowait(10))
        while data := backend.receive_nowait(10):
            seen.append(data)
    assert join(seen) == [OPENED, b"ab", BREAK, b"c\xff", BREAK, b"d"]


async def test_what_was_decoded_can_be_received_at_once(
    line: Tty, breakable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... though the descriptor is not readable any more."""
    async with opened(line.path) as backend:
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", lambda fd, size: b"a\xff\x00\x00b")
            assert backend.receive_nowait(10) == b"a"
        with trio.fail_after(5):
            await backend.wait_readable()
            assert await receive_some(backend, 10) == b"b"


async def test_a_flood_of_breaks_holds_up_nobody_and_keeps_little(
    line: Tty, breakable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read, or not; the user that does not read loses them, as on a line that is overrun."""
    path = line.path
    async with open_registry() as registry:
        await registry.add("flooded", SerialOptions(path=path))
        breaks: list[BackendEvent] = []
        user = registry["flooded"].attach(on_event=breaks.append)
        with monkeypatch.context() as patch, metering() as meter:
            patch.setattr(os, "read", lambda fd, size: (b"\xff\x00\x00" * TERMINAL_READ)[:size])
            patch.setattr(look_again, "TURN", math.inf)  # turns are not given by the clock
            line.write(b"x")  # there is something to be read, always
            await trio.lowlevel.wait_readable(line.slave)
            with trio.fail_after(5):
                while len(breaks) <= 2 * BREAKS_AT_ONCE:  # noqa: ASYNC110 - it is the turns that count
                    await trio.lowlevel.checkpoint()
            user.pause_input()
            for _ in range(50):
                await trio.lowlevel.checkpoint()
        assert user.statistics().bytes_waiting <= INBOX_CAPACITY
        assert meter.most <= MOST_CALLS, f"{meter.most} calls in a step of {meter.whose}"


async def test_one_byte_at_a_time(line: Tty, breakable: None) -> None:
    async with opened(line.path) as backend:
        line.write(b"\xff\xff\x00")
        assert backend.receive_nowait(0) == b""
        assert [backend.receive_nowait(1) for _ in range(4)] == [b"\xff", b"\xff", b"\x00", b""]


async def test_a_program_that_turns_parmrk_off_does_no_harm(line: Tty, breakable: None) -> None:
    """pyserial does it whenever it opens a line, a flasher's for one."""
    async with opened(line.path) as backend:
        line.alter(iflag=~termios.PARMRK)
        line.write(b"\xff\xff\xff\x00\x00")
        assert backend.receive_nowait(10) == b"\xff\xff\xff\x00\x00"


async def test_a_pty_has_no_breaks_to_be_marked(line: Tty) -> None:
    """With PARMRK the kernel looks at each byte, and gives half as many a second."""
    line.alter(iflag=termios.PARMRK)
    async with opened(line.path) as backend:
        assert not line.settings()[0] & termios.PARMRK
        line.write(b"\xff\xff\x00\x00\xff")
        assert backend.receive_nowait(10) == b"\xff\xff\x00\x00\xff"


# ---------------------------------------------------------------- line settings


async def test_set_line_is_seen_by_all_who_have_it_open(line: Tty) -> None:
    async with opened(line.path) as backend:
        await backend.line.set(LineSettings(19200, 8, "N", 2, rtscts=True))
        _, _, cflag, _, _, ospeed, _ = line.settings()
        assert ospeed == termios.B19200
        assert cflag & termios.CSTOPB
        assert cflag & termios.CRTSCTS
        assert backend.line.settings.speed == 19200
        await backend.line.set(LineSettings())
        assert not line.settings()[2] & (termios.CSTOPB | termios.CRTSCTS)


@pytest.mark.parametrize("speed", [12345, 74880, 5_000_000])
async def test_any_rate(line: Tty, speed: int) -> None:
    async with opened(line.path, speed=speed):
        assert Termios2.of(line.slave).ospeed == speed


@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        (LineSettings(parity="N"), termios.CS8),
        (LineSettings(parity="E"), termios.CS8 | termios.PARENB),
        (LineSettings(data_bits=7, parity="O"), termios.CS7 | termios.PARENB | termios.PARODD),
        (LineSettings(data_bits=6, parity="S"), termios.CS6 | termios.PARENB | CMSPAR),
        (
            LineSettings(data_bits=5, parity="M"),
            termios.CS5 | termios.PARENB | termios.PARODD | CMSPAR,
        ),
    ],
    ids=str,
)
async def test_data_bits_and_parity(
    line: Tty, uart: Uart, settings: LineSettings, bits: int
) -> None:
    async with opened(line.path, speed=300) as backend:
        await backend.line.set(settings)
        assert uart.bits == bits


async def test_a_pty_is_let_off_data_bits_and_parity(line: Tty) -> None:
    """It has none, so that tests of RFC 2217, say, can use one for a line."""
    async with opened(line.path) as backend:
        await backend.line.set(LineSettings(9600, 7, "E"))
        assert backend.line.settings == LineSettings(9600, 7, "E")


async def test_the_same_settings_are_not_set_again(line: Tty, uart: Uart) -> None:
    async with opened(line.path) as backend:
        uart.history.clear()
        await backend.line.set(LineSettings())
        assert uart.history == []


@pytest.mark.parametrize(
    ("settings", "words", "made_of_it"),
    [
        (LineSettings(12345), "12345 baud", {"ospeed": 9600}),
        (LineSettings(data_bits=5), "5 data bits", {"cflag": termios.CS8}),
        (LineSettings(parity="E"), "parity E", {"cflag": termios.CS8}),
        (LineSettings(stop_bits=2), "2 stop bits", {"cflag": termios.CS8}),
        (LineSettings(rtscts=True), "RTS/CTS flow control", {"cflag": termios.CS8}),
    ],
    ids=str,
)
async def test_a_refused_setting_is_named_and_nothing_has_changed(
    line: Tty,
    uart: Uart,
    monkeypatch: pytest.MonkeyPatch,
    settings: LineSettings,
    words: str,
    made_of_it: dict[str, Any],
) -> None:
    """Drivers leave out what they can't do, and report success."""
    monkeypatch.setattr(serial_line, "UNIX98_PTY_SLAVES", ())
    async with opened(line.path) as backend:
        before = Termios2.of(line.slave)

        def leave_out(wanted: Termios2) -> Termios2:
            uart.alter = lambda settings: settings
            rate = wanted.cflag & termios.CBAUD
            return attrs.evolve(
                wanted, **{name: value | rate for name, value in made_of_it.items()}
            )

        uart.alter = leave_out
        with pytest.raises(BackendError) as caught:
            await backend.line.set(settings)
        assert str(caught.value) == (
            f"Could not set '{line.path}' to {settings}: the device does not do {words}"
        )
        assert Termios2.of(line.slave) == before
        assert backend.line.settings == LineSettings()


async def test_a_rate_that_is_nearly_right_is_right(line: Tty, uart: Uart) -> None:
    """Drivers report what their divider makes of it."""
    uart.alter = lambda wanted: attrs.evolve(wanted, cflag=termios.CS8 | BOTHER, ospeed=116500)
    async with opened(line.path):
        assert Termios2.of(line.slave).ospeed == 116500


@pytest.mark.parametrize(
    "settings",
    [
        LineSettings(0),
        LineSettings(-9600),
        LineSettings(1 << 32),
        LineSettings(data_bits=9),  # type: ignore[arg-type]
        LineSettings(parity="X"),  # type: ignore[arg-type]
    ],
    ids=str,
)
async def test_settings_that_do_not_exist(line: Tty, settings: LineSettings) -> None:
    async with opened(line.path) as backend:
        before = line.settings()
        with pytest.raises(BackendError, match=r"no such speed|there is no"):
            await backend.line.set(settings)
        assert line.settings() == before


async def test_a_driver_that_fails_is_a_backend_error(line: Tty, uart: Uart) -> None:
    def fail(wanted: Termios2) -> Termios2:
        raise refuse(errno.EINVAL)

    async with opened(line.path) as backend:
        uart.alter = fail
        with pytest.raises(BackendError) as caught:
            await backend.line.set(LineSettings(9600, parity="E"))
        assert str(caught.value) == f"Could not set '{line.path}' to 9600 8E1: Invalid argument"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"speed": 0}, "speed must be from 1 to 4294967295"),
        ({"speed": 1 << 32}, "speed must be from 1 to 4294967295"),
        ({"reopen_ms": -1}, "reopen-ms must not be negative"),
        ({"reopen_ms": 0, "wait": False}, "wait=off needs a reopen-ms above 0"),
        ({"rs485_delay_before_ms": 1}, "rs485-delay-before-ms needs rs485=on"),
        ({"rs485": True, "rs485_delay_after_ms": -1}, "rs485-delay-after-ms must be from 0 to "),
    ],
    ids=str,
)
async def test_options_that_make_no_sense_are_refused_and_nothing_was_touched(
    line: Tty, options: dict[str, Any], error: str
) -> None:
    before = line.settings()
    with pytest.raises(OptionsError, match=f"^{error}"):
        async with opened(line.path, **options):
            pass
    assert line.settings() == before


async def test_a_cancelled_set_line_has_changed_nothing(line: Tty) -> None:
    async with opened(line.path) as backend:
        before = line.settings()
        with trio.CancelScope() as scope:
            scope.cancel()
            await backend.line.set(LineSettings(9600))
        assert line.settings() == before
        assert backend.line.settings.speed == 115200


# ---------------------------------------------------------------- modem lines and break


async def test_modem_lines(line: Tty, uart: Uart) -> None:
    async with opened(line.path) as backend:
        assert await backend.line.get_modem() == ModemLines.DTR | ModemLines.RTS | ModemLines.CTS
        await backend.line.set_modem(ModemLines.DTR)
        assert uart.modem == ModemLines.DTR | ModemLines.CTS
        await backend.line.set_modem(ModemLines.RTS | ModemLines.RI)
        assert await backend.line.get_modem() == ModemLines.RTS | ModemLines.CTS


async def test_a_pty_has_no_modem_lines(line: Tty) -> None:
    async with opened(line.path) as backend:
        for call in (backend.line.get_modem, partial(backend.line.set_modem, ModemLines.DTR)):
            with pytest.raises(NotSupportedError, match="has no modem lines"):
                await call()


async def test_an_error_of_the_modem_lines_is_a_backend_error(line: Tty, uart: Uart) -> None:
    async with opened(line.path) as backend:
        uart.error = refuse(errno.EIO)
        with pytest.raises(BackendError, match="Could not use the modem lines of"):
            await backend.line.get_modem()


async def test_modem_lines_are_restored_without_a_commit(line: Tty, uart: Uart) -> None:
    async with opened(line.path, active=False) as backend:
        await backend.line.set_modem(ModemLines(0))
        assert uart.modem == ModemLines.CTS
    assert uart.modem == ModemLines.DTR | ModemLines.RTS | ModemLines.CTS


async def test_a_break_lasts_as_long_as_asked(
    line: Tty, uart: Uart, mock_clock: trio.testing.MockClock
) -> None:
    async with opened(line.path) as backend:
        uart.history.clear()
        mock_clock.rate = 1000  # only now: opening and closing have deadlines
        start = trio.current_time()
        await backend.line.send_break(2.5)
        assert trio.current_time() - start >= 2.5
        mock_clock.rate = 0
        assert uart.history == ["break on", "break off"]


async def test_a_cancelled_break_is_over(line: Tty, uart: Uart) -> None:
    async with opened(line.path) as backend:
        uart.history.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.line.send_break, 60)
            await wait_all_tasks_blocked()
            assert uart.history == ["break on"]
            nursery.cancel_scope.cancel()
        assert uart.history == ["break on", "break off"]


async def test_a_break_waits_for_what_was_written_before(line: Tty, uart: Uart) -> None:
    """Here, because the kernel would wait in the ioctl."""
    async with opened(line.path) as backend:
        uart.history.clear()
        uart.unsent = 3
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.line.send_break, 0)
                await wait_all_tasks_blocked()
                assert uart.history == []
                uart.unsent = 0
        assert uart.history == ["break on", "break off"]


async def test_a_line_without_break(line: Tty, uart: Uart) -> None:
    async with opened(line.path) as backend:
        uart.error = refuse(errno.ENOTTY)
        with pytest.raises(NotSupportedError, match="has no break"):
            await backend.line.send_break(0)


async def test_a_real_pty_takes_a_break_in_silence(line: Tty) -> None:
    async with opened(line.path) as backend:
        await backend.line.send_break(0)


# ---------------------------------------------------------------- closing


async def test_closing_waits_until_all_is_sent(line: Tty, uart: Uart) -> None:
    """... even when cancelled."""
    closed = False

    async def use(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        nonlocal closed
        async with opened(line.path):
            task_status.started()
            await trio.sleep_forever()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(use)
            uart.unsent = 7
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
                assert nursery.child_tasks
                uart.unsent = 0


async def test_closing_gives_up_a_line_that_is_stuck(
    line: Tty, uart: Uart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing would block the whole program for up to 30 s otherwise (closing_wait)."""
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.02)
    flushed: list[int] = []
    monkeypatch.setattr(termios, "tcflush", lambda fd, queue: flushed.append(queue))
    with trio.fail_after(5):
        async with opened(line.path):
            uart.unsent = 7
    assert flushed == [termios.TCOFLUSH]


# ---------------------------------------------------------------- exclusive


def is_exclusive(line: Tty) -> bool:
    (flag,) = struct.unpack("i", fcntl.ioctl(line.slave, TIOCGEXCL, bytes(4)))
    return bool(flag)


def is_flocked(line: Tty) -> bool:
    try:
        fcntl.flock(line.slave, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(line.slave, fcntl.LOCK_UN)
    return False


async def test_a_pty_is_not_locked_by_default(line: Tty) -> None:
    async with opened(line.path):
        assert not is_exclusive(line)
        assert not is_flocked(line)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slaves of PTYs count as real lines."""
    monkeypatch.setattr(serial_line, "UNIX98_PTY_SLAVES", ())


@pytest.mark.usefixtures("real")
async def test_any_other_line_is_locked_unless_told_otherwise(line: Tty) -> None:
    async with opened(line.path):
        assert is_exclusive(line)
        assert is_flocked(line)
    assert not is_exclusive(line)
    assert not is_flocked(line)
    async with opened(line.path, exclusive=False):
        assert not is_exclusive(line)
        assert not is_flocked(line)


def test_the_controlling_terminal_may_be_a_pty() -> None:
    assert not serial_line.is_locked_unless_told(os.stat("/dev/tty"))


HOLD = """
import fcntl, os, sys, termios
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_by_another(path: str) -> Iterator[int]:
    """The line is locked by the process with that id."""
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        try:
            yield other.pid
        finally:
            other.kill()


async def test_a_line_that_another_process_holds_is_an_error_that_names_it(
    line: Tty, tmp_path: Path
) -> None:
    (tmp_path / "by-id").symlink_to(line.path)
    with held_by_another(line.path) as pid:
        for path in (line.path, str(tmp_path / "by-id")):
            with pytest.raises(BackendError) as caught:
                async with opened(path, exclusive=True):
                    pass
            pattern = rf"Could not lock '{path}': .+ \(pid {pid}\) has it"
            assert re.fullmatch(pattern, str(caught.value))
    async with opened(line.path, exclusive=True):
        pass


async def test_a_line_that_others_may_not_open_is_an_error_that_names_the_holder(
    line: Tty,
) -> None:
    """TIOCEXCL, for all but root."""

    def busy(path: str, flags: int, sandbox: Sandbox = EVERYWHERE, *, mode: int = 0) -> int:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    request = OpenRequest(id="x", on_event=lambda event: None, files=Files(open_path=busy))
    with held_by_another(line.path) as pid, pytest.raises(BackendError) as caught:
        async with open_serial(SerialOptions(path=line.path), request):
            pass
    failed = f"Could not open '{line.path}': Device or resource busy: "
    assert re.fullmatch(rf"{failed}.+ \(pid {pid}\) has it", str(caught.value))


async def test_a_search_for_holders_that_takes_long_is_given_up(
    line: Tty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_holders, "SEARCH_TIME", 0.01)

    def look(pid: str, path: str) -> bool:
        time.sleep(0.1)
        return False

    monkeypatch.setattr(serial_holders, "_has_open", look)
    fcntl.flock(line.slave, fcntl.LOCK_EX)
    with pytest.raises(BackendError, match="another program has it$"):
        async with opened(line.path, exclusive=True):
            pass


# ---------------------------------------------------------------- two chardevs on a line


@pytest.mark.usefixtures("real")
async def test_two_chardevs_on_one_line_are_an_error_that_names_the_other(
    line: Tty, tmp_path: Path
) -> None:
    (tmp_path / "by-id").symlink_to(line.path)
    by_id = SerialOptions(path=str(tmp_path / "by-id"))
    async with open_registry() as registry:
        await registry.add("board", SerialOptions(path=line.path))
        await registry.add("other", NullOptions())
        failed = f"'{by_id.path}' is in use by chardev 'board'"
        for options in (by_id, attrs.evolve(by_id, exclusive=False)):
            with pytest.raises(BackendError, match=failed):
                await registry.add("second", options)
            with pytest.raises(BackendError, match=failed):
                await registry.change("other", options)
        assert is_exclusive(line)
        assert registry["other"].info.filename == "null"


@pytest.mark.usefixtures("real")
async def test_a_change_to_the_own_line_keeps_it_locked_and_the_end_undoes_that(
    line: Tty,
) -> None:
    async with open_registry() as registry:
        await registry.add("board", SerialOptions(path=line.path))
        for speed in (9600, 19200):
            await registry.change("board", SerialOptions(path=line.path, speed=speed))
            assert is_exclusive(line)
            assert is_flocked(line)
            line.write(b"still read")
            async with registry["board"].attach(be_change=stateless) as user:
                assert await user.receive_some() == b"still read"
        await registry.change("board", NullOptions())
        assert not is_exclusive(line)
        assert not is_flocked(line)
        await registry.add("second", SerialOptions(path=line.path))


async def test_two_chardevs_may_share_a_line_that_neither_locks(line: Tty) -> None:
    options = SerialOptions(path=line.path)
    async with open_registry() as registry:
        await registry.add("one", options)
        await registry.add("two", options)
        with pytest.raises(BackendError, match="is in use by chardev"):
            await registry.add("three", attrs.evolve(options, exclusive=True))


# ---------------------------------------------------------------- exclusive, asked for


async def test_exclusive_takes_both_locks_and_gives_them_back(line: Tty) -> None:
    async with opened(line.path, exclusive=True):
        assert is_exclusive(line)
        assert is_flocked(line)
    assert not is_exclusive(line)
    assert not is_flocked(line)


async def test_a_locked_line_is_refused_and_left_alone(line: Tty) -> None:
    fcntl.flock(line.slave, fcntl.LOCK_EX)
    fcntl.ioctl(line.slave, termios.TIOCEXCL)
    before = line.settings()
    with pytest.raises(BackendError) as caught:
        async with opened(line.path, exclusive=True):
            pass
    assert str(caught.value) == f"Could not lock '{line.path}': another program has it"
    assert line.settings() == before
    assert is_exclusive(line)
    async with opened(line.path) as backend:  # as QEMU does
        assert backend.is_open


@pytest.mark.parametrize("was", [True, False])
@pytest.mark.parametrize("becomes", [True, False])
async def test_the_commit_hands_the_locks_over(line: Tty, was: bool, becomes: bool) -> None:
    async with opened(line.path, exclusive=was) as old:
        async with opened(line.path, replaces=old, active=False, exclusive=becomes) as new:
            assert is_exclusive(line) is is_flocked(line) is was
            new.activate()
            await old.aclose()
            assert is_exclusive(line) is is_flocked(line) is becomes
        assert not is_exclusive(line)


# ---------------------------------------------------------------- the same line again


async def test_nothing_changes_on_a_shared_line_before_the_commit(line: Tty, uart: Uart) -> None:
    async with opened(line.path, speed=9600) as old:
        before, lines = line.settings(), uart.modem
        uart.history.clear()
        async with opened(line.path, replaces=old, active=False, speed=57600) as new:
            await new.line.set(LineSettings(38400, stop_bits=2))
            await new.line.set_modem(ModemLines(0))
            assert new.is_open
            assert uart.history == []
            assert (line.settings(), uart.modem) == (before, lines)
        assert (line.settings(), uart.modem) == (before, lines)
        assert old.send_nowait(memoryview(b"old")) == 3
        assert line.read() == b"old"


async def test_the_commit_sets_a_shared_line(line: Tty, uart: Uart) -> None:
    async with opened(line.path) as old, opened(line.path, replaces=old, active=False) as new:
        await new.line.set(LineSettings(38400, stop_bits=2))
        await new.line.set_modem(ModemLines.RTS)
        new.activate()
        await old.aclose()
        assert line.settings()[5] == termios.B38400
        assert line.settings()[2] & termios.CSTOPB
        assert uart.modem == ModemLines.RTS | ModemLines.CTS
        line.write(b"to the new one")
        assert new.receive_nowait(100) == b"to the new one"
        await new.line.set(LineSettings(300))
        assert line.settings()[5] == termios.B300


@pytest.mark.parametrize("fails", ["settings", "modem", "lock"])
async def test_a_failed_commit_leaves_a_shared_line_as_it_was(
    line: Tty, uart: Uart, fails: str
) -> None:
    async with opened(line.path, speed=9600) as old:
        before, lines = line.settings(), uart.modem
        async with opened(line.path, replaces=old, active=False, exclusive=fails == "lock") as new:
            await new.line.set_modem(ModemLines(0))
            if fails == "settings":
                await new.line.set(LineSettings(0))
            elif fails == "modem":
                uart.error = refuse(errno.EIO)
            else:
                fcntl.flock(line.slave, fcntl.LOCK_EX)
            with pytest.raises(BackendError):
                new.activate()
            uart.error = None
            assert (line.settings(), uart.modem) == (before, lines)
        await old.line.set(LineSettings(300))
        assert line.settings()[5] == termios.B300
        if fails != "lock":
            assert not is_flocked(line)


async def test_a_shared_line_is_known_by_its_device_not_its_path(
    line: Tty, tmp_path: Path, uart: Uart
) -> None:
    link = tmp_path / "by-id"
    link.symlink_to(line.path)
    async with opened(line.path) as old:
        uart.history.clear()
        async with opened(link, replaces=old, active=False, speed=9600):
            assert uart.history == []


async def test_the_old_one_reads_nothing_after_the_commit(line: Tty) -> None:
    """A read of it that is under way must not take what is for the new one."""
    async with opened(line.path) as old, opened(line.path, replaces=old, active=False) as new:
        assert old.receive_nowait(10) == b""
        line.write(b"abc")
        assert new.receive_nowait(10) == b""
        new.activate()
        assert old.receive_nowait(10) == b""
        assert new.receive_nowait(10) == b"abc"


async def test_half_a_mark_goes_over_with_the_line(
    line: Tty, breakable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(line.path) as old, opened(line.path, replaces=old, active=False) as new:
        line.write(b"\xff")  # reads as ff ff
        with monkeypatch.context() as patch:
            read = os.read
            feed = [1, 0]
            patch.setattr(os, "read", lambda fd, n: read(fd, k) if (k := feed.pop(0)) else b"")
            assert old.receive_nowait(10) == b""
        new.activate()
        assert new.receive_nowait(10) == b"\xff"


@pytest.mark.parametrize("device", ["/dev/ttyNOSUCH", "/dev/tty\0"])
async def test_a_change_to_a_missing_device_fails(line: Tty, device: str) -> None:
    async with opened(line.path) as old:
        with pytest.raises(BackendError, match="Could not open"):
            async with opened(device, replaces=old):
                pass
        assert old.is_open


async def test_another_line_is_not_shared(line: Tty, other: Tty) -> None:
    """It is set up at once, and what the frontend asks of it is done at once."""
    async with opened(line.path) as old:
        before = line.settings()
        async with opened(other.path, replaces=old, active=False) as new:
            await new.line.set(LineSettings(38400))
            assert other.settings()[5] == termios.B38400
            assert line.settings() == before


async def test_a_stream_of_bytes_survives_changes_to_the_same_line(line: Tty) -> None:
    """All the way through a chardev, with other settings each time."""
    data = random.Random(2).randbytes(60_000)
    received, sent = bytearray(), bytearray()
    chardev = Chardev("x")

    async def write_and_read_the_device() -> None:
        left = memoryview(data)
        while left or len(sent) < len(data):
            if left:
                with suppress(BlockingIOError):
                    left = left[os.write(line.master, left[:700]) :]
            with suppress(BlockingIOError):
                sent.extend(line.read())
            await trio.lowlevel.checkpoint()

    async def receive() -> None:
        while len(received) < len(data):
            received.extend(await frontend.receive_some())

    def opener(speed: int) -> Any:
        return partial(open_serial, SerialOptions(path=line.path, speed=speed))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(chardev.run)
            await chardev.open(opener(9600))
            frontend = chardev.attach(be_change=stateless)
            async with trio.open_nursery() as users:
                users.start_soon(write_and_read_the_device)
                users.start_soon(receive)
                users.start_soon(frontend.send_all, data)
                for n in range(20):
                    await chardev.change(opener(9600 + n % 2))
            await chardev.aclose()
    assert received == data
    assert sent == data


# ---------------------------------------------------------------- the line goes and comes back


@attrs.define
class Plug:
    """A device that is pulled and put back, under a name that stays."""

    name: Path
    tty: Tty | None = None

    def put_in(self) -> Tty:
        self.tty = make_tty()
        self.name.symlink_to(self.tty.path)
        return self.tty

    def pull(self) -> None:
        assert self.tty is not None
        self.name.unlink()
        self.tty.hang_up()
        self.tty = None


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Plug]:
    plug = Plug(tmp_path / "by-id")
    yield plug
    if plug.tty is not None:
        plug.pull()


async def test_a_hang_up_while_reading_and_the_return(plug: Plug) -> None:
    plug.put_in()
    async with reading(plug.name) as (backend, seen):
        await wait_all_tasks_blocked()
        for _ in range(2):
            plug.pull()
            await until(lambda: not backend.is_open)
            line = plug.put_in()
            await until(lambda: backend.is_open)
            line.write(b"back")
            await until(lambda: seen[-1] == b"back")
            assert await backend.send_some(memoryview(b"hello")) == 5
            assert line.read() == b"hello"
    assert seen == [OPENED, CLOSED, OPENED, b"back", CLOSED, OPENED, b"back"]


async def test_the_line_comes_back_as_it_was_set(plug: Plug, uart: Uart) -> None:
    plug.put_in()
    async with reading(plug.name, exclusive=True) as (backend, _):
        await backend.line.set(LineSettings(19200, stop_bits=2))
        await backend.line.set_modem(ModemLines.RTS)
        plug.pull()
        await until(lambda: not backend.is_open)
        uart.modem = ModemLines.DTR | ModemLines.RTS  # what opening does
        line = plug.put_in()
        await until(lambda: backend.is_open)
        assert line.settings()[5] == termios.B19200
        assert not line.settings()[3] & termios.ECHO
        assert uart.modem == ModemLines.RTS
        assert is_exclusive(line)


async def test_what_is_set_while_it_is_away_is_set_when_it_is_back(plug: Plug, uart: Uart) -> None:
    plug.put_in()
    async with reading(plug.name) as (backend, _):
        plug.pull()
        await until(lambda: not backend.is_open)
        await backend.line.set(LineSettings(300))
        await backend.line.set_modem(ModemLines(0))
        with pytest.raises(BackendDisconnectedError, match="went away"):
            await backend.line.get_modem()
        with pytest.raises(BackendDisconnectedError, match="went away"):
            await backend.line.send_break(1)
        assert backend.line.settings == LineSettings(300)
        line = plug.put_in()
        await until(lambda: backend.is_open)
        assert line.settings()[5] == termios.B300
        assert not uart.modem & ModemLines.DTR


async def test_another_adaptor_without_modem_lines_is_taken(plug: Plug, uart: Uart) -> None:
    plug.put_in()
    async with reading(plug.name) as (backend, _):
        await backend.line.set_modem(ModemLines.RTS)
        plug.pull()
        await until(lambda: not backend.is_open)
        uart.error = refuse(errno.ENOTTY)
        plug.put_in()
        await until(lambda: backend.is_open)


async def test_a_line_that_can_not_be_set_up_is_tried_again(plug: Plug, uart: Uart) -> None:
    plug.put_in()
    async with reading(plug.name) as (backend, _):
        plug.pull()
        await until(lambda: not backend.is_open)
        tries = 0

        def refuse_thrice(wanted: Termios2) -> Termios2:
            nonlocal tries
            tries += 1
            return attrs.evolve(wanted, ospeed=300, cflag=BOTHER) if tries < 4 else wanted

        uart.alter = refuse_thrice
        plug.put_in()
        await until(lambda: backend.is_open)
        assert tries >= 4


@pytest.mark.parametrize("read_first", [False, True])
async def test_a_writer_that_waits_is_told_of_the_hang_up(plug: Plug, read_first: bool) -> None:
    """By the kernel, or by the reader, which closes the descriptor that it waits for."""
    plug.put_in()
    seen: Seen = []
    async with opened(plug.name, seen) as backend:

        async def write() -> None:
            with pytest.raises(BackendDisconnectedError):
                await send_for_ever(backend)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                await wait_all_tasks_blocked(0.01)
                plug.pull()
                if read_first:
                    assert backend.receive_nowait(10) == b""
    assert seen == [OPENED, CLOSED] if read_first else [OPENED]


async def test_sending_after_a_hang_up_is_an_error_until_it_is_back(plug: Plug) -> None:
    plug.put_in()
    async with opened(plug.name) as backend:
        plug.pull()
        for _ in range(2):
            with pytest.raises(BackendDisconnectedError, match="Could not write to"):
                backend.send_nowait(memoryview(b"x"))
        assert backend.receive_nowait(10) == b""
        assert not backend.is_open
        with pytest.raises(BackendDisconnectedError, match="went away"):
            backend.send_nowait(memoryview(b"x"))


async def test_settings_between_a_hang_up_and_its_discovery_are_remembered(plug: Plug) -> None:
    plug.put_in()
    async with opened(plug.name) as backend:
        plug.pull()
        await backend.line.set(LineSettings(300))
        assert backend.line.settings.speed == 300


async def test_what_was_decoded_comes_before_closed(
    plug: Plug, breakable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug.put_in()
    seen: Seen = []
    async with opened(plug.name, seen) as backend:
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", lambda fd, size: b"a\xff\xffb")
            seen.append(backend.receive_nowait(1))
        plug.pull()
        while data := backend.receive_nowait(10):
            seen.append(data)
    assert join(seen) == [OPENED, b"a\xffb", CLOSED]


async def test_a_hang_up_just_after_the_last_bytes(
    plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug.put_in()
    async with opened(plug.name) as backend:
        plug.pull()
        with monkeypatch.context() as patch:
            patch.setattr(os, "read", lambda fd, size: b"a\xff\xff")
            assert backend.receive_nowait(10) == b"a\xff"


class NoInotify:
    """In place of a run's watcher."""

    def get(self, default: None) -> None:
        raise refuse(errno.EMFILE)


@pytest.mark.parametrize(
    ("has_inotify", "expected"),
    [
        (True, [0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5, 123.5]),
        (False, [0.5, 1.5, 3.5, 7.5, *(12.5 + 5 * n for n in range(24))]),
    ],
)
async def test_waiting_for_the_line_is_no_busy_loop(
    plug: Plug,
    mock_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    has_inotify: bool,
    expected: list[float],
) -> None:
    plug.put_in()
    looks: list[float] = []

    async with opened(plug.name, reopen_ms=500) as backend:
        plug.pull()

        def look(path: str, flags: int, *_: Any) -> Any:
            looks.append(trio.current_time())
            return open_fd(path, flags)

        async def at_once(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
            return function(*arguments)  # this clock does not wait for threads

        monkeypatch.setattr(serial_device, "open_fd", look)
        monkeypatch.setattr(serial_device, "work_on_files", at_once)
        monkeypatch.setattr(serial_arrivals, "work_on_files", at_once)
        if not has_inotify:
            monkeypatch.setattr(serial_arrivals, "_watcher_of_run", NoInotify())
        mock_clock.autojump_threshold = 0.001
        with trio.move_on_after(130):
            await receive_some(backend, 10)
    assert looks == pytest.approx(expected)


@pytest.mark.parametrize("has_link", [False, True], ids=["number", "link"])
async def test_a_pty_that_is_gone_is_not_looked_for_by_its_number(
    has_link: bool, tmp_path: Path
) -> None:
    """Which is given to the next who makes one: its bytes are not ours."""
    master, slave = os.openpty()
    number = os.ttyname(slave)
    link = tmp_path / "link"
    link.symlink_to(number)
    async with reading(link if has_link else number) as (backend, _):
        os.close(slave)
        os.close(master)
        await until(lambda: not backend.is_open)
        others: list[int] = []
        while len(others) < 50:
            master, slave = os.openpty()
            others.append(master)
            last = os.ttyname(slave)
            os.close(slave)
            if last == number:
                break
        for _ in range(50):
            await trio.sleep(0.001)
            assert not backend.is_open
        if has_link:  # then it leads there again, for somebody means it
            link.unlink()
            link.symlink_to(last)
            await until(lambda: backend.is_open)
    for master in others:
        os.close(master)


async def test_without_reopening_the_backend_ends(plug: Plug) -> None:
    plug.put_in()
    async with opened(plug.name, reopen_ms=0) as backend:
        plug.pull()
        with trio.fail_after(5):
            with pytest.raises(BackendError, match="went away"):
                await receive_some(backend, 10)


async def test_a_line_that_is_gone_is_not_shared(plug: Plug) -> None:
    """... but opened anew: it may be back already under the same number."""
    plug.put_in()
    async with opened(plug.name) as old:
        plug.pull()
        line = plug.put_in()
        async with opened(plug.name, replaces=old) as new:
            line.write(b"abc")
            assert new.receive_nowait(10) == b"abc"


async def test_a_shared_line_that_goes_before_the_commit_fails_the_change(plug: Plug) -> None:
    plug.put_in()
    async with opened(plug.name) as old, opened(plug.name, replaces=old, active=False) as new:
        plug.pull()
        with pytest.raises(BackendError, match="Could not take over"):
            new.activate()


# ---------------------------------------------------------------- a real peer


async def test_socat_is_pulled_and_put_back(tmp_path: Path) -> None:
    """socat as the adaptor; what it does not do any more when killed is remove its link."""
    program = need("socat")
    link, plug = tmp_path / "ttyUSB0", tmp_path / "device"
    listener = socket.socket(socket.AF_UNIX)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([program, f"PTY,link={link},raw,echo=0", f"UNIX:{plug}"])

    with listener:
        listener.bind(str(plug))
        listener.listen()
        process = start()
        device, _ = listener.accept()
        with trio.fail_after(5):
            await until(link.exists)
        try:
            async with reading(link) as (backend, seen):
                device.send(b"one")
                await until(lambda: b"one" in seen)
                process.terminate()
                await until(lambda: not backend.is_open)
                process.wait()
                device.close()
                process = start()
                device, _ = listener.accept()
                await until(lambda: backend.is_open)
                device.send(b"two")
                await until(lambda: b"two" in seen)
                await backend.send_some(memoryview(b"three"))
                assert device.recv(100) == b"three"
        finally:
            process.terminate()
            process.wait()
            device.close()


# ---------------------------------------------------------------- looks at the inputs


async def test_changed_inputs_are_reported_at_the_next_look(line: Tty, uart: Uart) -> None:
    """Not what is on at the first, for most adaptors have no wires there; nor our outputs."""
    seen: Seen = []
    async with open_serial(
        SerialOptions(path=line.path), OpenRequest(id="x", on_event=seen.append)
    ) as backend:
        assert isinstance(backend, SerialBackend)
        seen.clear()
        backend.line.look()
        uart.modem = ModemLines.DTR | ModemLines.CTS
        backend.line.look()
        assert seen == []
        uart.modem = ModemLines.DTR | ModemLines.DSR | ModemLines.CAR
        backend.line.look()
        backend.line.look()
        uart.modem = ModemLines.RTS
        backend.line.look()
        assert seen == [ModemLines.DSR | ModemLines.CAR, ModemLines(0)]
        backend.line.look(anew=True)
        assert seen.pop() == ModemLines(0)
        uart.error = refuse(errno.ENOTTY)
        backend.line.look()
        assert len(seen) == 2
