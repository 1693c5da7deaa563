"""The window size of a PTY, which both of its sides can set and only one is told of."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tests.peers import need
from tests.services import TIMEOUT, until
from tests.users import PATIENCE
from trio_chardev.backends.pty.pty import PtyBackend, PtyOptions, open_pty
from trio_chardev.core.backend import OpenRequest
from trio_chardev.events import UNKNOWN_SIZE, BackendEvent, WindowSize

SMALL, WIDE = WindowSize(80, 24), WindowSize(132, 43)


def window_of(fd: int) -> WindowSize:
    """As a program on the slave sees it."""
    rows, cols, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return WindowSize(cols, rows)


def set_window(fd: int, size: WindowSize) -> None:
    """As stty(1) does."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))


@attrs.define
class Opened:
    """A PTY in place, its slave, and what it has reported of windows."""

    backend: PtyBackend
    slave: int
    sizes: list[WindowSize]


@asynccontextmanager
async def opened() -> AsyncIterator[Opened]:
    sizes: list[WindowSize] = []

    def note(event: BackendEvent) -> None:
        if isinstance(event, WindowSize):
            sizes.append(event)

    async with open_pty(PtyOptions(), OpenRequest(id="x", on_event=note)) as backend:
        assert isinstance(backend, PtyBackend)
        slave = os.open(backend.pty, os.O_RDWR | os.O_NOCTTY)
        try:
            yield Opened(backend, slave, sizes)
        finally:
            os.close(slave)


async def test_what_it_is_told_the_slaves_user_finds() -> None:
    stty = need("stty")
    async with opened() as pty:
        await pty.backend.line.set_window_size(WIDE)
        shown = await trio.run_process([stty, "-F", pty.backend.pty, "size"], capture_stdout=True)
        assert shown.stdout == b"43 132\n"
        pty.backend.line.look()
        assert pty.sizes == [], "it is no news"


async def test_a_program_on_the_slave_gets_sigwinch_and_only_for_another_size(
    tmp_path: Path,
) -> None:
    seen, shown = tmp_path / "seen", ""
    seen.touch()
    script = f"trap '{need('stty')} size >> {seen}' WINCH; echo ready; while :; do read line; done"
    async with opened() as pty:
        process = await trio.lowlevel.open_process(
            ["setsid", "--ctty", "sh", "-c", script],
            stdin=pty.slave,
            stdout=pty.slave,
            stderr=subprocess.DEVNULL,
        )
        try:
            with trio.fail_after(TIMEOUT):
                got = b""
                while b"ready" not in got:
                    await pty.backend.wait_readable()
                    got += pty.backend.receive_nowait(100)
                for size, is_another in ((WIDE, True), (WIDE, False), (SMALL, True)):
                    await pty.backend.line.set_window_size(size)
                    shown += f"{size.rows} {size.cols}\n" * is_another
                    os.write(pty.backend.sink.fd, b"\n")  # it runs the trap when read has ended
                    await until(lambda: seen.read_text() == shown)  # noqa: B023
        finally:
            process.kill()
            with trio.fail_after(5, shield=True):
                await process.wait()


async def test_what_its_user_sets_is_found_by_a_look_and_told_once() -> None:
    async with opened() as pty:
        set_window(pty.slave, WIDE)
        assert pty.backend.receive_nowait(10) == b""
        assert pty.sizes == [], "nobody has looked"
        for _ in range(2):
            pty.backend.line.look()
        assert pty.sizes == [WIDE]
        set_window(pty.slave, SMALL)
        os.write(pty.slave, b"x\n")
        with trio.fail_after(PATIENCE):
            await pty.backend.wait_readable()
        assert pty.sizes == [WIDE]
        assert pty.backend.receive_nowait(10)
        assert pty.sizes == [WIDE, SMALL], "from then on it looks when bytes have come"
        set_window(pty.slave, UNKNOWN_SIZE)
        pty.backend.line.look()
        assert pty.sizes == [WIDE, SMALL, UNKNOWN_SIZE]


async def test_another_pty_in_its_place_has_its_size() -> None:
    async with opened() as pty:
        await pty.backend.line.set_window_size(WIDE)
        fcntl.ioctl(pty.slave, termios.TIOCEXCL)
        pty.backend._wants_another = True
        before = pty.backend.pty
        await pty.backend.wait_readable()
        assert pty.backend.pty != before
        slave = os.open(pty.backend.pty, os.O_RDWR | os.O_NOCTTY)
        assert window_of(slave) == WIDE
        os.close(slave)


@pytest.mark.parametrize("size", [WindowSize(65535, 1), UNKNOWN_SIZE])
async def test_a_closed_pty_has_the_size_that_it_had(size: WindowSize) -> None:
    async with opened() as pty:
        pty.backend.sink.close()
        await pty.backend.line.set_window_size(size)
        pty.backend.line.look()
        assert pty.sizes == []
