"""A bridge that is used as people do: picocom, tio and stty on its PTY, socat, a guest of QEMU."""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_chardev as tc
from tests.guest import number, printing_guest
from tests.peers import need
from tests.services import until
from trio_chardev.backends.descriptor import FdHolder
from trio_chardev.backends.socket.socket import SocketBackend

OSPEED = 5  # its place in what tcgetattr gives
LINES = 2000

# The program and its options, what it shows when it is ready, the keys that end it.
TERMINAL_PROGRAMS: list[tuple[str, list[str], bytes, bytes]] = [
    ("picocom", ["--nolock", "--baud", "9600"], b"Terminal ready", b"\x01\x18"),
    ("tio", ["--baudrate", "9600", "--no-autoconnect"], b"Connected", b"\x14q"),
]


@asynccontextmanager
async def bridged(board: tc.BackendOptions, user: tc.BackendOptions) -> AsyncIterator[tc.Registry]:
    with trio.fail_after(20):
        async with tc.open_registry() as registry:
            await registry.add("board", board)
            await registry.add("user", user)
            registry.devices.add(tc.BridgeOptions(id="b0", chardev="board", peer="user"))
            yield registry


@attrs.define
class Line:
    """A serial line whose other end is a PTY's master, the board."""

    board: FdHolder
    fd: int
    path: str

    @property
    def speed(self) -> int:
        speed: int = termios.tcgetattr(self.fd)[OSPEED]
        return speed


@contextmanager
def serial_line() -> Iterator[Line]:
    master, slave = os.openpty()
    tty.setraw(slave)
    board = FdHolder(master)
    try:
        yield Line(board, slave, os.ttyname(slave))
    finally:
        os.close(slave)
        board.close()


async def wait_text(fd: FdHolder, text: bytes) -> None:
    got = b""
    while text not in got:
        await fd.wait_readable()
        got += os.read(fd.fd, 4096)


@pytest.mark.parametrize(("name", "arguments", "ready", "leave"), TERMINAL_PROGRAMS)
async def test_a_terminal_program_sets_the_line_and_stays_while_the_board_is_changed(
    name: str, arguments: list[str], ready: bytes, leave: bytes, nursery: trio.Nursery
) -> None:
    """The next line is set as the program has set the first one."""
    path = need(name)
    keys, terminal = os.openpty()
    screen = FdHolder(keys)
    with serial_line() as first, serial_line() as second:
        async with bridged(tc.SerialOptions(path=first.path), tc.PtyOptions()) as registry:
            assert first.speed == termios.B115200
            pty = registry["user"].backend.pty
            assert pty is not None
            start = partial(
                trio.run_process,
                [path, *arguments, pty],
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,  # at its end picocom sends SIGTERM to its process group
            )
            await nursery.start(start)
            os.close(terminal)
            await wait_text(screen, ready)
            await until(lambda: first.speed == termios.B9600)
            for line in (first, second):
                if line is second:
                    await registry.change("board", tc.SerialOptions(path=line.path))
                    assert line.speed == termios.B9600
                os.write(line.board.fd, b"login: ")
                await wait_text(screen, b"login: ")
                os.write(keys, b"root\r")
                await wait_text(line.board, b"root\r")
            os.write(keys, leave)
            await until(lambda: not registry["user"].is_open)
    screen.close()


async def test_stty_shows_what_the_line_has_and_sets_it(tmp_path: Path) -> None:
    stty = need("stty")
    link = str(tmp_path / "board")

    async def run(*arguments: str) -> bytes:
        done = await trio.run_process([stty, "-F", link, *arguments], capture_stdout=True)
        return done.stdout

    with serial_line() as line:
        board = tc.SerialOptions(path=line.path, speed=57600)
        async with bridged(board, tc.PtyOptions(path=link)):
            await wait_all_tasks_blocked()
            shown = await run("speed")
            assert shown == b"57600\n"
            await run("9600")
            await until(lambda: line.speed == termios.B9600)


async def test_socat_by_tcp_then_socat_on_a_pty(tmp_path: Path) -> None:
    """The user comes another way; the board notices nothing."""
    socat = need("socat")
    link = str(tmp_path / "board")
    echo = ["SYSTEM:cat"]
    user = tc.SocketOptions(addr=tc.InetAddress("127.0.0.1", "0"))
    with serial_line() as line:
        async with bridged(tc.SerialOptions(path=line.path), user) as registry:
            backend = registry["user"].backend
            assert isinstance(backend, SocketBackend)
            assert isinstance(backend.address, tc.InetAddress)
            tcp = f"TCP:127.0.0.1:{backend.address.port}"
            for address in (tcp, f"FILE:{link},raw,echo=0"):
                if address is not tcp:
                    await registry.change("user", tc.PtyOptions(path=link))
                async with running([socat, address, *echo]):
                    await until(lambda: registry["user"].is_open)
                    os.write(line.board.fd, address.encode())
                    await wait_text(line.board, address.encode())


async def test_a_session_of_socat_stays_while_the_board_is_changed() -> None:
    user = tc.SocketOptions(addr=tc.InetAddress("127.0.0.1", "0"))
    with serial_line() as first, serial_line() as second:
        async with bridged(tc.SerialOptions(path=first.path), user) as registry:
            port = registry["user"].backend.port
            async with running([need("socat"), f"TCP:127.0.0.1:{port}", "SYSTEM:cat"]):
                await until(lambda: registry["user"].is_open)
                for line in (first, second):
                    if line is second:
                        await registry.change("board", tc.SerialOptions(path=line.path))
                    os.write(line.board.fd, line.path.encode())
                    await wait_text(line.board, line.path.encode())


@asynccontextmanager
async def running(command: list[str]) -> AsyncIterator[None]:
    process = await trio.lowlevel.open_process(command)
    try:
        yield
    finally:
        process.kill()
        with trio.fail_after(5, shield=True):
            await process.wait()


async def test_who_listens_to_a_guest_is_changed_while_it_prints(tmp_path: Path) -> None:
    """What its first listener has and what the second gets have each number once."""
    first, second = tmp_path / "first", tmp_path / "second"
    guest = tc.SocketOptions(addr=tc.UnixAddress(str(tmp_path / "guest")))
    async with (
        bridged(guest, tc.FileOptions(out=str(first))) as registry,
        printing_guest(tmp_path, f"socket,path={tmp_path}/guest"),
    ):
        await until(holds(first))
        await registry.change("user", tc.FileOptions(out=str(second)))
        await until(holds(second))
        await registry.devices.remove("b0")
    printed = first.read_bytes() + second.read_bytes()
    count = len(printed) // len(number(0)) + 1
    assert printed == b"".join(map(number, range(count)))[: len(printed)]


def holds(path: Path) -> Callable[[], bool]:
    return lambda: path.exists() and path.stat().st_size > LINES * len(number(0))
