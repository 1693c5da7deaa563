"""Descriptors that a peer passes, and whose close blocks."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import trio

import trio_chardev as tc
from tests.backends.socket.test_access import abstract, as_nobody, connected
from tests.links import serving, until
from trio_chardev.backends.socket import rights
from trio_chardev.backends.socket.connection import Connection
from trio_chardev.backends.socket.rights import CLOSER, Closer
from trio_chardev.backends.socket.shared_connection import SharedConnection
from trio_chardev.backends.socket.unix_connection import UnixConnection
from trio_chardev.core.splicing import CannotSplice, SplicePipe
from trio_chardev.service import open_service
from trio_chardev.workers import NoThreadError

LINGER = 3  # seconds
SOON = 2.0  # seconds; less than that
Send = Callable[[socket.socket], None]


@contextlib.contextmanager
def lingering() -> Iterator[Send]:
    """Passes a TCP socket of which the receiver has the last copy, and whose close waits LINGER."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
        with peer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.send(bytes(1 << 16))

            def send(to: socket.socket) -> None:
                socket.send_fds(to, [b"x"], [sock.fileno()])
                sock.close()

            yield send


def can_refuse() -> bool:
    one, other = socket.socketpair()
    with one, other:
        return rights.refuse(one)


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("kind", [UnixConnection, SharedConnection])
async def test_what_is_passed_holds_up_nobody_whether_it_is_read_or_not(
    kind: type[Connection], is_read: bool
) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs, lingering() as send:
        send(theirs)
        begin = time.monotonic()
        connection = kind(ours, "")
        if is_read:
            assert connection.receive(10) == b"x"
        connection.close()
        assert time.monotonic() - begin < SOON
        with trio.fail_after(20):
            await until(lambda: CLOSER.is_idle)


async def test_whom_a_guard_refuses_holds_up_nobody() -> None:
    address = abstract()
    with lingering() as send:
        async with open_service() as service:
            await service.listen_qmp(tc.SocketOptions(addr=address))
            with as_nobody():
                stranger = connected(address)
            with stranger:
                send(stranger)
                begin = time.monotonic()
                stranger.setblocking(False)
                with trio.fail_after(20), contextlib.suppress(OSError):
                    await trio.socket.from_stdlib_socket(stranger).recv(1)
                await until(lambda: CLOSER.is_idle)
                assert time.monotonic() - begin < SOON


async def test_who_waits_in_the_queue_of_a_server_that_stops_holds_up_nobody() -> None:
    address = abstract()
    with lingering() as send:
        async with tc.open_registry() as registry:
            await registry.add("x", tc.SocketOptions(addr=address))
            first, second = connected(address), connected(address)
            with first, second:
                send(second)
                begin = time.monotonic()
                await registry.remove("x")
                assert time.monotonic() - begin < SOON


@pytest.mark.skipif(not can_refuse(), reason="the kernel is older than Linux 6.16")
@pytest.mark.parametrize("telnet", [False, True])
async def test_where_there_is_no_use_for_descriptors_none_can_be_passed(telnet: bool) -> None:
    address = abstract()
    async with serving(tc.SocketOptions(addr=address, telnet=telnet)):
        with connected(address) as client:
            if telnet:
                with pytest.raises(PermissionError):
                    socket.send_fds(client, [b"x"], [0])
            else:
                assert socket.send_fds(client, [b"x"], [0]) == 1


@pytest.mark.skipif(not can_refuse(), reason="the kernel is older than Linux 6.16")
async def test_nothing_is_spliced_that_may_bring_descriptors() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection, pipe = UnixConnection(ours, ""), SplicePipe()
    with theirs, lingering() as send:
        send(theirs)
        theirs.send(b"yz")
        with pytest.raises(CannotSplice):
            connection.receive_into(pipe, 10)
        with pytest.raises(PermissionError):
            socket.send_fds(theirs, [b"x"], [0])
        data = b""
        while len(data) < 3:
            data += connection.receive(10)
        assert data == b"xyz"
        theirs.send(b"more")
        assert connection.receive_into(pipe, 10) == 4
    pipe.close()
    connection.close()


async def test_splicing_needs_a_kernel_that_can_refuse_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rights, "SO_PASSRIGHTS", 9999)
    ours, theirs = socket.socketpair()
    with theirs:
        connection = UnixConnection(ours, "")
        assert not connection.has_only_bytes()
        connection.close()


async def test_of_those_that_wait_to_be_closed_there_are_only_so_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rights, "MAX_WAITING", 2)
    monkeypatch.setattr(rights, "MAX_THREADS", 1)
    closer = Closer()
    hung = threading.Event()
    for _ in range(3):
        closer.do(hung.wait)
    with trio.fail_after(20):
        await until(lambda: closer.is_full)  # one is being closed
    monkeypatch.setattr(rights, "CLOSER", closer)
    ours, theirs = socket.socketpair()
    with theirs:
        connection = UnixConnection(ours, "")
        socket.send_fds(theirs, [b"x"], [0])
        with pytest.raises(ConnectionAbortedError, match="wait to be closed"):
            connection.receive(10)
        hung.set()
        connection.close()
    with trio.fail_after(20):
        await until(lambda: closer.is_idle)
    assert not closer.is_full


def test_without_a_thread_it_is_closed_all_the_same() -> None:
    def run(*_: object) -> None:
        raise NoThreadError

    r, w = os.pipe()
    closer = Closer(run)
    closer.do(lambda: os.close(w))
    assert os.read(r, 1) == b""
    assert closer.is_idle
    os.close(r)
