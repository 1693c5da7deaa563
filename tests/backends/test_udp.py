"""The UDP backend: datagrams, ICMP errors, addresses, changes."""

from __future__ import annotations

import logging
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio
import trio.testing

from tests.peers import need
from trio_chardev.backends import udp
from trio_chardev.backends.socket.addresses import (
    FdAddress,
    InetAddress,
    SocketAddress,
    UnixAddress,
)
from trio_chardev.backends.udp import MAX_DATAGRAM, UdpBackend, UdpOptions, open_udp
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError, ChardevError, OptionsError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing.pair import receive_some


@asynccontextmanager
async def opened(options: UdpOptions, *, replaces: Backend | None = None) -> AsyncIterator[Backend]:
    events: list[BackendEvent] = []
    request = OpenRequest(id="x", on_event=events.append, replaces=replaces)
    async with open_udp(options, request) as backend:
        assert events == [Event.OPENED]
        backend.activate()
        yield backend


@contextmanager
def peer_socket(port: int = 0) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", port))
        sock.settimeout(5)
        yield sock


def at(sock: socket.socket) -> InetAddress:
    host, port = sock.getsockname()
    return InetAddress(host, str(port))


def local_of(backend: Backend) -> tuple[str, int]:
    assert isinstance(backend, UdpBackend)
    name: tuple[str, int] = backend._sock.getsockname()
    return name


def unused_port() -> int:
    with peer_socket() as sock:
        port: int = sock.getsockname()[1]
        return port


async def receive(backend: Backend, room: int = 1 << 16) -> bytes:
    with trio.fail_after(5):
        return await receive_some(backend, room)


async def test_each_write_is_one_datagram_and_each_datagram_is_input() -> None:
    with peer_socket() as peer:
        async with opened(UdpOptions(remote=at(peer))) as backend:
            assert backend.filename == "udp"
            assert backend.is_open
            assert backend.receive_nowait(10) == b""
            for text in (b"one", b"two"):
                assert await backend.send_some(memoryview(text)) == 3
            assert [peer.recv(100), peer.recv(100)] == [b"one", b"two"]
            for text in (b"three", b"", b"four"):
                peer.sendto(text, local_of(backend))
            assert await receive(backend) == b"three"
            assert await receive(backend) == b"four"
            with trio.move_on_after(0.01) as scope:
                await receive_some(backend, 10)
            assert scope.cancelled_caught


async def test_a_datagram_larger_than_the_room_keeps_its_tail() -> None:
    with peer_socket() as peer:
        async with opened(UdpOptions(remote=at(peer))) as backend:
            peer.sendto(b"0123456789", local_of(backend))
            peer.sendto(b"next", local_of(backend))
            assert await receive(backend, 4) == b"0123"
            with trio.fail_after(5):
                await backend.wait_readable()
            assert backend.receive_nowait(3) == b"456"
            assert await receive(backend, 100) == b"789"
            assert await receive(backend, 100) == b"next"
            peer.sendto(bytes(MAX_DATAGRAM), local_of(backend))
            assert len(await receive(backend)) == MAX_DATAGRAM


async def test_a_write_larger_than_a_datagram_becomes_several() -> None:
    with peer_socket() as peer:
        async with opened(UdpOptions(remote=at(peer))) as backend:
            data = memoryview(bytes(MAX_DATAGRAM + 10))
            with trio.fail_after(5):
                await backend.wait_writable()
            assert backend.send_nowait(data) == MAX_DATAGRAM
            assert backend.send_nowait(data[MAX_DATAGRAM:]) == 10
            assert len(peer.recv(1 << 16)) == MAX_DATAGRAM
            assert len(peer.recv(1 << 16)) == 10


async def test_datagrams_of_others_are_not_input() -> None:
    with peer_socket() as peer, peer_socket() as other:
        async with opened(UdpOptions(remote=at(peer))) as backend:
            other.sendto(b"other", local_of(backend))
            peer.sendto(b"peer", local_of(backend))
            assert await receive(backend) == b"peer"


async def test_an_unreachable_port_loses_datagrams_and_nothing_else() -> None:
    """An ICMP error makes QEMU deaf."""
    port = unused_port()
    async with opened(UdpOptions(remote=InetAddress("127.0.0.1", str(port)))) as backend:
        for _ in range(3):
            assert backend.send_nowait(memoryview(b"lost")) == 4
        assert backend.receive_nowait(10) == b""
        with peer_socket(port) as peer:
            assert backend.send_nowait(memoryview(b"hello")) == 5
            assert peer.recv(10) == b"hello"
            peer.sendto(b"there", local_of(backend))
            assert await receive(backend) == b"there"
        assert backend.is_open


async def test_what_the_system_refuses_to_send_is_lost_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(udp, "MAX_DATAGRAM", 70_000)
    caplog.set_level(logging.WARNING)
    with peer_socket() as peer:
        async with opened(UdpOptions(remote=at(peer))) as backend:
            for _ in range(2):
                assert backend.send_nowait(memoryview(bytes(70_000))) == 70_000
            assert backend.send_nowait(memoryview(b"fits")) == 4
            assert peer.recv(10) == b"fits"
    assert [record.message for record in caplog.records] == [
        "chardev 'x': datagrams get lost: [Errno 90] Message too long"
    ]


async def test_a_waiting_writer_hears_of_the_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback never makes a writer wait, so the wait is a fake."""

    async def wait_writable(_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise trio.ClosedResourceError

    with peer_socket() as peer:
        async with opened(UdpOptions(remote=at(peer))) as backend:
            monkeypatch.setattr("trio.lowlevel.wait_writable", wait_writable)
            with pytest.raises(BackendError, match="The socket was closed"):
                await backend.wait_writable()


async def test_an_empty_host_is_localhost() -> None:
    with peer_socket() as peer:
        address = InetAddress("", at(peer).port)
        async with opened(UdpOptions(remote=address)) as backend:
            backend.send_nowait(memoryview(b"x"))
            assert peer.recv(10) == b"x"


async def test_local_is_where_it_receives() -> None:
    port = unused_port()
    for host in ("127.0.0.1", ""):
        with peer_socket() as peer:
            options = UdpOptions(remote=at(peer), local=InetAddress(host, str(port)))
            async with opened(options) as backend:
                peer.sendto(b"x", ("127.0.0.1", port))
                assert await receive(backend) == b"x"


LOCAL = InetAddress("127.0.0.1", "")


@pytest.mark.parametrize(
    ("remote", "local", "error"),
    [
        (UnixAddress("/tmp/x"), None, "socket type unsupported for datagram"),
        (FdAddress("3"), None, "socket type unsupported for datagram"),
        (InetAddress("127.0.0.1", "9"), UnixAddress("x"), "socket type unsupported for datagram"),
        (LOCAL, None, "remote port not specified"),
        (
            InetAddress("127.0.0.1", "70000"),
            None,
            "address resolution failed for 127.0.0.1:70000: a port is at most 65535",
        ),
        (
            InetAddress("127.0.0.1", "9"),
            InetAddress("::1", "9"),
            "address resolution failed for ::1:9: Address family for hostname not supported",
        ),
        (
            InetAddress("127.0.0.1", "9", ipv4=False, ipv6=False),
            None,
            "Cannot disable IPv4 and IPv6 at same time",
        ),
        (
            InetAddress("127.0.0.1", "9"),
            InetAddress("192.0.2.1", "9"),
            "Failed to bind socket: Cannot assign requested address",
        ),
        (
            InetAddress("255.255.255.255", "9"),
            None,
            "Failed to connect to '255.255.255.255:9': Permission denied",
        ),
    ],
)
async def test_what_can_not_be_opened_is_refused_in_qemus_words(
    remote: SocketAddress, local: SocketAddress | None, error: str
) -> None:
    with pytest.raises(ChardevError) as caught:
        async with opened(UdpOptions(remote=remote, local=local)):
            pass
    assert str(caught.value) == error


async def test_change_to_the_same_addresses_shares_the_queue() -> None:
    """So a change that fails has taken nothing away."""
    with peer_socket() as peer:
        options = UdpOptions(remote=at(peer), local=InetAddress("127.0.0.1", str(unused_port())))
        async with opened(options) as old:
            peer.sendto(b"first", local_of(old))
            async with opened(options, replaces=old):
                pass
            assert await receive(old) == b"first"
            async with opened(options, replaces=old) as new:
                peer.sendto(b"second", local_of(new))
                assert await receive(new) == b"second"


async def test_change_to_another_peer_can_keep_the_local_port() -> None:
    port = InetAddress("127.0.0.1", str(unused_port()))
    with peer_socket() as first, peer_socket() as second:
        async with (
            opened(UdpOptions(remote=at(first), local=port)) as old,
            opened(UdpOptions(remote=at(second), local=port), replaces=old) as new,
        ):
            first.sendto(b"1", ("127.0.0.1", int(port.port)))
            second.sendto(b"2", ("127.0.0.1", int(port.port)))
            assert await receive(old) == b"1"
            assert await receive(new) == b"2"


async def test_socat_is_a_peer() -> None:
    port = unused_port()
    argv = [need("socat"), f"UDP4-LISTEN:{port},bind=127.0.0.1", "EXEC:cat"]
    process = await trio.lowlevel.open_process(argv, stdin=subprocess.DEVNULL)
    try:
        options = UdpOptions(remote=InetAddress("127.0.0.1", str(port)))
        async with opened(options) as backend:
            with trio.fail_after(5):
                while True:  # lost until socat listens
                    backend.send_nowait(memoryview(b"ping"))
                    with trio.move_on_after(0.02):
                        answer = await receive_some(backend, 100)
                        assert answer.startswith(b"ping")  # cat may join two
                        break
    finally:
        process.kill()
        with trio.fail_after(5, shield=True):
            await process.wait()


# ---------------------------------------------------------------- empty datagrams


class Flood:
    """In place of a socket: datagrams without end, all of them empty."""

    calls = 0

    def recv(self, size: int) -> bytes:
        self.calls += 1
        return b""


async def test_empty_datagrams_without_end_leave_others_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with peer_socket() as peer:
        async with opened(UdpOptions(remote=at(peer))) as backend:
            flood = Flood()
            with monkeypatch.context() as patch:
                patch.setattr(backend, "_sock", flood)
                assert backend.receive_nowait(100) == b""
            assert flood.calls == udp.DATAGRAMS_AT_ONCE


async def test_what_is_behind_as_many_empty_datagrams_as_a_queue_holds_is_found() -> None:
    """As the drain of a change has to: it takes nothing for the end."""
    with peer_socket() as peer:
        async with opened(UdpOptions(remote=at(peer))) as backend:
            assert isinstance(backend, UdpBackend)
            backend._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 212_992 // 2)
            for _ in range(200):
                peer.sendto(b"", local_of(backend))
            peer.sendto(b"behind", local_of(backend))
            await trio.lowlevel.wait_readable(backend._sock)
            assert backend.receive_nowait(100) == b"behind"


# ---------------------------------------------------------------- no port


@pytest.mark.parametrize("port", ["0", "00"])
async def test_without_any_port_nobody_could_send_or_be_sent_to(port: str) -> None:
    with pytest.raises(OptionsError, match="^remote port 0 needs a local port"):
        async with opened(UdpOptions(remote=InetAddress("127.0.0.1", port))):
            pass


async def test_with_a_local_port_all_ports_of_the_remote_host_are_heard() -> None:
    """As in QEMU; there is nobody to answer."""
    local = InetAddress("127.0.0.1", str(unused_port()))
    options = UdpOptions(remote=InetAddress("127.0.0.1", "0"), local=local)
    async with opened(options) as backend:
        with peer_socket() as one, peer_socket() as other:
            for peer in (one, other):
                peer.sendto(b"x", local_of(backend))
                assert await receive(backend) == b"x"
