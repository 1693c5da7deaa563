"""A peer that has shut down its side, and waits for what comes back, gets it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.certificates import peer_context, server_credentials
from tests.links import Served, serving, until
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.backends.socket.half_closed import HalfClosedPeer
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions, open_socket
from trio_chardev.backends.socket.unix_connection import UnixConnection
from trio_chardev.backends.table import opener_of
from trio_chardev.core.backend import OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.errors import BackendDisconnectedError, NotSupportedError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.protocols.telnet import telnet_connection
from trio_chardev.testing import CancelAtStep
from trio_chardev.testing.pair import receive_some

OPENED, CLOSED = Event.OPENED, Event.CLOSED
BULK = bytes(range(256)) * 8192  # 2 MiB: more than the kernel holds
RESET = b"\1\0\0\0\0\0\0\0"  # for SO_LINGER


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> SocketAddress:
    if request.param == "tcp":
        return InetAddress("127.0.0.1", "0")
    return UnixAddress(str(tmp_path / "s"))


async def come(served: Served) -> trio.SocketStream:
    at = served.backend.address
    if isinstance(at, InetAddress):
        return await trio.open_tcp_stream("127.0.0.1", int(at.port))
    assert isinstance(at, UnixAddress)
    return await trio.open_unix_socket(at.path)


@asynccontextmanager
async def half_closed(
    address: SocketAddress, linger_ms: int = 60_000
) -> AsyncIterator[tuple[Served, trio.SocketStream]]:
    """A server's client that has sent something and shut down its side."""
    options = SocketOptions(addr=address, linger_ms=linger_ms)
    with trio.fail_after(20):
        async with serving(options) as served, await come(served) as client:
            await client.send_all(b"question")
            await client.send_eof()
            await served.until_event(CLOSED)
            assert served.received == b"question"
            yield served, client


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    got = bytearray()
    while data := await stream.receive_some():
        got += data
    return bytes(got)


async def exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        data = await stream.receive_some(size - len(got))
        assert data
        got += data
    return bytes(got)


# ---------------------------------------------------------------- what it gets


async def test_it_is_sent_to_after_its_end_though_closed_was_told(address: SocketAddress) -> None:
    async with half_closed(address) as (served, client):
        assert served.events == [OPENED, CLOSED]
        assert served.backend.filename.startswith("disconnected:")  # as in QEMU
        assert served.backend.peer.is_lingering
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.send, BULK)
            assert await exactly(client, len(BULK)) == BULK
        assert served.events == [OPENED, CLOSED]


async def test_it_is_let_go_when_it_was_sent_nothing_for_the_linger_time(
    address: SocketAddress,
) -> None:
    async with half_closed(address, linger_ms=50) as (served, client):
        await served.send(b"a")
        assert await all_of(client) == b"a"
        await until(lambda: not served.backend.peer.is_lingering)
        with pytest.raises(BackendDisconnectedError):
            served.backend.send_nowait(memoryview(b"late"))


async def test_what_it_is_sent_prolongs_the_time(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        half_closed = HalfClosedPeer(UnixConnection(ours, "unix:"), 2.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(half_closed.wait_over)
            for _ in range(5):
                await trio.sleep(1.5)
                assert half_closed.send(memoryview(b"x")) == 1
        assert trio.current_time() == 5 * 1.5 + 2.0
        half_closed.link.close()


async def test_without_linger_it_is_closed_at_once(address: SocketAddress) -> None:
    async with half_closed(address, linger_ms=0) as (_, client):
        assert await all_of(client) == b""


async def test_the_next_client_is_served_at_once_and_ends_it(address: SocketAddress) -> None:
    async with half_closed(address) as (served, client):
        await served.send(b"1")
        async with await come(served) as other:
            await until(lambda: served.backend.is_open)
            assert await all_of(client) == b"1"
            await served.send(b"2")
            assert await exactly(other, 1) == b"2"
            assert served.events == [OPENED, CLOSED, OPENED]


async def test_one_who_waits_already_is_served_at_once(address: SocketAddress) -> None:
    with trio.fail_after(20):
        async with (
            serving(SocketOptions(addr=address, linger_ms=60_000)) as served,
            await come(served) as client,
            await come(served) as other,
        ):
            await other.send_all(b"2")
            await client.send_all(b"1")
            await client.send_eof()
            await served.until_received(b"12")
            assert await all_of(client) == b""


# ---------------------------------------------------------------- one that has left altogether


async def test_a_unix_peer_that_has_left_is_not_kept(tmp_path: Path) -> None:
    options = SocketOptions(addr=UnixAddress(str(tmp_path / "s")))
    with trio.fail_after(20):
        async with serving(options) as served:
            client = await come(served)
            await client.send_all(b"x")
            await client.aclose()
            await served.until_event(CLOSED)
            assert not served.backend.peer.is_lingering


async def test_of_a_tcp_peer_that_has_left_one_byte_is_lost() -> None:
    async with half_closed(InetAddress("127.0.0.1", "0")) as (served, client):
        await client.aclose()
        view = memoryview(b"an answer that nobody reads")
        sent = await served.backend.send_some(view)
        assert sent == 1
        with pytest.raises(BackendDisconnectedError):
            await served.backend.send_some(view[sent:])
        assert not served.backend.peer.is_lingering


async def test_a_reset_ends_it(address: SocketAddress) -> None:
    async with half_closed(address) as (served, client):
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await client.aclose()
        await until(lambda: not served.backend.peer.is_lingering)


async def test_a_writer_that_is_stuck_on_it_hears_of_its_end(address: SocketAddress) -> None:
    """Also when another client comes: the rest is not for that one."""
    async with half_closed(address) as (served, client):
        heard = trio.Event()
        await served.send(b"1")
        assert await exactly(client, 1) == b"1"

        async def write() -> None:
            with pytest.raises(BackendDisconnectedError):
                await served.backend.send_some(memoryview(b"rest"))
            heard.set()

        while served.backend.send_nowait(memoryview(BULK)):  # noqa: ASYNC110
            await trio.sleep(0.01)  # the kernel may move it on
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked()
            async with await come(served) as other:
                await heard.wait()
                await served.send(b"hello")
                assert await exactly(other, 5) == b"hello"


async def test_a_disconnect_ends_it(address: SocketAddress) -> None:
    async with half_closed(address) as (served, client):
        served.backend.peer.disconnect()
        assert await all_of(client) == b""


# ---------------------------------------------------------------- our own end


async def test_our_end_is_told_and_the_peer_goes_on(address: SocketAddress) -> None:
    with trio.fail_after(20):
        async with serving(SocketOptions(addr=address)) as served, await come(served) as client:
            await until(lambda: served.backend.is_open)
            await served.send(b"last")
            served.backend.peer.send_eof()
            assert await all_of(client) == b"last"
            with pytest.raises(BackendDisconnectedError):
                served.backend.send_nowait(memoryview(b"x"))
            await client.send_all(b"still here")
            await served.until_received(b"still here")
            assert served.events == [OPENED]
            await client.send_eof()
            await served.until_event(CLOSED)
            assert not served.backend.peer.is_lingering  # both have ended


async def test_both_ends_close_it_at_once(address: SocketAddress) -> None:
    async with half_closed(address) as (served, client):
        await served.send(b"answer")
        served.backend.peer.send_eof()
        assert await all_of(client) == b"answer"
        await until(lambda: not served.backend.peer.is_lingering)


async def test_nobody_can_be_told(address: SocketAddress) -> None:
    async with serving(SocketOptions(addr=address)) as served:
        with pytest.raises(BackendDisconnectedError):
            served.backend.peer.send_eof()


# ---------------------------------------------------------------- protocols


async def test_telnet_ends_with_its_connection() -> None:
    codec = telnet_connection(is_server=False, tn3270=False)
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), telnet=True, linger_ms=60_000)
    with trio.fail_after(20):
        async with serving(options) as served, await come(served) as client:
            await client.send_all(b"question")
            await client.send_eof()
            await served.until_event(CLOSED)
            await served.send(b"answer")
            served.backend.peer.send_eof()
            assert codec.receive_data(await all_of(client)) == [b"answer"]
            await until(lambda: not served.backend.peer.is_lingering)


async def test_a_websocket_ends_both_ways() -> None:
    """See RFC 6455, 7.1.2: a Close is answered, and then it is over."""
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), websocket=True, linger_ms=60_000)
    with trio.fail_after(20):
        async with serving(options) as served:
            at = served.backend.address
            async with serving(SocketOptions(addr=at, server=False, websocket=True)) as client:
                await served.until_event(OPENED)
                with pytest.raises(NotSupportedError):
                    served.backend.peer.send_eof()
                client.backend.peer.disconnect()
                await served.until_event(CLOSED)
                assert not served.backend.peer.is_lingering


@asynccontextmanager
async def by_tls(
    tmp_path: Path, version: ssl.TLSVersion
) -> AsyncIterator[tuple[Served, trio.SocketStream, ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]]:
    """A server and a client with Python's TLS in memory."""
    credentials = server_credentials(tmp_path / "server", verify_peer=False)
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), tls_creds="o", linger_ms=60_000)
    context = peer_context(server=False)
    context.maximum_version = version
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with trio.fail_after(20):
        async with serving(options, o=credentials) as served, await come(served) as client:
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    await client.send_all(outgoing.read())
                    incoming.write(await client.receive_some())
                else:
                    break
            tls.write(b"question")
            await client.send_all(outgoing.read())
            await served.until_received(b"question")
            yield served, client, tls, incoming, outgoing


def say_goodbye(tls: ssl.SSLObject) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        tls.unwrap()


async def test_tls_1_3_ends_one_way(tmp_path: Path) -> None:
    """A close_notify is of one direction (RFC 8446, 6.1)."""
    async with by_tls(tmp_path, ssl.TLSVersion.TLSv1_3) as (served, client, tls, incoming, out):
        say_goodbye(tls)
        await client.send_all(out.read())
        await served.until_event(CLOSED)
        assert served.backend.peer.is_lingering
        await served.send(b"answer")
        served.backend.peer.send_eof()
        incoming.write(await all_of(client))
        incoming.write_eof()
        assert tls.read(1) + tls.read(100) == b"answer"
        await until(lambda: not served.backend.peer.is_lingering)


async def test_our_goodbye_of_tls_1_3_leaves_the_peers_way_open(tmp_path: Path) -> None:
    async with by_tls(tmp_path, ssl.TLSVersion.TLSv1_3) as (served, client, tls, incoming, out):
        await served.send(b"last")
        served.backend.peer.send_eof()
        incoming.write(await all_of(client))
        assert tls.read(100) == b"last"
        assert tls.read(100) == b""
        tls.write(b"still here")
        await client.send_all(out.read())
        await served.until_received(b"still here")
        tls.unwrap()  # the answer to ours
        await client.send_all(out.read())
        await served.until_event(CLOSED)
        assert not served.backend.peer.is_lingering


async def test_tls_1_2_ends_both_ways(tmp_path: Path) -> None:
    """Who gets a close_notify has to close at once (RFC 5246, 7.2.1)."""
    async with by_tls(tmp_path, ssl.TLSVersion.TLSv1_2) as (served, client, tls, _, out):
        with pytest.raises(NotSupportedError):
            served.backend.peer.send_eof()
        say_goodbye(tls)
        await client.send_all(out.read())
        await served.until_event(CLOSED)
        assert not served.backend.peer.is_lingering


async def test_a_tls_peer_that_ends_without_a_goodbye_is_cut_off(tmp_path: Path) -> None:
    async with by_tls(tmp_path, ssl.TLSVersion.TLSv1_3) as (served, client, *_):
        await client.send_eof()
        await served.until_event(CLOSED)
        assert not served.backend.peer.is_lingering


# ---------------------------------------------------------------- the user's end of it


@asynccontextmanager
async def chardev_on(options: SocketOptions) -> AsyncIterator[Chardev]:
    async with trio.open_nursery() as nursery:
        chardev = Chardev("x")
        await nursery.start(chardev.run)
        await chardev.open(opener_of(options))
        yield chardev
        await chardev.aclose()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_telling_our_end_is_cancelled_at_every_step(tmp_path: Path, when: str) -> None:
    """Either the peer has been told, behind all that was sent, or nothing was."""
    path = str(tmp_path / "s")
    for k in range(1, 50):
        with trio.fail_after(20):
            async with chardev_on(SocketOptions(addr=UnixAddress(path))) as chardev:
                user = chardev.attach()
                async with await trio.open_unix_socket(path) as client:
                    await until(lambda: chardev.is_open)
                    await user.send_all(b"text")
                    with trio.CancelScope() as scope:
                        injector = CancelAtStep(k, when, scope)
                        trio.lowlevel.add_instrument(injector)
                        injector.armed = True
                        try:
                            await user.send_eof()
                        finally:
                            trio.lowlevel.remove_instrument(injector)
                    if scope.cancelled_caught:
                        await user.send_all(b"more")
                        await user.send_eof()
                        assert await all_of(client) == b"textmore"
                    else:
                        assert await all_of(client) == b"text"
        if not injector.fired:
            return
    raise AssertionError("it has too many steps")


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_reader_that_is_cancelled_at_every_step_keeps_who_sends_no_more(
    address: SocketAddress, when: str
) -> None:
    for k in range(1, 60):
        with trio.fail_after(20):
            async with (
                serving_by_hand(SocketOptions(addr=address, linger_ms=60_000)) as served,
                await come(served) as client,
            ):
                await client.send_all(b"question")
                await client.send_eof()
                got = bytearray()
                with trio.CancelScope() as scope:
                    injector = CancelAtStep(k, when, scope)
                    trio.lowlevel.add_instrument(injector)
                    injector.armed = True
                    try:
                        with trio.move_on_after(0.01):
                            while True:
                                got += await receive_some(served.backend, 3)
                    finally:
                        trio.lowlevel.remove_instrument(injector)
                while not served.backend.peer.is_lingering:
                    if data := served.backend.receive_nowait(3):
                        got += data
                    elif not served.backend.peer.is_lingering:
                        await served.backend.wait_readable()
                assert got == b"question"
                await served.send(b"answer")
                assert await exactly(client, 6) == b"answer"
        if not injector.fired:
            return
    raise AssertionError("it has too many steps")


@asynccontextmanager
async def serving_by_hand(options: SocketOptions) -> AsyncIterator[Served]:
    """As `serving`, but nobody reads."""
    events: list[BackendEvent] = []
    request = OpenRequest(id="x", on_event=events.append)
    async with open_socket(options, request) as backend:
        assert isinstance(backend, SocketBackend)
        backend.activate()
        yield Served(backend, bytearray(), events)
