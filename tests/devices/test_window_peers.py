"""Window sizes from real programs to real programs, by a bridge: telnet, stty, socat."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

import trio_chardev as tc
from tests.peers import need
from tests.services import until
from trio_chardev.backends.terminal_window import get_window_size, set_window_size
from trio_chardev.events import WindowSize

WIDE, SMALL = WindowSize(132, 43), WindowSize(80, 24)
ANY = tc.InetAddress("127.0.0.1", "0")


@asynccontextmanager
async def bridged(board: tc.BackendOptions, user: tc.BackendOptions) -> AsyncIterator[tc.Registry]:
    with trio.fail_after(20):
        async with tc.open_registry() as registry:
            await registry.add("board", board)
            await registry.add("user", user)
            registry.devices.add(tc.BridgeOptions(id="b0", chardev="board", peer="user"))
            yield registry


@contextmanager
def telnet(port: int | None, size: WindowSize) -> Iterator[int]:
    """Run telnet(1) in a terminal whose window has *size*; give the user's side of that."""
    ours, theirs = os.openpty()
    set_window_size(ours, size)
    process = subprocess.Popen(
        [need("setsid"), "--ctty", need("telnet"), "127.0.0.1", str(port)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


async def stty_size(pty: str) -> bytes:
    stty = need("stty")
    return (await trio.run_process([stty, "-F", pty, "size"], capture_stdout=True)).stdout


@pytest.mark.parametrize("protocol", ["telnet", "rfc2217"])
async def test_telnets_window_is_that_of_the_ptys_user(protocol: str) -> None:
    user = tc.SocketOptions(addr=ANY, **{protocol: True})  # type: ignore[arg-type]
    async with bridged(tc.PtyOptions(), user) as registry:
        pty = registry["board"].pty
        assert pty is not None
        slave = os.open(pty, os.O_RDWR | os.O_NOCTTY)
        with telnet(registry["user"].port, WIDE) as window:
            await until(lambda: get_window_size(slave) == WIDE)
            assert await stty_size(pty) == b"43 132\n"
            set_window_size(window, WindowSize(255, 65535))
            await until(lambda: get_window_size(slave) == WindowSize(255, 65535))
            await registry.change("board", tc.PtyOptions())
            new = registry["board"].pty
            assert new is not None
            assert await stty_size(new) == b"65535 255\n", (
                "a new device is told before it is in place"
            )
        os.close(slave)
        await until(lambda: not registry["user"].is_open)
        assert not registry["user"].window_size.is_known
        with telnet(registry["user"].port, SMALL):
            await until(lambda: registry["user"].window_size == SMALL)
            await until(lambda: _size_at(new) == SMALL)


def _size_at(pty: str) -> WindowSize:
    fd = os.open(pty, os.O_RDWR | os.O_NOCTTY)
    try:
        return get_window_size(fd)
    finally:
        os.close(fd)


async def test_telnets_window_is_that_of_the_telnet_behind_the_bridge() -> None:
    """telnet, our server, a bridge, our client, our server."""
    async with tc.open_registry() as far:
        server = await far.add("far", tc.SocketOptions(addr=ANY, telnet=True))
        address = tc.InetAddress("127.0.0.1", str(server.port))
        board = tc.SocketOptions(addr=address, server=False, telnet=True)
        async with bridged(board, tc.SocketOptions(addr=ANY, telnet=True)) as registry:
            with telnet(registry["user"].port, WIDE) as window:
                await until(lambda: server.window_size == WIDE)
                set_window_size(window, SMALL)
                await until(lambda: server.window_size == SMALL)


async def test_what_stty_sets_at_the_users_pty_is_what_stty_shows_at_the_boards(
    tmp_path: Path,
) -> None:
    stty = need("stty")
    async with bridged(tc.PtyOptions(path=tmp_path / "board"), tc.PtyOptions()) as registry:
        user = registry["user"].pty
        assert user is not None
        slave = os.open(user, os.O_RDWR | os.O_NOCTTY)
        await trio.run_process([stty, "-F", user, "cols", "132", "rows", "43"])
        board = os.open(tmp_path / "board", os.O_RDWR | os.O_NOCTTY)
        await until(lambda: get_window_size(board) == WIDE)
        set_window_size(board, SMALL)  # a device has no window
        os.write(board, b"x\n")
        await until(lambda: bool(_readable(slave)))
        assert get_window_size(slave) == WIDE
        os.close(board)
        os.close(slave)


def _readable(fd: int) -> int:
    (size,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    return int(size)


async def test_a_real_telnet_server_is_told_once_it_asks(tmp_path: Path) -> None:
    """socat stands for one: it asks, and shows what comes."""
    socat = need("socat")
    (tmp_path / "wire").touch()
    script = tmp_path / "telnetd"
    script.write_text(f"printf '\\377\\375\\037'; exec cat > {tmp_path}/wire")
    listener = "TCP-LISTEN:0,bind=127.0.0.1"
    process = await trio.lowlevel.open_process(
        [socat, "-d", "-d", listener, f"EXEC:sh {script}"], stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = b""
    while b"listening on" not in said:
        said += await process.stderr.receive_some()
    port = said.rpartition(b":")[2].split()[0].decode()
    options = tc.SocketOptions(addr=tc.InetAddress("127.0.0.1", port), server=False, telnet=True)
    with trio.fail_after(20):
        async with tc.open_registry() as registry:
            chardev = await registry.add("board", options)
            frontend = chardev.attach(be_change=tc.stateless)
            await frontend.line.set_window_size(WindowSize(255, 24))
            wanted = bytes.fromhex("fffb1f fffa1f 00ffff 0018 fff0")
            await until(lambda: wanted in (tmp_path / "wire").read_bytes())
    process.kill()
    await process.wait()
