"""One console that is moved among WebSocket, TCP and UNIX sockets, servers and clients, under load.

Its user never stops writing, nor do the peers; all read slowly. trio-websocket is the WebSocket
peer: it drops what it has not read when its own writing fails, as browsers do, so the closing
handshake must come first.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from itertools import combinations, takewhile
from pathlib import Path

import attrs
import pytest
import trio
import trio_websocket

from tests.matrix import BREATH, SLOW_SIZE, eventually
from tests.places import connect_to, socket_stream
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.core.backend import Backend
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import BackendDisconnectedError
from trio_chardev.registry import open_registry

PATIENCE = 20  # seconds
PIECE = 1000  # bytes
WINDOW = 10_000  # bytes under way to the peers
ENOUGH = 3_000  # bytes each way between two changes
OUTPUT = b"".join(b"%07d\n" % i for i in range(1_000_000))


def input_of(number: int) -> bytes:
    """What a peer sends; no byte of it is in what the next one sends."""
    letters = (b"abcdefghij", b"klmnopqrst", b"ABCDEFGHIJ")[number % 3]
    return OUTPUT[:400_000].translate(bytes.maketrans(b"0123456789", letters), b"\n")


class WebSocketStream(trio.abc.Stream):
    """A connection of trio-websocket's."""

    def __init__(
        self, connection: trio_websocket.WebSocketConnection, stream: trio.SocketStream
    ) -> None:
        self._connection = connection
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._connection.send_message(bytes(data))
        except trio_websocket.ConnectionClosed as exc:
            raise trio.BrokenResourceError from exc

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed:
            return b""
        assert isinstance(message, bytes)
        return message

    async def aclose(self) -> None:
        """Nothing is said: here it is the console that ends it."""
        await self._stream.aclose()


@attrs.frozen
class Stop:
    """What the console is moved to."""

    options: SocketOptions
    join: Callable[[Backend], Awaitable[trio.abc.Stream]]


async def speak_websocket(stream: trio.SocketStream, nursery: trio.Nursery) -> trio.abc.Stream:
    """Be the server of a WebSocket."""
    request = await trio_websocket.wrap_server_stream(nursery, stream)
    return WebSocketStream(await request.accept(subprotocol="binary"), stream)


def server(kind: str, folder: Path, nursery: trio.Nursery) -> Stop:
    """The console listens."""
    address = InetAddress("127.0.0.1", "0") if kind != "unix" else UnixAddress(str(folder / "s"))

    async def join(backend: Backend) -> trio.abc.Stream:
        stream = connect_to(backend)
        if kind != "websocket":
            return stream
        connection = await trio_websocket.wrap_client_stream(nursery, stream, "x", "/")
        return WebSocketStream(connection, stream)

    return Stop(SocketOptions(addr=address, websocket=kind == "websocket"), join)


def client(kind: str, folder: Path, nursery: trio.Nursery) -> Stop:
    """The console connects, to somebody who is there for one connection."""
    listener = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    address: SocketAddress
    if kind == "unix":
        path = folder / "client"
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        address = UnixAddress(str(path))
    else:
        listener.bind(("127.0.0.1", 0))
        address = InetAddress("127.0.0.1", str(listener.getsockname()[1]))
    listener.listen()
    listener.setblocking(False)
    to_join, joined = trio.open_memory_channel[trio.abc.Stream](1)

    async def serve() -> None:  # the change waits for the handshake
        with listener:
            await trio.lowlevel.wait_readable(listener)
            stream: trio.abc.Stream = socket_stream(listener.accept()[0])
        if kind == "websocket":
            assert isinstance(stream, trio.SocketStream)
            stream = await speak_websocket(stream, nursery)
        await to_join.send(stream)

    async def join(_: Backend) -> trio.abc.Stream:
        return await joined.receive()

    nursery.start_soon(serve)
    return Stop(SocketOptions(addr=address, server=False, websocket=kind == "websocket"), join)


KINDS = [(make, kind) for kind in ("websocket", "tcp", "unix") for make in (server, client)]
TOUR = [i for pair in combinations(range(len(KINDS)), 2) for i in pair]
"""From each kind to each other."""


@attrs.define
class Peer:
    """Who is at the other end of one backend."""

    stream: trio.abc.Stream
    input: bytes
    got: bytearray = attrs.Factory(bytearray)
    sent: int = 0
    left: trio.Event = attrs.Factory(trio.Event)

    async def write(self) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := self.input[self.sent : self.sent + PIECE]:
                await self.stream.send_all(piece)
                self.sent += len(piece)
                await trio.sleep(BREATH)

    async def read(self) -> None:
        try:
            while data := await self.stream.receive_some(SLOW_SIZE):
                self.got += data
                await trio.sleep(BREATH * len(data) / PIECE)
        except trio.BrokenResourceError:  # by a reset, behind the last byte
            pass
        finally:
            self.left.set()
            await trio.aclose_forcefully(self.stream)  # noqa: ASYNC102 - it does not wait


@attrs.define
class Console:
    """What its user has written and read."""

    frontend: Frontend
    peers: list[Peer] = attrs.Factory(list)
    got: bytearray = attrs.Factory(bytearray)
    sent: int = 0
    is_over: bool = False
    has_ended: trio.Event = attrs.Factory(trio.Event)

    @property
    def come(self) -> int:
        return sum(len(peer.got) for peer in self.peers)

    async def write(self) -> None:
        while not self.is_over:
            await eventually(lambda: self.sent - self.come < WINDOW or self.is_over)
            rest = memoryview(OUTPUT)[self.sent :][:PIECE]
            assert rest, "the stream is too short"
            while rest:
                try:
                    count = await self.frontend.send_some(rest)
                except BackendDisconnectedError:
                    await trio.sleep(BREATH)
                    continue
                self.sent += count
                rest = rest[count:]
        self.has_ended.set()

    async def read(self) -> None:
        while True:
            self.got += await self.frontend.receive_some(PIECE)
            await trio.sleep(BREATH)

    def check_output(self) -> None:
        assert b"".join(peer.got for peer in self.peers) == OUTPUT[: self.sent]

    def check_input(self) -> None:
        """Of each peer the first part, in their order."""
        at = 0
        for peer in self.peers:
            rest = zip(self.got[at:], peer.input, strict=False)
            count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], rest))
            assert count
            at += count
        assert at == len(self.got)


@pytest.mark.parametrize("layer", ["none", "mux"])
async def test_each_byte_comes_once_and_in_order(layer: str, tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        async with open_registry() as registry, trio.open_nursery() as nursery:
            make, kind = KINDS[TOUR[0]]
            stop = make(kind, tmp_path, nursery)
            await registry.add("c", stop.options)
            if layer == "mux":
                await registry.add("m", MuxOptions(chardev="c"))
            frontend = registry["m" if layer == "mux" else "c"].attach(be_change=stateless)
            console = Console(frontend)
            nursery.start_soon(console.write)
            nursery.start_soon(console.read)
            for number, index in enumerate([*TOUR[1:], None]):
                peer = Peer(await stop.join(registry["c"].backend), input_of(number))
                console.peers.append(peer)
                nursery.start_soon(peer.write)
                nursery.start_soon(peer.read)
                came, read = console.come, len(console.got)
                await eventually(lambda: console.come >= came + ENOUGH)  # noqa: B023
                await eventually(lambda: len(console.got) >= read + 2 * ENOUGH)  # noqa: B023
                if index is None:
                    break
                make, kind = KINDS[index]
                stop = make(kind, tmp_path, nursery)
                await registry.change("c", stop.options, drain_timeout=5)
                await peer.left.wait()
            console.is_over = True
            await console.has_ended.wait()
            await eventually(lambda: console.come >= console.sent)
            console.check_output()
            console.check_input()
            nursery.cancel_scope.cancel()
