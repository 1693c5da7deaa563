"""Socket backends with a protocol, and their peers, for the tests of the protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
import trio.testing

from tests.certificates import client_certificate, peer_context
from tests.places import connect_to
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.backends.socket.codec import RECORD_SIZE, Codec
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions, open_socket
from trio_chardev.backends.table import opener_of
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.environment import Environment
from trio_chardev.core.handlers import stateless
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing import Pair, check_backend
from trio_chardev.testing.pair import receive_some


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until *condition* holds."""
    with trio.fail_after(5):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


# ---------------------------------------------------------------- backends


@attrs.define
class Served:
    """A backend that is read all the time, with what it has received and what happened."""

    backend: SocketBackend
    received: bytearray
    events: list[BackendEvent]
    news: trio.Event = attrs.Factory(trio.Event)
    """Set, and replaced, when something has come."""

    @property
    def port(self) -> int:
        assert isinstance(self.backend.address, InetAddress)
        return int(self.backend.address.port)

    async def until_received(self, data: bytes) -> None:
        await until(lambda: data in self.received)

    async def received_all(self, data: bytes) -> None:
        """Wait, without a deadline, until *data* has come, and no more."""
        while len(self.received) < len(data):
            await self.news.wait()
        assert self.received == data
        self.received.clear()

    async def until_event(self, event: Event) -> None:
        await until(lambda: event in self.events)

    async def send(self, data: bytes) -> None:
        with trio.fail_after(5):
            view = memoryview(data)
            while view:
                view = view[await self.backend.send_some(view) :]


@asynccontextmanager
async def serving(options: SocketOptions, **objects: object) -> AsyncIterator[Served]:
    """Open the backend of *options*, which may name *objects*, in place and read all the time."""
    events: list[BackendEvent] = []
    request = OpenRequest(id="x", on_event=events.append, environment=Environment(objects=objects))
    async with open_socket(options, request) as backend, trio.open_nursery() as nursery:
        assert isinstance(backend, SocketBackend)
        backend.activate()
        served = Served(backend, bytearray(), events)

        async def read() -> None:
            while True:
                served.received += await receive_some(backend, 4096)
                served.news.set()
                served.news = trio.Event()

        nursery.start_soon(read)
        yield served
        nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- peers


class CodecPeer(trio.abc.Stream):
    """A client of a server, which speaks its protocol."""

    def __init__(self, stream: trio.SocketStream, codec: Codec) -> None:
        self._stream = stream
        self._codec = codec
        self._input = bytearray()

    async def begin(self) -> None:
        """Send what comes first."""
        await self._stream.send_all(self._codec.data_to_send())

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        while not self._codec.is_established:
            self._decode(await self._stream.receive_some())
            await self._stream.send_all(self._codec.data_to_send())
        wire = b""
        for start in range(0, len(data), RECORD_SIZE):
            wire += self._codec.encode(bytes(data[start : start + RECORD_SIZE]))
        await self._stream.send_all(wire + self._codec.data_to_send())

    def _decode(self, wire: bytes) -> None:
        items = list(self._codec.receive_data(wire))
        while self._codec.is_behind:
            items += self._codec.decode_more()
        for item in items:
            assert isinstance(item, bytes)
            self._input += item

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        while not self._input:
            wire = b"" if self._codec.end is not None else await self._stream.receive_some()
            if not wire:
                return b""
            self._decode(wire)
        data = bytes(self._input[: max_bytes or 1 << 16])
        del self._input[: len(data)]
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()


MakeOptions = Callable[[SocketAddress], SocketOptions]
MakeCodec = Callable[[], Codec]


async def come_to(backend: Backend, codec: Codec) -> CodecPeer:
    peer = CodecPeer(connect_to(backend), codec)
    await peer.begin()
    return peer


async def come_by_tls(backend: Backend) -> trio.SSLStream[trio.SocketStream]:
    """Connect to a server with `server_credentials`, by a TLS that is not ours."""
    context = peer_context(server=False, certificate=client_certificate())
    peer = trio.SSLStream(
        connect_to(backend), context, server_hostname="localhost", https_compatible=True
    )
    await peer.do_handshake()
    return peer


async def check_contract(folder: Path, make_options: MakeOptions, make_codec: MakeCodec) -> None:
    """Check that a server with these options keeps the backends' contract with that peer."""
    options = make_options(UnixAddress(str(folder / "s")))

    @asynccontextmanager
    async def open_pair() -> AsyncIterator[Pair]:
        yield Pair(
            open=lambda request: open_socket(options, request),
            join=lambda backend: come_to(backend, make_codec()),
        )

    await check_backend(open_pair)


async def check_change(folder: Path, make_options: MakeOptions, make_codec: MakeCodec) -> None:
    """Check a change with a stuck writer: each byte reaches one of the two backends."""
    options = make_options(UnixAddress(str(folder / "s")))
    ring = RingbufOptions(size=1 << 21)
    data = bytes(range(256)) * 4096
    old = bytearray()
    chardev = Chardev("x")
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        await chardev.open(lambda request: open_socket(options, request), timeout=5)
        async with await come_to(chardev.backend, make_codec()) as peer:
            await until(lambda: chardev.is_open)
            frontend = chardev.attach(be_change=stateless)

            async def read() -> None:
                async for piece in peer:
                    old.extend(piece)

            with trio.fail_after(5):
                async with trio.open_nursery() as users:
                    users.start_soon(frontend.send_all, data)
                    await trio.testing.wait_all_tasks_blocked()
                    users.start_soon(read)
                    await chardev.change(opener_of(ring), timeout=5)
        backend = chardev.backend
        assert isinstance(backend, RingbufBackend)
        new = backend.read(backend.count)
        await chardev.aclose()
    assert 0 < len(old) < len(data)
    assert old + new == data
