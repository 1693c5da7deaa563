"""A read or write that fails once stops nothing: an error that is not about the peer is retried."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.backends.serial.test_serial import Tty, make_tty
from tests.services import until
from trio_chardev import readiness
from trio_chardev.backends import file
from trio_chardev.backends.descriptor import open_fd
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pipe import PipeOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.socket.addresses import InetAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.backends.taps import background_file as background
from trio_chardev.backends.udp import UdpOptions
from trio_chardev.core.handlers import stateless
from trio_chardev.devices import flow
from trio_chardev.devices.bridge import Bridge, BridgeOptions
from trio_chardev.errors import BackendError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.qmp.server import output
from trio_chardev.registry import Registry, open_registry
from trio_chardev.service import open_service

PIECE = b"0123456789"
DATAGRAM = socket.SOCK_DGRAM
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (readiness, flow, file, background, output):
        monkeypatch.setattr(module, "RETRY_INTERVAL", 0.02)


@attrs.define
class Fault:
    """Stands in for a call, and fails a few times, of those for which *applies*."""

    call: Callable[..., Any]
    code: int
    applies: Callable[..., bool] = lambda *args: True
    times: int = 2

    def __call__(self, *args: Any) -> Any:
        if self.times and self.applies(*args):
            self.times -= 1
            raise OSError(self.code, os.strerror(self.code))
        return self.call(*args)

    def method(self) -> Callable[..., Any]:
        return lambda *args: self(*args)


@asynccontextmanager
async def bridged(
    board: BackendOptions, user: BackendOptions, when_closed: Any = "drop"
) -> AsyncIterator[tuple[Registry, Bridge]]:
    with trio.fail_after(10):
        async with open_registry() as registry:
            await registry.add("board", board)
            await registry.add("user", user)
            bridge = registry.devices.add(
                BridgeOptions(id="b", chardev="board", peer="user", when_closed=when_closed)
            )
            assert isinstance(bridge, Bridge)
            yield registry, bridge


async def read_all(sock: socket.socket, size: int) -> bytes:
    """*size* bytes at least."""
    data = b""
    while len(data) < size:
        data += await trio.to_thread.run_sync(sock.recv, 1 << 16)
    return data


def server(path: Path) -> SocketOptions:
    return SocketOptions(addr=UnixAddress(str(path)), wait=False)


def client(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(str(path))
    return sock


# ---------------------------------------------------------------- sockets


@pytest.mark.parametrize("when_closed", ["drop", "hold"])
@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS])
@pytest.mark.parametrize("input_waits", [False, True])
async def test_a_send_without_memory_loses_neither_bytes_nor_the_peer(
    when_closed: str,
    code: int,
    input_waits: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault = Fault(socket.socket.send, code, lambda sock, data, *flags: bytes(data) == PIECE)
    async with bridged(server(tmp_path / "a"), server(tmp_path / "b"), when_closed) as (_, bridge):
        with client(tmp_path / "a") as board, client(tmp_path / "b") as user:
            await until(lambda: bridge.info.state == "open")
            if input_waits:
                user.sendall(b"typed")
                assert await read_all(board, 5) == b"typed"
            os.write(board.fileno(), PIECE)
            monkeypatch.setattr(socket.socket, "send", fault.method())
            if input_waits:
                os.write(user.fileno(), b"more")
            assert await read_all(user, len(PIECE)) == PIECE
            if input_waits:
                assert await read_all(board, 4) == b"more"
            assert (fault.times, bridge.info.state) == (0, "open")
            assert (bridge.info.to_peer.bytes, bridge.info.to_peer.dropped) == (10, 0)
    assert caplog.text.count("trying again each second") == 1


async def test_a_read_without_memory_loses_neither_bytes_nor_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault(socket.socket.recvmsg, errno.ENOMEM)
    async with bridged(server(tmp_path / "a"), server(tmp_path / "b")) as (_, bridge):
        with client(tmp_path / "a") as board, client(tmp_path / "b") as user:
            await until(lambda: bridge.info.state == "open")
            monkeypatch.setattr(socket.socket, "recvmsg", fault.method())
            os.write(board.fileno(), PIECE)
            assert await read_all(user, len(PIECE)) == PIECE
            assert (fault.times, bridge.info.state) == (0, "open")


async def test_what_a_base_found_no_memory_to_read_before_a_change_is_for_its_next_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fault(socket.socket.recvmsg, errno.ENOMEM, times=1000)
    with trio.fail_after(10):
        async with open_registry() as registry:
            await registry.add("base", server(tmp_path / "a"))
            await registry.add("m", MuxOptions(chardev="base"))
            registry["m"].attach(be_change=stateless)
            with client(tmp_path / "a") as peer:
                await until(lambda: registry["base"].is_open)
                monkeypatch.setattr(socket.socket, "recvmsg", fault.method())
                os.write(peer.fileno(), PIECE)
                await until(lambda: fault.times < 1000)
                await registry.change("m", NullOptions())
                fault.times = 0
                assert await registry["base"].attach().receive_some() == PIECE


async def test_descriptors_go_with_the_bytes_that_were_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trio.fail_after(10):
        async with open_registry() as registry:
            await registry.add("s", server(tmp_path / "s"))
            backend = registry["s"].backend
            assert isinstance(backend, SocketBackend)
            with client(tmp_path / "s") as peer, (tmp_path / "f").open("w") as passed:
                await until(lambda: registry["s"].is_open)
                fault = Fault(socket.socket.sendmsg, errno.ETOOMANYREFS)
                monkeypatch.setattr(socket.socket, "sendmsg", fault.method())
                backend.peer.send_fds([passed.fileno()])
                await backend.send_some(memoryview(PIECE))
                data, fds, _, _ = socket.recv_fds(peer, 100, 4)
                assert (data, os.readlink(f"/proc/self/fd/{fds[0]}")) == (PIECE, passed.name)
                os.close(fds[0])


async def test_the_answer_to_a_handshake_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a layer nothing is lost either: its records would not be whole any more."""
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), websocket=True, wait=False)
    fault = Fault(
        socket.socket.send,
        errno.ENOMEM,
        lambda sock, data, *flags: bytes(data[:12]) == b"HTTP/1.1 101" or data[0] == 0x82,
        times=1,
    )
    async with bridged(options, options) as (registry, _):
        backend = registry["board"].backend
        assert isinstance(backend, SocketBackend)
        assert isinstance(backend.address, InetAddress)
        monkeypatch.setattr(socket.socket, "send", fault.method())
        peer = await trio.open_tcp_stream("127.0.0.1", int(backend.address.port))
        async with peer:
            await peer.send_all(UPGRADE)
            await until(lambda: registry["board"].is_open)
            assert not fault.times
            fault.times = 1
            assert await backend.send_some(memoryview(PIECE)) == len(PIECE)
            data = b""
            while not data.endswith(PIECE):
                data += await peer.receive_some()
            assert data[-len(PIECE) - 2 :] == bytes((0x82, len(PIECE))) + PIECE


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM])
async def test_a_datagram_without_memory_is_sent_again(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(10)
        remote = InetAddress("127.0.0.1", str(peer.getsockname()[1]))
        async with bridged(UdpOptions(remote=remote), server(tmp_path / "s")) as (_, bridge):
            with client(tmp_path / "s") as user:
                await until(lambda: bridge.info.state == "open")
                send = Fault(
                    socket.socket.send, code, lambda sock, data, *flags: sock.type == DATAGRAM
                )
                receive = Fault(socket.socket.recv, code, lambda sock, *size: sock.type == DATAGRAM)
                monkeypatch.setattr(socket.socket, "send", send.method())
                monkeypatch.setattr(socket.socket, "recv", receive.method())
                os.write(user.fileno(), PIECE)
                data, sender = await trio.to_thread.run_sync(peer.recvfrom, 100)
                assert data == PIECE
                peer.sendto(b"answer", sender)
                assert await read_all(user, 6) == b"answer"
                assert not send.times
                assert not receive.times


# ---------------------------------------------------------------- files and lines


@pytest.fixture
def line() -> Any:
    made = make_tty()
    yield made
    made.hang_up()


@pytest.mark.parametrize("when_closed", ["drop", "hold"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EPIPE, errno.ENOMEM])
async def test_a_line_that_fails_and_is_there_gets_all(
    when_closed: str,
    code: int,
    line: Tty,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    serial = SerialOptions(path=line.path)
    async with bridged(serial, server(tmp_path / "s"), when_closed) as (_, bridge):
        with client(tmp_path / "s") as user:
            await until(lambda: bridge.info.state == "open")
            fault = Fault(os.write, code, lambda fd, data: bytes(data) == PIECE)
            monkeypatch.setattr(os, "write", fault)
            user.sendall(PIECE)
            await until(lambda: bridge.info.to_chardev.bytes == len(PIECE))
            assert (fault.times, bridge.info.state) == (0, "open")
            assert bridge.info.to_chardev.dropped == 0
            assert line.read() == PIECE
            user.sendall(b"on")
            await until(lambda: bridge.info.to_chardev.bytes == len(PIECE) + 2)
    assert caplog.text.count(os.strerror(code)) == 1


async def test_a_line_that_is_gone_is_disconnected(line: Tty, tmp_path: Path) -> None:
    serial = SerialOptions(path=line.path)
    async with bridged(serial, server(tmp_path / "s")) as (_, bridge):
        with client(tmp_path / "s") as user:
            await until(lambda: bridge.info.state == "open")
            os.dup2(os.open("/dev/null", os.O_RDWR), line.master)
            user.sendall(PIECE)
            await until(lambda: bridge.info.to_chardev.dropped == len(PIECE))
            await until(lambda: bridge.info.state == "chardev-closed")


@pytest.mark.parametrize("kind", ["pty", "pipe"])
async def test_a_write_without_memory_loses_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    options: dict[str, BackendOptions] = {
        "pty": PtyOptions(path=str(tmp_path / "link")),
        "pipe": PipeOptions(device=str(tmp_path / "fifo")),
    }
    names = {"pty": "link", "pipe": "fifo"}
    async with bridged(options[kind], server(tmp_path / "s")) as (registry, bridge):
        reader = os.open(tmp_path / names[kind], os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        with client(tmp_path / "s") as user:
            await until(lambda: bridge.info.state == "open")
            fault = Fault(os.write, errno.ENOMEM, lambda fd, data: bytes(data) == PIECE)
            monkeypatch.setattr(os, "write", fault)
            user.sendall(PIECE)
            await until(lambda: bridge.info.to_chardev.bytes == len(PIECE))
            assert (fault.times, registry["board"].is_open) == (0, True)
        os.close(reader)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.ENOMEM])
async def test_a_disk_that_is_full_for_a_while_loses_nothing(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bridged(FileOptions(out=str(tmp_path / "f")), server(tmp_path / "s")) as (_, bridge):
        with client(tmp_path / "s") as user:
            await until(lambda: bridge.info.state == "open")
            fault = Fault(os.write, code, lambda fd, data: bytes(data) == PIECE)
            monkeypatch.setattr(os, "write", fault)
            user.sendall(PIECE)
            await until(lambda: (tmp_path / "f").read_bytes() == PIECE)
            assert (fault.times, bridge.info.to_chardev.bytes) == (0, len(PIECE))
            assert bridge.info.to_chardev.dropped == 0


async def test_a_fifo_whose_reader_comes_back_gets_what_was_held(tmp_path: Path) -> None:
    """A file's output is open all the time: nothing tells that a reader has come."""
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    out = FileOptions(out=str(tmp_path / "fifo"))
    async with bridged(out, server(tmp_path / "s"), "hold") as (_, bridge):
        with client(tmp_path / "s") as user:
            await until(lambda: bridge.info.state == "open")
            os.close(reader)
            user.sendall(PIECE)
            await until(lambda: bridge.to_chardev.is_at_work)
            reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
            await until(lambda: bridge.info.to_chardev.bytes == len(PIECE))
            assert os.read(reader, 100) == PIECE
            os.close(reader)


async def test_a_monitor_on_a_line_repeats_the_reply_that_failed(
    line: Tty, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(10):
        async with open_service() as service:
            await service.registry.add("m", SerialOptions(path=line.path))
            fault = Fault(os.write, errno.EIO, lambda fd, data: b"QMP" in bytes(data))
            monkeypatch.setattr(os, "write", fault)
            await service.add_monitor("m", insecure=True)
            await until(lambda: not fault.times)
            said = b""
            while not said.endswith(b"\n"):
                try:
                    said += line.read()
                except BlockingIOError:
                    await trio.sleep(0.001)
            assert said.startswith(b'{"QMP"')
    assert caplog.text.count("Input/output error; trying again each second") == 1


# ---------------------------------------------------------------- a FIFO that is opened anew


async def test_a_fifo_that_cannot_be_opened_anew_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For want of descriptors; what the next writer says meanwhile comes all the same."""
    os.mkfifo(tmp_path / "fifo")
    board = FileOptions(out="/dev/null", in_=str(tmp_path / "fifo"))
    async with bridged(board, server(tmp_path / "s")) as (registry, bridge):
        with client(tmp_path / "s") as user:
            await until(lambda: bridge.info.state == "open")
            opening = open_fd
            fault = Fault(opening, errno.EMFILE, times=1 << 30)

            def no_descriptor(*args: Any) -> Any:
                try:
                    return fault(*args)
                except OSError as exc:
                    raise BackendError.from_os_error("Could not open 'fifo'", exc) from exc

            monkeypatch.setattr(file, "open_fd", no_descriptor)  # from now on
            for data in (b"one", b"two"):
                tries = fault.times
                writer = os.open(tmp_path / "fifo", os.O_WRONLY)
                os.write(writer, data)
                os.close(writer)
                assert await read_all(user, 3) == data
                await until(lambda tries=tries: fault.times < tries - 1)  # type: ignore[misc]
            assert registry["board"].is_open
            assert caplog.text.count("trying again each second") == 1
            fault.times = 0
            await until(lambda: not registry["board"].backend._is_left)  # type: ignore[attr-defined]
            writer = os.open(tmp_path / "fifo", os.O_WRONLY)
            os.write(writer, b"three")
            os.close(writer)
            assert await read_all(user, 5) == b"three"


async def test_a_fifo_without_writers_is_opened_anew_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    opened = 0

    def count(*args: Any) -> Any:
        nonlocal opened
        opened += 1
        return open_fd(*args)

    monkeypatch.setattr(file, "open_fd", count)
    async with open_registry() as registry:
        await registry.add("f", FileOptions(out="/dev/null", in_=str(tmp_path / "fifo")))
        await trio.sleep(0.1)
        before = opened
        os.close(os.open(tmp_path / "fifo", os.O_WRONLY))
        await trio.sleep(0.1)
        assert opened - before <= 2


async def test_a_fifo_that_is_gone_is_the_end_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    async with open_registry() as registry:
        await registry.add("f", FileOptions(out="/dev/null", in_=str(tmp_path / "fifo")))
        writer = os.open(tmp_path / "fifo", os.O_WRONLY)
        os.unlink(tmp_path / "fifo")
        os.close(writer)
        with trio.fail_after(5):
            await until(lambda: not registry["f"].is_open)
