"""The line settings of real PTYs: those that the kernel keeps, and that they have to be polled."""

from __future__ import annotations

import os
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import suppress

import attrs
import pytest

from trio_chardev.backends.descriptor import FdHolder
from trio_chardev.backends.pty.line import PtyLine
from trio_chardev.backends.pty.pty import PtyBackend, PtyOptions, open_pty
from trio_chardev.core.backend import OpenRequest
from trio_chardev.events import BackendEvent, Event, LineSettings

IFLAG, CFLAG, ISPEED, OSPEED = 0, 2, 4, 5  # their places in what tcgetattr gives


@attrs.define
class Pair:
    master: int
    slave: int

    def set(self, speed: int | None = None, cflag: int = 0, iflag: int = 0) -> None:
        """As a program on the slave does."""
        modes = termios.tcgetattr(self.slave)
        modes[IFLAG] |= iflag
        modes[CFLAG] |= cflag
        if speed is not None:
            modes[ISPEED] = modes[OSPEED] = speed
        termios.tcsetattr(self.slave, termios.TCSANOW, modes)


@pytest.fixture
def pair() -> Iterator[Pair]:
    master, slave = os.openpty()
    tty.setraw(slave)
    yield Pair(master, slave)
    os.close(slave)
    os.close(master)


def line_of(pair: Pair) -> PtyLine:
    return PtyLine("pty", FdHolder(os.dup(pair.master)), on_event=lambda event: None)


async def test_nothing_is_told_of_a_user_who_sets_nothing(pair: Pair) -> None:
    line = line_of(pair)
    assert line.find_changed() is None
    pair.set()
    assert line.find_changed() is None
    line._master.close()
    assert line.find_changed() is None
    line.show(LineSettings())


async def test_what_is_set_is_told_once(pair: Pair) -> None:
    line = line_of(pair)
    pair.set(termios.B9600)
    assert line.find_changed() == LineSettings(9600)
    assert line.find_changed() is None
    pair.set(cflag=termios.CSTOPB | termios.CRTSCTS, iflag=termios.IXON | termios.IXOFF)
    assert line.find_changed() == LineSettings(9600, stop_bits=2, rtscts=True, xonxoff=True)
    line._master.close()


async def test_xon_alone_is_what_every_cooked_terminal_has(pair: Pair) -> None:
    line = line_of(pair)
    pair.set(iflag=termios.IXON)
    assert line.find_changed() is None
    line._master.close()


async def test_speed_0_is_no_speed(pair: Pair) -> None:
    line = line_of(pair)
    pair.set(termios.B0)
    assert line.find_changed() is None
    pair.set(termios.B1200)
    assert line.find_changed() == LineSettings(1200)
    line._master.close()


@pytest.mark.parametrize("in_force", [LineSettings(300), LineSettings(19200)])
async def test_what_came_of_the_users_settings_is_shown(pair: Pair, in_force: LineSettings) -> None:
    """Also if the settings of before were shown in between, while the line was being set."""
    line = line_of(pair)
    pair.set(termios.B300)
    assert line.find_changed() == LineSettings(300)
    line.show(LineSettings(9600))
    line.acknowledge(LineSettings(300), in_force)
    speed = termios.tcgetattr(pair.slave)[OSPEED]
    assert speed == {300: termios.B300, 19200: termios.B19200}[in_force.speed]
    line.acknowledge(LineSettings(300), None)
    assert termios.tcgetattr(pair.slave)[OSPEED] == speed
    line._master.close()


async def test_what_is_shown_is_seen_and_no_news(pair: Pair) -> None:
    """Data bits and parity are not kept by the kernel, but here."""
    line = line_of(pair)
    line.show(LineSettings(57600, 7, "E", 2, rtscts=True))
    modes = termios.tcgetattr(pair.slave)
    assert modes[OSPEED] == termios.B57600
    assert modes[CFLAG] & termios.CSTOPB
    assert modes[CFLAG] & termios.CRTSCTS
    assert line.find_changed() is None
    pair.set(termios.B300)
    assert line.find_changed() == LineSettings(300, 7, "E", 2, rtscts=True)
    line._master.close()


def test_the_kernel_keeps_neither_parity_nor_data_bits(pair: Pair) -> None:
    """If it begins to, look at them, too."""
    modes = termios.tcgetattr(pair.slave)
    modes[CFLAG] = (modes[CFLAG] & ~termios.CSIZE) | termios.CS7 | termios.PARENB
    with suppress(termios.error):  # newer C libraries say that it was not done
        termios.tcsetattr(pair.slave, termios.TCSANOW, modes)
    kept = termios.tcgetattr(pair.slave)[CFLAG]
    assert kept & termios.CSIZE == termios.CS8
    assert not kept & termios.PARENB


def test_the_kernel_does_not_wake_the_master_for_it(pair: Pair) -> None:
    """If it begins to, there is no need to look."""
    poll = select.poll()
    poll.register(pair.master, select.POLLIN | select.POLLPRI)
    pair.set(termios.B9600)
    termios.tcsendbreak(pair.slave, 0)
    assert poll.poll(0) == []


# ---------------------------------------------------------------- the backend


async def test_from_the_first_look_on_settings_come_before_the_bytes_behind_them() -> None:
    seen: list[BackendEvent | bytes] = []
    async with open_pty(PtyOptions(), OpenRequest(id="x", on_event=seen.append)) as backend:
        assert isinstance(backend, PtyBackend)
        slave = os.open(backend.pty, os.O_RDWR | os.O_NOCTTY)
        try:
            user = Pair(backend.sink.fd, slave)
            user.set(termios.B1200)
            os.write(slave, b"not asked for")
            seen.append(backend.receive_nowait(100))
            backend.line.look()
            user.set(termios.B9600)
            os.write(slave, b"behind it")
            seen.append(backend.receive_nowait(100))
        finally:
            os.close(slave)
    assert seen == [
        Event.OPENED,
        b"not asked for",
        LineSettings(1200),
        LineSettings(9600),
        b"behind it",
    ]


async def test_what_the_user_has_set_is_not_overwritten_by_what_is_shown() -> None:
    seen: list[BackendEvent | bytes] = []
    async with open_pty(PtyOptions(), OpenRequest(id="x", on_event=seen.append)) as backend:
        assert isinstance(backend, PtyBackend)
        slave = os.open(backend.pty, os.O_RDWR | os.O_NOCTTY)
        try:
            backend.line.show(LineSettings(4800))
            assert termios.tcgetattr(slave)[OSPEED] == termios.B4800
            Pair(-1, slave).set(termios.B1200)
            backend.line.show(LineSettings(2400))
            assert termios.tcgetattr(slave)[OSPEED] == termios.B1200
        finally:
            os.close(slave)
    assert seen == [LineSettings(1200)]


async def test_what_somebody_has_set_who_is_gone_is_told_at_the_next_read() -> None:
    """As by stty(1)."""
    seen: list[BackendEvent | bytes] = []
    async with open_pty(PtyOptions(), OpenRequest(id="x", on_event=seen.append)) as backend:
        assert isinstance(backend, PtyBackend)
        backend.line.look()
        slave = os.open(backend.pty, os.O_RDWR | os.O_NOCTTY)
        Pair(-1, slave).set(termios.B9600)
        os.close(slave)
        assert backend.receive_nowait(100) == b""
    assert seen == [LineSettings(9600)]
