"""WebSocket on sockets: as a layer, as an option of the backend, and with two real peers."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing
import trio_websocket
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server

from tests.certificates import client_credentials, peer_context, server_credentials
from tests.links import Served, check_change, check_contract, serving
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress
from trio_chardev.backends.socket.connection import Connection
from trio_chardev.backends.socket.layer import Layer
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.events import Event
from trio_chardev.protocols.websocket import WebSocketConnection
from trio_chardev.protocols.websocket_handshake import ClientHandshake, ServerHandshake

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
NO_MASK = bytes(4)
HELLO = b"\x82\x85" + NO_MASK + b"hello"
GOING_AWAY = b"\x88\x02\x03\xe9"


@attrs.define
class Linked:
    """A server's layer, and the socket at its other end."""

    layer: Layer
    peer: socket.socket

    async def establish(self) -> None:
        self.peer.send(REQUEST)
        with trio.fail_after(5):
            await self.layer.handshake()
        assert self.peer.recv(1000).startswith(b"HTTP/1.1 101 ")


@pytest.fixture
def linked() -> Iterator[Linked]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    codec = WebSocketConnection(ServerHandshake())
    layer = Layer(Connection(ours, "websocket:"), codec, lambda event: None)
    with theirs, ours:
        yield Linked(layer, theirs)


# ---------------------------------------------------------------- the layer


async def test_the_handshake_waits_for_the_request_and_sends_the_answer(linked: Linked) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(linked.layer.handshake)
        for start in range(0, len(REQUEST), 50):
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            linked.peer.send(REQUEST[start : start + 50])
    assert linked.peer.recv(1000).startswith(b"HTTP/1.1 101 ")


async def test_a_refusal_is_sent_before_the_handshake_raises(linked: Linked) -> None:
    linked.peer.send(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ConnectionAbortedError, match="the method is not GET"):
        await linked.layer.handshake()
    assert linked.peer.recv(1000).startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")


async def test_who_leaves_in_the_handshake_is_no_peer(linked: Linked) -> None:
    linked.peer.send(REQUEST[:50])
    linked.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionAbortedError, match="the peer has left"):
        await linked.layer.handshake()


async def test_pieces_are_as_small_as_asked_for(linked: Linked) -> None:
    await linked.establish()
    linked.peer.send(HELLO)
    assert [linked.layer.receive(1), linked.layer.receive(3)] == [b"h", b"ell"]
    assert linked.layer.has_input()
    assert linked.layer.receive(100) == b"o"
    with pytest.raises(BlockingIOError):
        linked.layer.receive(100)


async def test_what_is_counted_reaches_the_peer_in_whole_frames(linked: Linked) -> None:
    """Also when the kernel takes half of one: then the rest goes before anything else."""
    await linked.establish()
    data = random.Random(1).randbytes(1 << 20)
    counted = 0
    wire = bytearray()
    while counted < len(data):
        with contextlib.suppress(BlockingIOError):
            while counted < len(data):
                counted += linked.layer.send(memoryview(data)[counted : counted + 100_000])
        with contextlib.suppress(BlockingIOError):
            while True:
                wire += linked.peer.recv(1 << 16)
    while linked.layer.unsent:
        linked.layer.flush()
        wire += linked.peer.recv(1 << 20)
    client = established_client()
    assert b"".join(client.receive_data(bytes(wire))) == data


def established_client() -> WebSocketConnection:
    """Of a server that is somewhere else."""
    client, server = (
        WebSocketConnection(ClientHandshake("x")),
        WebSocketConnection(ServerHandshake()),
    )
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    return client


async def test_a_close_comes_behind_the_last_bytes_and_is_answered(linked: Linked) -> None:
    await linked.establish()
    linked.peer.send(HELLO + b"\x88\x82" + NO_MASK + b"\x03\xe8")
    assert linked.layer.receive(100) == b"hello"
    assert linked.layer.receive(100) == b""
    assert linked.peer.recv(100) == b"\x88\x02\x03\xe8"
    with pytest.raises(BrokenPipeError):
        linked.layer.send(memoryview(b"x"))


async def test_who_breaks_the_rules_is_told_and_dropped(linked: Linked) -> None:
    await linked.establish()
    linked.peer.send(HELLO + b"\x82\x05hello")
    assert linked.layer.receive(100) == b"hello"
    with pytest.raises(ConnectionAbortedError, match="unmasked"):
        linked.layer.receive(100)
    assert linked.peer.recv(100)[2:4] == (1002).to_bytes(2, "big")


async def test_closing_says_goodbye_and_then_the_end(linked: Linked) -> None:
    await linked.establish()
    linked.layer.send(memoryview(b"last"))
    linked.layer.close()
    assert linked.peer.recv(100) == b"\x82\x04last" + GOING_AWAY
    assert linked.peer.recv(100) == b""


async def test_nothing_is_sent_after_the_goodbye_but_the_rest_can_be_read(linked: Linked) -> None:
    await linked.establish()
    linked.peer.send(HELLO)
    linked.layer.shut_down()
    with pytest.raises(BrokenPipeError):
        linked.layer.send(memoryview(b"x"))
    assert linked.layer.receive(100) == b"hello"
    assert linked.layer.receive(100) == b""
    assert linked.peer.recv(100) == GOING_AWAY


# ---------------------------------------------------------------- the backend


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), websocket=True)
    async with serving(options) as served:
        yield served


async def answer_to(server: Served, request: bytes) -> bytes:
    """All that comes until the server closes."""
    answer = b""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as client:
        await client.send_all(request)
        with trio.fail_after(5):
            async for data in client:
                answer += data
    return answer


async def test_plain_http_is_answered_and_is_no_peer(server: Served) -> None:
    answer = await answer_to(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
    assert answer.endswith(b"\r\n\r\n")
    answer = await answer_to(server, b"GET / HTTP/1.1\r\nX: " + b"x" * 9000)
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert server.events == []
    assert server.backend.filename == f"disconnected:websocket:127.0.0.1:{server.port},server=on"


def options_at(address: SocketAddress) -> SocketOptions:
    return SocketOptions(addr=address, websocket=True)


async def test_contract(tmp_path: Path) -> None:
    await check_contract(tmp_path, options_at, lambda: WebSocketConnection(ClientHandshake("x")))


async def test_a_change_loses_nothing(tmp_path: Path) -> None:
    await check_change(tmp_path, options_at, lambda: WebSocketConnection(ClientHandshake("x")))


# ---------------------------------------------------------------- trio-websocket


@asynccontextmanager
async def dialled(server: Served) -> AsyncIterator[tuple[trio.Nursery, trio.SocketStream]]:
    """Both are to be wrapped; a stream of its own trio-websocket would leave open."""
    with trio.fail_after(5):
        async with (
            await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
            trio.open_nursery() as nursery,
        ):
            yield nursery, stream
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("subprotocols", [["binary"], ["chat", "binary"], []])
async def test_a_client_of_trio_websocket(server: Served, subprotocols: list[str]) -> None:
    every = bytes(range(256))
    async with dialled(server) as (nursery, stream):
        client = await trio_websocket.wrap_client_stream(
            nursery, stream, "localhost", "/", subprotocols=subprotocols
        )
        assert client.subprotocol == ("binary" if subprotocols else None)
        await client.send_message(every)
        await server.until_received(every)
        await server.send(every)
        assert await client.get_message() == every
        await client.ping(b"payload")
        await client.send_message("Zürich")
        await server.until_received("Zürich".encode())
        await client.aclose()
        assert client.closed is not None
        assert client.closed.code == 1000
    await server.until_event(Event.CLOSED)
    assert server.events == [Event.OPENED, Event.CLOSED]


async def test_trio_websocket_hears_why_it_is_closed(server: Served) -> None:
    async with dialled(server) as (nursery, stream):
        client = await trio_websocket.wrap_client_stream(nursery, stream, "localhost", "/")
        server.backend.peer.disconnect()
        with pytest.raises(trio_websocket.ConnectionClosed):
            await client.get_message()
        assert client.closed is not None
        assert client.closed.code == 1001


@pytest.mark.parametrize(
    ("path", "ws_path", "subprotocol", "status"),
    [("/", None, "chat", 400), ("/console", "/websockify", "binary", 404)],
)
async def test_trio_websocket_is_refused(
    path: str, ws_path: str | None, subprotocol: str, status: int
) -> None:
    rejected = pytest.RaisesExc(
        trio_websocket.ConnectionRejected, check=lambda exc: exc.status_code == status
    )
    address = InetAddress("127.0.0.1", "0")
    options = SocketOptions(addr=address, websocket=True, ws_path=ws_path)
    async with serving(options) as server:
        with pytest.RaisesGroup(rejected):
            async with dialled(server) as (nursery, stream):
                await trio_websocket.wrap_client_stream(
                    nursery, stream, "localhost", path, subprotocols=[subprotocol]
                )


async def test_a_server_of_trio_websocket() -> None:
    """It echoes; our side asks for the sub-protocol and masks what it sends."""

    async def echo(request: trio_websocket.WebSocketRequest) -> None:
        assert request.proposed_subprotocols == ("binary",)
        peer = await request.accept(subprotocol="binary")
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            while True:
                await peer.send_message(await peer.get_message())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            listening: trio_websocket.WebSocketServer = await nursery.start(
                trio_websocket.serve_websocket, echo, "127.0.0.1", 0, None
            )
            layer = await connected(listening.port)
            data = random.Random(1).randbytes(100_000)
            got, todo = b"", memoryview(data)
            while len(got) < len(data):
                with contextlib.suppress(BlockingIOError):
                    todo = todo[layer.send(todo[:10_000]) if todo else 0 :]
                try:
                    got += layer.receive(4096)
                except BlockingIOError:
                    await trio.lowlevel.checkpoint()
            assert got == data
            layer.close()
            nursery.cancel_scope.cancel()


async def connected(port: int) -> Layer:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setblocking(False)
    codec = WebSocketConnection(ClientHandshake("127.0.0.1"))
    layer = Layer(Connection(sock, "websocket:"), codec, lambda event: None)
    await layer.handshake()
    return layer


# ---------------------------------------------------------------- websockets


Talk = tuple[str | None, list[str | bytes], int | None]


def talk(url: str, tls: ssl.SSLContext | None) -> Talk:
    """The sub-protocol, what is echoed, and the code of the close."""
    with websockets.sync.client.connect(
        url, ssl=tls, subprotocols=[websockets.Subprotocol("binary")], proxy=None, open_timeout=5
    ) as client:
        client.send(bytes(range(256)))
        client.send([b"frag", b"men", b"ts"])
        client.send("text ä")
        got = [client.recv(timeout=5)]
        assert client.ping(b"x").wait(5)
        client.send(b"bye")
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            while True:
                got.append(client.recv(timeout=5))
    return client.subprotocol, got, client.close_code


async def talks(server: Served, url: str, tls: ssl.SSLContext | None) -> None:
    """All that `talk` does happens."""
    sent = bytes(range(256)) + b"fragments" + "text ä".encode()
    found: list[Talk] = []

    async def run() -> None:
        found.append(await trio.to_thread.run_sync(talk, url, tls))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await server.until_received(sent)
        await server.send(sent)
        await server.until_received(b"bye")
        server.backend.peer.disconnect()
    assert found == [("binary", [sent], 1001)]
    assert server.received == sent + b"bye"


async def test_a_client_of_websockets(server: Served) -> None:
    await talks(server, f"ws://127.0.0.1:{server.port}/", None)


async def test_a_client_of_websockets_over_tls(tmp_path: Path) -> None:
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), websocket=True, tls_creds="tls")
    credentials = server_credentials(tmp_path, verify_peer=False)
    async with serving(options, tls=credentials) as server:
        await talks(server, f"wss://localhost:{server.port}/", peer_context(server=False))


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_a_server_of_websockets(tmp_path: Path, is_encrypted: bool) -> None:
    """It has a handler that echoes, and closes when it is told to."""
    seen: list[str | None] = []

    def echo(peer: websockets.sync.server.ServerConnection) -> None:
        seen.append(peer.subprotocol)
        for message in peer:
            if message == b"close":
                peer.close(1000, "as you wish")
            else:
                peer.send(message)

    tls = peer_context(server=True) if is_encrypted else None
    subprotocols = [websockets.Subprotocol("binary")]
    with websockets.sync.server.serve(
        echo, "127.0.0.1", 0, ssl=tls, subprotocols=subprotocols
    ) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            port = str(listening.socket.getsockname()[1])
            options = SocketOptions(
                addr=InetAddress("localhost", port, ipv4=True),
                server=False,
                websocket=True,
                tls_creds="tls" if is_encrypted else None,
            )
            with trio.fail_after(5):
                async with serving(options, tls=client_credentials(tmp_path)) as client:
                    assert client.events == [Event.OPENED]
                    await client.send(every := bytes(range(256)) * 300)
                    await client.received_all(every)
                    await client.send(b"close")
                    await client.until_event(Event.CLOSED)
        finally:
            listening.shutdown()
            thread.join()
    assert seen == ["binary"]
