"""What a serial line's driver can do beside bytes, and what it may refuse."""

from __future__ import annotations

import errno
import logging
import os
import struct
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import pytest
import trio

from tests.backends.serial.kernel import Kernel
from trio_chardev.backends.serial import line as serial_line
from trio_chardev.backends.serial.driver import ASYNC_LOW_LATENCY
from trio_chardev.backends.serial.line import Termios2
from trio_chardev.backends.serial.options import SerialOptions
from trio_chardev.backends.serial.serial import SerialBackend, open_serial
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.controls import Controls
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import BackendError, ChangeFailedError, NotSupportedError
from trio_chardev.events import LineSettings, ModemLines
from trio_chardev.registry import open_registry

DTR, RTS, CTS = ModemLines.DTR, ModemLines.RTS, ModemLines.CTS
ALL: dict[str, Any] = {
    "dtr": "on",
    "rts": "off",
    "rs485": True,
    "low_latency": True,
    "exclusive": True,
}
"""Options with which every ioctl is used at open."""


@attrs.define
class Pair:
    """A PTY; its slave is kept open, as by a program that looks on."""

    master: int
    slave: int
    path: str

    @property
    def cflag(self) -> int:
        return Termios2.of(self.slave).cflag

    def hang_up(self) -> None:
        for fd in (self.master, self.slave):
            if fd != -1:
                os.close(fd)
        self.master = self.slave = -1


@pytest.fixture
def line() -> Iterator[Pair]:
    pair = Pair(*(fds := os.openpty()), os.ttyname(fds[1]))
    yield pair
    pair.hang_up()


@pytest.fixture
def kernel(line: Pair, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch, line.path)


@asynccontextmanager
async def opened(
    line: Pair, replaces: Backend | None = None, active: bool = True, **options: Any
) -> AsyncIterator[SerialBackend]:
    request = OpenRequest(id="x", on_event=lambda event: None, replaces=replaces)
    async with open_serial(SerialOptions(path=line.path, **options), request) as backend:
        assert isinstance(backend, SerialBackend)
        if active:
            backend.activate()
        yield backend


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("was", [True, False])
@pytest.mark.parametrize("hupcl", [True, False])
async def test_hupcl_is_as_the_option_says_while_it_is_open_and_after(
    line: Pair, kernel: Kernel, was: bool, hupcl: bool
) -> None:
    settings = Termios2.of(line.slave)
    cflag = settings.cflag & ~termios.HUPCL | termios.HUPCL * was
    attrs.evolve(settings, cflag=cflag).apply(line.slave)
    async with opened(line, hupcl=hupcl) as backend:
        assert bool(line.cflag & termios.HUPCL) is hupcl
        await backend.line.set(LineSettings(9600))
        assert bool(line.cflag & termios.HUPCL) is hupcl
    assert bool(line.cflag & termios.HUPCL) is hupcl
    async with opened(line, hupcl=not hupcl, active=False):
        assert bool(line.cflag & termios.HUPCL) is not hupcl
    assert bool(line.cflag & termios.HUPCL) is hupcl, "without a commit it is restored"


@pytest.mark.parametrize("dtr", ["on", "off", "keep"])
@pytest.mark.parametrize("rts", ["on", "off", "keep"])
@pytest.mark.parametrize("found", [ModemLines(0), DTR, RTS, DTR | RTS], ids=str)
async def test_dtr_and_rts_are_as_the_options_say_and_what_is_so_is_not_written(
    line: Pair, kernel: Kernel, dtr: str, rts: str, found: ModemLines
) -> None:
    kernel.modem = found | CTS
    chosen = {DTR: dtr, RTS: rts}
    on = {
        output: state == "on" if state != "keep" else output in found
        for output, state in chosen.items()
    }
    async with opened(line, dtr=dtr, rts=rts):
        assert {output: output in kernel.modem for output in on} == on
        assert CTS in kernel.modem
        differing = {state for output, state in on.items() if (output in found) != state}
        assert len(kernel.edges) == len(differing)
    async with opened(line, dtr="on", active=False):
        pass
    assert {output: output in kernel.modem for output in on} == on


async def test_rs485_is_set_with_its_delays_and_the_rest_is_left(
    line: Pair, kernel: Kernel
) -> None:
    kernel.structs["RS485"] = struct.pack("=3I20x", 4 | 16, 7, 8)  # after sending; receives then
    before = dict(kernel.structs)
    async with opened(line, rs485=True, rs485_delay_before_ms=1, rs485_delay_after_ms=2) as backend:
        assert struct.unpack_from("=3I", kernel.structs["RS485"]) == (1 | 2 | 16, 1, 2)
        kernel.calls.clear()
        same: dict[str, Any] = {
            "rs485": True,
            "rs485_delay_before_ms": 1,
            "rs485_delay_after_ms": 2,
        }
        async with opened(line, replaces=backend, **same):
            assert "TIOCGRS485" in kernel.calls
            assert "TIOCSRS485" not in kernel.calls, "it is so already"
    kernel.structs.update(before)
    async with opened(line, rs485=True, active=False):
        assert kernel.structs != before
    assert kernel.structs == before
    async with opened(line, rs485=False):
        assert kernel.structs == before


@pytest.mark.parametrize("is_on", [True, False])
async def test_low_latency_is_set_and_the_rest_is_left(
    line: Pair, kernel: Kernel, is_on: bool
) -> None:
    raw = bytearray(range(128))
    struct.pack_into("i", raw, 16, 0x10 | ASYNC_LOW_LATENCY * (not is_on))
    kernel.structs["SERIAL"] = bytes(raw)
    async with opened(line, low_latency=is_on):
        (flags,) = struct.unpack_from("i", kernel.structs["SERIAL"], 16)
        assert flags == 0x10 | ASYNC_LOW_LATENCY * is_on
        assert kernel.structs["SERIAL"][20:] == bytes(raw[20:])


async def test_by_default_neither_is_looked_at(line: Pair, kernel: Kernel) -> None:
    async with opened(line):
        assert not {"TIOCGRS485", "TIOCGSERIAL"} & set(kernel.calls)


# ---------------------------------------------------------------- what a driver refuses

REFUSALS = [
    ("TIOCMGET", "modem", "modem lines"),
    ("TIOCMBIS", "modem", "modem lines"),
    ("TIOCMBIC", "modem", "modem lines"),
    ("TIOCCBRK", "break", "break"),
    ("TIOCGRS485", "rs485", "rs485"),
    ("TIOCSRS485", "rs485", "rs485"),
    ("TIOCGSERIAL", "low-latency", "low-latency"),
    ("TIOCSSERIAL", "low-latency", "low-latency"),
    ("TIOCEXCL", "exclusive", "exclusive"),
]


@pytest.mark.parametrize("error", [errno.ENOTTY, errno.EINVAL, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize(("ioctl", "name", "words"), REFUSALS)
async def test_a_driver_that_refuses_an_ioctl_is_told_of_and_opens(
    line: Pair,
    kernel: Kernel,
    caplog: pytest.LogCaptureFixture,
    ioctl: str,
    name: str,
    words: str,
    error: int,
) -> None:
    kernel.modem = RTS
    kernel.errors[ioctl] = error
    async with opened(line, **ALL) as backend:
        assert backend.is_open
        assert backend.line.missing == {name}
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == [f"chardev 'x': '{line.path}' does without {words}"]


def test_these_are_all_ioctls_that_opening_may_do_without() -> None:
    """The others are those of termios(3), and whatever refuses them is not a tty."""
    assert {ioctl for ioctl, *_ in REFUSALS} == {
        *("TIOCMGET", "TIOCMBIS", "TIOCMBIC", "TIOCCBRK", "TIOCEXCL"),
        *("TIOCGRS485", "TIOCSRS485", "TIOCGSERIAL", "TIOCSSERIAL"),
    }


async def test_nothing_is_missing_and_nothing_told_of_a_driver_that_has_all(
    line: Pair, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(line, **ALL) as backend:
        assert backend.line.missing == set()
        at_open = set(kernel.calls) - {"TCGETS2", "TCSETS2"}
    assert at_open == {ioctl for ioctl, *_ in REFUSALS} - {"TIOCMBIS"}, "DTR was on"
    assert not caplog.records


class OneRate:
    """A driver that does one rate, and leaves out or refuses the others."""

    def __init__(self, kernel: Kernel, speed: int, error: int = 0) -> None:
        self.speed, self.error = speed, error
        self._ioctl = kernel._ioctl
        kernel._ioctl = self.ioctl  # type: ignore[assignment]

    def ioctl(self, fd: int, request: int, arg: Any = 0, *rest: Any) -> Any:
        if isinstance(arg, bytes) and request == 0x402C542B:  # TCSETS2
            wanted = Termios2.unpack(arg)
            if self.error and wanted.ospeed != self.speed:
                raise OSError(self.error, os.strerror(self.error))
            cflag = wanted.cflag & ~(termios.CBAUD | termios.CIBAUD) | 0o010000
            made = attrs.evolve(wanted, cflag=cflag, ispeed=self.speed, ospeed=self.speed)
            arg = Termios2.LAYOUT.pack(*attrs.astuple(made))
        return self._ioctl(fd, request, arg, *rest)


@pytest.mark.parametrize("error", [0, errno.EINVAL, errno.EIO, errno.ENOTTY])
async def test_a_rate_that_the_device_has_not_is_told_of_and_it_opens_with_its_own(
    line: Pair, kernel: Kernel, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    has = 115200 if error else 19200  # trio-serial has set that before
    OneRate(kernel, has, error)
    async with opened(line, speed=12345, stop_bits=2) as backend:
        assert backend.line.missing == {"speed"}
        assert backend.line.settings == LineSettings(has, stop_bits=2)
        assert line.cflag & termios.CSTOPB
        with pytest.raises(BackendError, match="12345"):
            await backend.line.set(LineSettings(12345))
        assert backend.line.settings == LineSettings(has, stop_bits=2)
        await backend.line.set(LineSettings(has))
        assert backend.line.missing == set()
    assert f"'{line.path}' does without 12345 baud (it has {has})" in caplog.text


async def test_a_format_that_the_device_has_not_is_an_error(line: Pair, kernel: Kernel) -> None:
    with pytest.raises(BackendError, match="does not do 5 data bits"):
        async with opened(line, data_bits=5):  # nor does a PTY
            pass


async def test_in_a_change_on_the_same_line_what_was_refused_is_known(
    line: Pair, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.errors |= {"TIOCCBRK": errno.ENOTTY, "TIOCMGET": errno.EIO}
    async with opened(line) as old:
        assert old.line.missing == {"break", "modem"}
        async with opened(line, replaces=old, speed=9600) as new:
            assert new.line.missing == {"break", "modem"}


# ---------------------------------------------------------------- no edge on DTR or RTS


async def test_a_change_to_the_same_line_writes_no_modem_line(line: Pair, kernel: Kernel) -> None:
    """Nor does one that fails, nor what is set as it is; boards reset at an edge."""
    options = SerialOptions(path=line.path, hupcl=False, dtr="off", rts="on")
    async with open_registry() as registry:
        await registry.add("board", options)
        async with registry["board"].attach(be_change=stateless) as user:
            await user.line.set_modem(RTS)
            kernel.calls.clear()
            for change in ({"speed": 9600}, {"dtr": "keep", "rts": "keep"}, {}):
                await registry.change("board", attrs.evolve(options, **change))
                await user.line.set_modem(RTS)
                await user.line.set(user.line.settings)
            assert kernel.edges == []
            assert "TIOCSBRK" not in kernel.calls
    assert kernel.edges == [], "nor does closing"


@pytest.mark.parametrize("fails", ["be_change", "commit"])
async def test_a_change_to_the_same_line_that_fails_writes_no_modem_line(
    line: Pair, kernel: Kernel, fails: str
) -> None:
    async def refuse(backend: Controls) -> None:
        await backend.line.set_modem(RTS)
        if fails == "be_change" and not backend.is_original:
            raise BackendError("not so")

    options = SerialOptions(path=line.path)
    async with open_registry() as registry:
        await registry.add("board", options)
        async with registry["board"].attach(be_change=refuse) as user:
            await user.line.set_modem(RTS)
            kernel.calls.clear()
            speed = 9600 if fails == "be_change" else 300
            if fails == "commit":
                kernel.before = lambda name: kernel.errors.update(
                    {"TCSETS2": errno.EIO} if name == "TIOCMGET" else {}
                )
            with pytest.raises((ChangeFailedError, BackendError)):
                await registry.change("board", attrs.evolve(options, speed=speed))
            kernel.before = lambda name: None
            kernel.errors.clear()
            assert kernel.edges == []


async def test_what_is_in_force_is_set_a_thousand_times_without_an_ioctl_that_alters(
    line: Pair, kernel: Kernel
) -> None:
    async with opened(line, speed=12345, stop_bits=2) as backend:
        kernel.calls.clear()
        for _ in range(1000):
            await backend.line.set(LineSettings(12345, stop_bits=2))
            await backend.line.set_modem(DTR | RTS)
        assert kernel.altering == []


async def test_a_pty_with_bits_that_it_does_not_show_is_not_set_again(
    line: Pair, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial_line, "UNIX98_PTY_SLAVES", range(136, 144))
    async with opened(line, data_bits=7, parity="E") as backend:
        kernel.calls.clear()
        await backend.line.set(LineSettings(data_bits=7, parity="E"))
        assert kernel.altering == []


# ---------------------------------------------------------------- a hang-up in the midst


async def use_all(backend: SerialBackend) -> None:
    """Do all that may be done to a line, whatever comes of it."""
    calls = (
        lambda: backend.line.set(LineSettings(9600, stop_bits=2)),
        lambda: backend.line.set_modem(RTS),
        lambda: backend.line.get_modem(),
        lambda: backend.line.set_break(True),
        lambda: backend.line.set_break(False),
        lambda: backend.line.send_break(0),
    )
    for call in calls:
        with suppress(BackendError, NotSupportedError):
            await call()
    backend.line.look()
    backend.receive_nowait(10)


async def run_with_hang_up(line: Pair, kernel: Kernel, at: int) -> bool:
    """Open, use, take over and close; the line hangs up at the ioctl number *at*. Was it reached?"""
    count = 0

    def tick(name: str) -> None:
        nonlocal count
        count += 1
        if count == at:
            line.hang_up()

    kernel.before = tick
    try:
        async with opened(line, reopen_ms=10**6, **ALL) as backend:
            await use_all(backend)
            try:
                async with opened(line, replaces=backend, speed=19200, reopen_ms=10**6) as new:
                    await use_all(new)
            except BackendError:
                pass
    except BackendError:
        pass
    finally:
        kernel.before = lambda name: None
    return count >= at


async def test_a_hang_up_in_the_midst_of_any_call_is_one_error_and_leaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = 1
    while True:
        before = len(os.listdir("/proc/self/fd"))
        fds = os.openpty()
        line = Pair(*fds, os.ttyname(fds[1]))
        with monkeypatch.context() as patch, trio.fail_after(5):
            was_reached = await run_with_hang_up(line, Kernel(patch, line.path), at)
        line.hang_up()
        assert len(os.listdir("/proc/self/fd")) == before
        if not was_reached:
            break
        at += 1
    assert at > 30


@pytest.mark.parametrize("ioctl", ["TIOCMGET", "TIOCMBIC", "TIOCCBRK", "TIOCSRS485", "TIOCEXCL"])
async def test_a_hang_up_at_what_a_driver_may_refuse_is_no_refusal(
    line: Pair, kernel: Kernel, ioctl: str
) -> None:
    calls = 0

    def hang_up(name: str) -> None:
        nonlocal calls
        calls += name == ioctl
        if name == ioctl and calls == (2 if name == "TIOCMGET" else 1):  # the first only looks
            line.hang_up()

    kernel.before = hang_up
    with pytest.raises(BackendError, match="Could not set up '.*': Input/output error$"):
        async with opened(line, **ALL):
            pass


async def test_a_commit_that_fails_restores_the_break(line: Pair, kernel: Kernel) -> None:
    async with opened(line) as old:
        await old.line.set_break(True)
        async with opened(line, replaces=old, active=False, low_latency=True) as new:
            kernel.calls.clear()
            kernel.errors["TIOCSSERIAL"] = errno.EPERM
            with pytest.raises(BackendError):
                new.activate()
            assert [name for name in kernel.calls if name.endswith("BRK")] == [
                "TIOCCBRK",
                "TIOCSBRK",
            ]
