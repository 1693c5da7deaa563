"""What QEMU's own unit tests check, one test a row of tests/unit/test-char.c and test-yank.c.

Named after the row: ``/char/socket/server/mainloop/tcp`` is
``test_char_socket_server_mainloop[tcp]``. Not here: ``/char/console``, which is about the console
of Windows. Moving to another event context, which some rows do, has no counterpart: Trio has one.

QEMU's "wait-conn" is to wait for the connection (`qemu_chr_wait_connected`) instead of running
the main loop until it comes. Here that is ``wait=on`` for a server; a client is connected when it
is open, or with ``reconnect`` tells when it is.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.disk import wait_written
from tests.samples import KINDS
from trio_chardev import (
    BackendError,
    BackendEvent,
    BackendOptions,
    ChangeFailedError,
    ChardevBusyError,
    ChardevError,
    ChardevExistsError,
    Controls,
    Event,
    FdAddress,
    FileOptions,
    Frontend,
    HubOptions,
    InetAddress,
    MemoryOptions,
    MuxOptions,
    NotSupportedError,
    NullOptions,
    OptionsError,
    ParallelOptions,
    PipeOptions,
    Registry,
    RingbufOptions,
    SerialOptions,
    SocketOptions,
    UdpOptions,
    UnixAddress,
    open_registry,
    stateless,
)
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend
from trio_chardev.backends.socket.addresses import SocketAddress
from trio_chardev.backends.socket.socket import SocketBackend
from trio_chardev.core.handlers import BeChange
from trio_chardev.options.grammar import ChardevGrammar
from trio_chardev.options.legacy import parse_legacy
from trio_chardev.qmp.commands.context import Context, Host, NoArguments
from trio_chardev.qmp.commands.descriptor import query_yank

OPENED, CLOSED, BREAK = Event.OPENED, Event.CLOSED, Event.BREAK
MUX_IN, MUX_OUT = Event.MUX_IN, Event.MUX_OUT
PING, PONG = b"Hello", b"World"


@attrs.define
class User:
    """A frontend that takes all that comes, and remembers it."""

    frontend: Frontend = attrs.field(init=False)
    events: list[BackendEvent] = attrs.Factory(list)
    received: bytearray = attrs.Factory(bytearray)
    _news: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    def on_event(self, event: BackendEvent) -> None:
        self.events.append(event)
        self._news.unpark_all()

    def on_receive(self, data: bytes) -> int:
        self.received += data
        self._news.unpark_all()
        return len(data)

    async def hears(self, *events: Event) -> None:
        """Wait until *events* are all that was told."""
        while self.events != list(events):
            await self._news.park()

    async def hears_now(self, *events: Event) -> None:
        """As `hears`, since the last call."""
        await self.hears(*events)
        self.events.clear()

    async def receives(self, data: bytes) -> None:
        """Wait until *data* is all that has come since the last call."""
        while len(self.received) < len(data):
            await self._news.park()
        assert self.received == data
        self.received.clear()


@asynccontextmanager
async def attached(registry: Registry, be_change: BeChange = stateless) -> AsyncIterator[User]:
    """A user of chardev "x"."""
    user = User()
    user.frontend = registry["x"].attach(
        be_change=be_change, on_event=user.on_event, on_receive=user.on_receive
    )
    async with user.frontend:
        yield user


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    with trio.fail_after(10):
        async with open_registry() as registry:
            yield registry


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> SocketAddress:
    if request.param == "tcp":
        return InetAddress("127.0.0.1", "0")
    return UnixAddress(str(tmp_path / "sock"))


# ---------------------------------------------------------------- simple kinds


async def test_char_null(registry: Registry) -> None:
    await registry.add("x", NullOptions())
    chardev = registry["x"]
    assert registry.get("y") is None
    assert chardev.backend.peer.take_fds() == []
    with pytest.raises(NotSupportedError, match="^'null' can't pass file descriptors$"):
        chardev.backend.peer.send_fds([0])
    assert not chardev.backend.peer.can_disconnect
    async with chardev.attach() as frontend:
        with pytest.raises(ChardevBusyError, match="^Device 'x' is in use$"):
            chardev.attach()
        await frontend.send_all(b"buf")
    async with chardev.attach() as frontend:
        assert await frontend.send_some(b"buf") == 3
        with pytest.raises(NotSupportedError):
            await frontend.line.send_break()


def test_char_invalid() -> None:
    with pytest.raises(OptionsError, match="^'invalid' is not a valid char driver$"):
        parse_legacy(ChardevGrammar(KINDS), "invalid", "x")


async def test_char_ringbuf(registry: Registry) -> None:
    with pytest.raises(OptionsError, match="size of ringbuf chardev must be power of two$"):
        await registry.add("x", RingbufOptions(size=5))
    await registry.add("x", RingbufOptions(size=2))
    async with registry["x"].attach() as frontend:
        await frontend.send_all(b"buff")
    ring = registry["x"].backend
    assert isinstance(ring, RingbufBackend)
    assert ring.read(4) == b"ff"
    assert ring.read(4) == b""
    await registry.add("y", MemoryOptions(size=2))
    assert isinstance(registry["y"].backend, RingbufBackend)


def test_char_stdio() -> None:
    """In a process of its own, which is the row ``/char/stdio/subprocess``."""
    program = (
        "import trio, trio_chardev as tc\n"
        "async def main():\n"
        "    async with tc.open_registry() as registry:\n"
        "        await registry.add('x', tc.StdioOptions())\n"
        "        async with registry['x'].attach() as frontend:\n"
        "            await frontend.send_all(b'buf')\n"
        "trio.run(main)\n"
    )
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert (done.returncode, done.stdout) == (0, b"buf")


async def test_char_pipe(registry: Registry, tmp_path: Path) -> None:
    for half in ("in", "out"):
        os.mkfifo(tmp_path / f"pipe.{half}")
    await registry.add("x", PipeOptions(device=str(tmp_path / "pipe")))
    async with attached(registry) as user:
        await user.frontend.send_all(b"pipe-out")
        fd = os.open(tmp_path / "pipe.out", os.O_RDWR | os.O_NONBLOCK)
        assert os.read(fd, 100) == b"pipe-out"
        os.close(fd)
        fd = os.open(tmp_path / "pipe.in", os.O_RDWR | os.O_NONBLOCK)
        assert os.write(fd, b"pipe-in") == 7
        os.close(fd)
        await user.receives(b"pipe-in")


async def test_char_file(registry: Registry, tmp_path: Path) -> None:
    await registry.add("x", FileOptions(out=str(tmp_path / "out")))
    async with attached(registry) as user:
        await user.frontend.send_all(b"hello!")
        await wait_written(tmp_path / "out", 6)
    assert (tmp_path / "out").read_bytes() == b"hello!"


async def test_char_file_fifo(registry: Registry, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path / "fifo", os.O_RDWR)
    try:
        os.write(fd, b"fifo-in")
        await registry.add("x", FileOptions(out=str(tmp_path / "out"), in_=str(tmp_path / "fifo")))
        async with attached(registry) as user:
            await user.receives(b"fifo-in")
            with pytest.raises(KeyError):
                registry.send_break("unknown")
            assert user.events == [OPENED]
            registry.send_break("x")
            assert user.events == [OPENED, BREAK]
    finally:
        os.close(fd)


async def test_char_udp(registry: Registry) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(5)
        await registry.add("x", udp_to(peer))
        async with attached(registry) as user:
            await check_udp(user, peer)


def udp_to(peer: socket.socket) -> UdpOptions:
    return UdpOptions(remote=InetAddress("127.0.0.1", str(peer.getsockname()[1])))


async def check_udp(user: User, peer: socket.socket) -> None:
    """A datagram out, and one back."""
    await user.frontend.send_all(b"hello")
    data, there = peer.recvfrom(100)
    assert data == b"hello"
    peer.sendto(b"world", there)
    await user.receives(b"world")


async def test_char_serial(registry: Registry) -> None:
    await registry.add("x", SerialOptions(path="/dev/null"))
    assert registry["x"].info.filename == "serial"


async def test_char_parallel(registry: Registry) -> None:
    with pytest.raises(BackendError, match="not a parallel port: Inappropriate ioctl for device$"):
        await registry.add("x", ParallelOptions(device="/dev/null"))
    assert "x" not in registry


async def test_char_mux(registry: Registry, tmp_path: Path) -> None:
    path = str(tmp_path / "base")
    for _ in range(2):  # unused they can be removed, the mux first
        await registry.add("base", SocketOptions(addr=UnixAddress(path)))
        await registry.add("x", MuxOptions(chardev="base"))
        with pytest.raises(ChardevBusyError, match="^Chardev 'base' is busy$"):
            await registry.remove("base")
        async with attached(registry) as one, attached(registry) as two:
            await check_mux(registry, path, one, two)
        await registry.remove("x")
        await registry.remove("base")


async def check_mux(registry: Registry, path: str, one: User, two: User) -> None:
    """The last to come has the focus: it gets the input; events of the base go to both."""
    with pytest.raises(ChardevBusyError, match="^Chardev 'x' is busy$"):
        await registry.remove("x")
    await one.hears_now(MUX_IN, MUX_OUT)
    await two.hears_now(MUX_IN)
    async with await trio.open_unix_socket(path) as peer:
        await one.hears_now(OPENED)
        await two.hears_now(OPENED)
        await peer.send_all(b"hello")
        await two.receives(b"hello")
        registry.send_break("base")
        await one.hears_now(BREAK)
        await two.hears_now(BREAK)
        registry.send_break("x")
        await two.hears_now(BREAK)
        await peer.send_all(b"\x01b")
        await two.hears_now(BREAK)
        assert one.events == []
        assert one.received == b""
        await peer.send_all(b"\x01c")
        await two.hears_now(MUX_OUT)
        await one.hears_now(MUX_IN)
        await peer.send_all(b"hi")
        await one.receives(b"hi")
        assert two.received == b""
        await check_mux_newcomer(registry, one)
        await peer.send_all(b"\x01h")
        assert b"C-a h" in await peer.receive_some()
    await one.hears_now(CLOSED)
    await two.hears_now(CLOSED)
    async with await trio.open_unix_socket(path):
        await one.hears_now(OPENED)
        await two.hears_now(OPENED)
        await two.frontend.aclose()
    await one.hears_now(CLOSED)
    assert two.events == []


async def check_mux_newcomer(registry: Registry, one: User) -> None:
    """Who sets its handlers is told OPENED, who clears them nothing."""
    async with attached(registry) as third:
        await third.hears_now(OPENED, MUX_IN)
        await one.hears_now(MUX_OUT)
    await one.hears_now(MUX_IN)
    assert third.events == []


async def test_char_hub(registry: Registry, tmp_path: Path) -> None:
    """A mux may be a member, and there may be 32, not 4: see differences.md."""
    with pytest.raises(ChardevError, match="hub: 'chardevs' list is not defined$"):
        await registry.add("x", HubOptions(chardevs=()))
    many = [f"null{i}" for i in range(33)]
    for id in many:
        await registry.add(id, NullOptions())
    with pytest.raises(
        ChardevError, match=r"hub: too many uses of chardevs 'x' \(maximum is 32\)$"
    ):
        await registry.add("x", HubOptions(chardevs=tuple(many)))
    async with registry["null0"].attach():
        with pytest.raises(ChardevError, match="Device 'null0' is in use$"):
            await registry.add("x", HubOptions(chardevs=("null1", "null0")))
    for id in ("chr1", "chr2"):
        await registry.add(id, SocketOptions(addr=UnixAddress(str(tmp_path / id))))
    await registry.add("x", HubOptions(chardevs=("chr1", "chr2")))
    async with (
        attached(registry) as user,
        await trio.open_unix_socket(str(tmp_path / "chr1")) as chr1,
        await trio.open_unix_socket(str(tmp_path / "chr2")) as chr2,
    ):
        with pytest.raises(ChardevBusyError, match="^Device 'x' is in use$"):
            registry["x"].attach()
        await chr1.send_all(b"hello")
        await user.receives(b"hello")
        await chr2.send_all(b"world")
        await user.receives(b"world")
        await user.frontend.send_all(b"to both")
        assert [await chr1.receive_some(), await chr2.receive_some()] == [b"to both"] * 2
        for id in ("x", "chr1"):
            with pytest.raises(ChardevBusyError, match=f"^Chardev '{id}' is busy$"):
                await registry.remove(id)
    with pytest.raises(ChardevBusyError, match="^Chardev 'chr1' is busy$"):
        await registry.remove("chr1")
    await registry.remove("x")
    await registry.remove("chr1")


async def test_char_hub_does_not_repeat_what_its_fast_members_have(
    registry: Registry, tmp_path: Path
) -> None:
    """The part of the row with a pipe that is full: one can wait for it, and try again."""
    await registry.add("fast", RingbufOptions(size=1 << 20))
    for half in ("in", "out"):
        os.mkfifo(tmp_path / f"pipe.{half}")
    await registry.add("slow", PipeOptions(device=str(tmp_path / "pipe")))
    await registry.add("x", HubOptions(chardevs=("fast", "slow")))
    written, stream = 0, random.Random(1).randbytes(1 << 18)
    ring = registry["fast"].backend
    assert isinstance(ring, RingbufBackend)
    async with attached(registry) as user:
        while count := user.frontend.try_send(stream[written:][:1000]):
            written += count
        assert 0 < written < len(stream)
        pipe = os.open(tmp_path / "pipe.out", os.O_RDONLY | os.O_NONBLOCK)
        try:
            received = os.read(pipe, 4096)
            await user.frontend.wait_send_all_might_not_block()
            written += await user.frontend.send_some(stream[written:][:1000])
            assert ring.read(1 << 20) == stream[:written]
            while len(received) < written:
                await trio.lowlevel.wait_readable(pipe)
                received += os.read(pipe, written)
        finally:
            os.close(pipe)
        assert received == stream[:written]


async def test_char_hotswap(registry: Registry, tmp_path: Path) -> None:
    """A change that is denied keeps the UDP backend at work; one that is not replaces it."""
    denies = True

    async def be_change(backend: Controls) -> None:
        if denies and backend.filename == "file":
            raise BackendError("denied")
        await trio.lowlevel.checkpoint()

    file = FileOptions(out=str(tmp_path / "out"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(5)
        await registry.add("x", udp_to(peer))
        async with attached(registry, be_change) as user:
            await check_udp(user, peer)
            with pytest.raises(ChangeFailedError, match="^Chardev 'x' change failed: denied$"):
                await registry.change("x", file)
            assert registry["x"].frontends == [user.frontend]
            await check_udp(user, peer)
            denies = False
            await registry.change("x", file)
            assert registry["x"].frontends == [user.frontend]
            await user.frontend.send_all(b"hello!")
            await wait_written(tmp_path / "out", 6)
    assert (tmp_path / "out").read_bytes() == b"hello!"


# ---------------------------------------------------------------- socket servers


def dial(address: SocketAddress) -> socket.socket:
    """A client at *address*, which may wait in the queue."""
    client = socket.socket(socket.AF_INET if isinstance(address, InetAddress) else socket.AF_UNIX)
    client.settimeout(5)
    if isinstance(address, InetAddress):
        client.connect((address.host, int(address.port)))
    else:
        assert isinstance(address, UnixAddress)
        client.connect(address.path)
    return client


def listen_at(address: SocketAddress) -> socket.socket:
    """A server at *address*, as somebody else would start it."""
    server = socket.socket(socket.AF_INET if isinstance(address, InetAddress) else socket.AF_UNIX)
    server.settimeout(5)
    if isinstance(address, InetAddress):
        server.bind((address.host, int(address.port)))
    else:
        assert isinstance(address, UnixAddress)
        server.bind(address.path)
    server.listen()
    return server


def address_of_socket(sock: socket.socket) -> SocketAddress:
    name = sock.getsockname()
    return UnixAddress(name) if isinstance(name, str) else InetAddress(name[0], str(name[1]))


def is_connected(registry: Registry) -> bool:
    """QEMU's property "connected"."""
    return not registry["x"].info.filename.startswith("disconnected:")


async def check_ping_pong(user: User, peer: socket.socket) -> None:
    await user.frontend.send_all(PING)
    assert peer.recv(100) == PING
    peer.sendall(PONG)
    await user.receives(PONG)


async def check_server(registry: Registry, first: socket.socket | None = None) -> None:
    """Ping, pong, leaving, and the same with a second client; *first* may be there already."""
    backend = registry["x"].backend
    assert isinstance(backend, SocketBackend)
    assert is_connected(registry) == (first is not None)
    async with attached(registry) as user:
        assert user.events == ([] if first is None else [OPENED])
        with first or dial(backend.address) as client:
            await user.hears(OPENED)
            assert is_connected(registry)
            await check_ping_pong(user, client)
        await user.hears(OPENED, CLOSED)
        assert not is_connected(registry)
        with dial(backend.address) as client:
            await user.hears(OPENED, CLOSED, OPENED)
            await check_ping_pong(user, client)
        await user.hears(OPENED, CLOSED, OPENED, CLOSED)


async def client_of_waiting(
    registry: Registry, options: SocketOptions, address: SocketAddress
) -> socket.socket:
    """Add a server that waits, and come to *address*, where it is."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.add, "x", attrs.evolve(options, wait=True))
        await wait_all_tasks_blocked(0.01)
        assert "x" not in registry
        client = dial(address)
    return client


def passed(sock: socket.socket) -> FdAddress:
    """*sock*, as a descriptor that is passed in."""
    return FdAddress(str(sock.detach()))


async def test_char_socket_server_mainloop(registry: Registry, address: SocketAddress) -> None:
    await registry.add("x", SocketOptions(addr=address))
    await check_server(registry)


async def test_char_socket_server_wait_conn(registry: Registry, address: SocketAddress) -> None:
    address = free(address)
    client = await client_of_waiting(registry, SocketOptions(addr=address), address)
    await check_server(registry, client)


async def test_char_socket_server_mainloop_fdpass(
    registry: Registry, address: SocketAddress
) -> None:
    await registry.add("x", SocketOptions(addr=passed(listen_at(address))))
    await check_server(registry)


async def test_char_socket_server_wait_conn_fdpass(
    registry: Registry, address: SocketAddress
) -> None:
    server = listen_at(address)
    address = address_of_socket(server)
    options = SocketOptions(addr=passed(server))
    await check_server(registry, await client_of_waiting(registry, options, address))


async def test_char_socket_server_two_clients(registry: Registry, address: SocketAddress) -> None:
    await registry.add("x", SocketOptions(addr=address))
    backend = registry["x"].backend
    assert isinstance(backend, SocketBackend)
    async with attached(registry) as user:
        with dial(backend.address) as first, dial(backend.address) as second:
            await user.hears(OPENED)
            second.sendall(b"waits")
            await check_ping_pong(user, first)
            assert user.events == [OPENED]
            first.close()
            await user.receives(b"waits")
            assert user.events == [OPENED, CLOSED, OPENED]
            await check_ping_pong(user, second)


# ---------------------------------------------------------------- socket clients


async def check_client(registry: Registry, server: socket.socket) -> None:
    """It is connected: ping, pong, and the server leaves."""
    async with attached(registry) as user:
        assert is_connected(registry)
        assert user.events == [OPENED]
        with server.accept()[0] as peer:
            await check_ping_pong(user, peer)
        await user.hears(OPENED, CLOSED)
        assert not is_connected(registry)


async def test_char_socket_client_mainloop(registry: Registry, address: SocketAddress) -> None:
    with listen_at(address) as server:
        options = SocketOptions(addr=address_of_socket(server), server=False)
        await registry.add("x", options)
        await check_client(registry, server)


async def test_char_socket_client_mainloop_fdpass(
    registry: Registry, address: SocketAddress
) -> None:
    with listen_at(address) as server:
        connected = passed(dial(address_of_socket(server)))
        await registry.add("x", SocketOptions(addr=connected, server=False))
        await check_client(registry, server)


async def test_char_socket_client_mainloop_reconnect(
    registry: Registry, address: SocketAddress
) -> None:
    """Also ``wait-conn-reconnect``: what there is to wait for is OPENED."""
    with listen_at(address) as server:
        at = address_of_socket(server)
        await registry.add("x", SocketOptions(addr=at, server=False, reconnect_ms=5))
        async with attached(registry) as user:
            await user.hears(OPENED)
            with server.accept()[0] as peer:
                await check_ping_pong(user, peer)
            await user.hears(OPENED, CLOSED, OPENED)
            with server.accept()[0] as peer:
                await check_ping_pong(user, peer)


async def test_char_socket_client_reconnect_error(
    registry: Registry, address: SocketAddress
) -> None:
    """A user that drops the first connection while it is told of it gets another."""
    with listen_at(address) as server:
        at = address_of_socket(server)
        await registry.add("x", SocketOptions(addr=at, server=False, reconnect_ms=5))
        chardev = registry["x"]
        told: list[BackendEvent] = []
        again = trio.Event()

        def on_event(event: BackendEvent) -> None:
            told.append(event)
            assert isinstance(chardev.backend, SocketBackend)
            if told == [OPENED]:
                chardev.backend.peer.disconnect()
            if told == [OPENED, CLOSED, OPENED]:
                again.set()

        async with chardev.attach(on_event=on_event) as frontend:
            await again.wait()
            with server.accept()[0] as dropped, server.accept()[0] as peer:
                assert dropped.recv(100) == b""
                await frontend.send_all(PING)
                assert peer.recv(100) == PING


async def test_char_socket_client_dupid_reconnect(
    registry: Registry, address: SocketAddress
) -> None:
    """Nobody listens there, so it is trying all the time."""
    address = free(address)
    options = SocketOptions(addr=address, server=False, reconnect_ms=1)
    await registry.add("x", options)
    await wait_all_tasks_blocked()
    with pytest.raises(ChardevExistsError, match="^Chardev with id 'x' already exists$"):
        await registry.add("x", options)
    assert not is_connected(registry)
    with listen_at(address):
        async with attached(registry) as user:
            await user.hears(OPENED)


def free(address: SocketAddress) -> SocketAddress:
    """Where nobody listens: of TCP a port of a loopback address that hardly anybody uses."""
    if not isinstance(address, InetAddress):
        return address
    host = ".".join(["127", *(str(random.randrange(1, 255)) for _ in range(3))])
    with socket.create_server((host, 0)) as sock:
        return address_of_socket(sock)


# ---------------------------------------------------------------- websocket


async def test_char_websocket(registry: Registry) -> None:
    """Its bytes, but for the name of the server and the date, which QEMU's answer has."""
    await registry.add("x", SocketOptions(addr=InetAddress("127.0.0.1", "0"), websocket=True))
    backend = registry["x"].backend
    assert isinstance(backend, SocketBackend)
    async with attached(registry) as user:
        with dial(backend.address) as client:
            client.sendall(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Key: 7wyp7mq9NuqScLpsBJTCGQ==\r\n"
                b"Sec-WebSocket-Protocol: binary\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            await user.hears(OPENED)
            status, *headers = client.recv(1000).split(b"\r\n")
            assert status == b"HTTP/1.1 101 Switching Protocols"
            assert [*map(bytes.lower, headers)] == [
                b"upgrade: websocket",
                b"connection: upgrade",
                b"sec-websocket-accept: " + accept_of("7wyp7mq9NuqScLpsBJTCGQ==").lower(),
                b"sec-websocket-protocol: binary",
                b"",
                b"",
            ]
            await user.frontend.send_all(PING)
            assert client.recv(100) == b"\x82\x05" + PING
            client.sendall(masked(0x82, PONG))
            await user.receives(PONG)
            client.sendall(masked(0x89, b"are you there"))
            await trio.lowlevel.wait_readable(client)
            assert client.recv(100) == b"\x8a\x0dare you there"
            client.sendall(masked(0x88, b"\x03\xe8bye"))
            await user.hears(OPENED, CLOSED)
            close = client.recv(100)
            assert (close[0], close[2:4]) == (0x88, b"\x03\xe8")
            assert client.recv(100) == b""


def masked(first: int, payload: bytes) -> bytes:
    """A client's frame."""
    mask = b"STOP"
    scrambled = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes([first, 0x80 | len(payload)]) + mask + scrambled


def accept_of(key: str) -> bytes:
    """RFC 6455, 4.2.2."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return base64.b64encode(digest)


# ---------------------------------------------------------------- test-yank


@pytest.mark.parametrize("row", ["to_yank", "yank_to_yank", "from_yank"])
@pytest.mark.parametrize("success", [True, False], ids=["success", "fail"])
async def test_yank_char_change(
    registry: Registry, tmp_path: Path, success: bool, row: str
) -> None:
    """A chardev is listed exactly while its backend is a socket, also after a failed change."""

    async def refuse(backend: Controls) -> None:
        await trio.lowlevel.checkpoint()
        raise BackendError("denied")

    def options(is_socket: bool, name: str) -> BackendOptions:
        return SocketOptions(addr=UnixAddress(str(tmp_path / name))) if is_socket else NullOptions()

    def yankable() -> bool:
        rows = query_yank(Context(Host(registry, lambda reason: None)), NoArguments())
        assert rows in ([], [{"type": "chardev", "id": "x"}])
        return rows != []

    before, after = row != "to_yank", row != "from_yank"
    await registry.add("x", options(before, "old"))
    assert yankable() == before
    async with registry["x"].attach(be_change=stateless if success else refuse):
        if success:
            await registry.change("x", options(after, "new"))
        else:
            with pytest.raises(ChangeFailedError, match="^Chardev 'x' change failed: denied$"):
                await registry.change("x", options(after, "new"))
        assert yankable() == (after if success else before)
    await registry.remove("x")
    assert not yankable()
