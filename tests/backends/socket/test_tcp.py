"""What the kernel is told and knows of a TCP connection."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.links import until
from trio_chardev.backends.socket import tcp

BULK = bytes(1 << 22)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as ours,
        server.accept()[0] as theirs,
    ):
        ours.setblocking(False)
        yield ours, theirs


@pytest.mark.parametrize("is_on", [True, False])
def test_options_are_set_and_unset(ends: tuple[socket.socket, socket.socket], is_on: bool) -> None:
    ours, _ = ends
    tcp.set_tcp_options(ours, nodelay=not is_on, keep_alive=not is_on)
    tcp.set_tcp_options(ours, nodelay=is_on, keep_alive=is_on)
    assert bool(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is is_on
    assert bool(ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is is_on


def test_a_probe_asks_a_peer_that_sends_no_more_soon(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, _ = ends
    tcp.probe(ours)
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == tcp.PROBE_INTERVAL
    ours.close()
    with socket.socket(socket.AF_UNIX) as unix:
        tcp.probe(unix)  # it is told anyway


async def test_what_a_peer_has_no_room_for_has_not_arrived(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    assert tcp.has_arrived(ours)
    with contextlib.suppress(BlockingIOError):
        while ours.send(BULK):
            pass
    assert tcp.count_unacknowledged(ours) > 1
    assert not tcp.has_arrived(ours)
    theirs.setblocking(False)

    def take() -> bool:
        with contextlib.suppress(BlockingIOError):
            while theirs.recv(1 << 20):
                pass
        return tcp.has_arrived(ours)

    await until(take)


async def test_a_reset_is_known_though_bytes_were_not_acknowledged(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    assert not tcp.is_reset(ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    await until(lambda: tcp.is_reset(ours))


def test_on_this_host_nothing_is_on_its_way(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, _ = ends
    assert tcp.round_trips(ours) == 0


def test_unix_sockets_have_arrived_and_are_not_reset() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.close()
        assert tcp.has_arrived(ours)
        assert not tcp.is_reset(ours)
        assert tcp.round_trips(ours) == 0
