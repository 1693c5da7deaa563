"""The socket backend: who is connected when, what is read and sent, and changes."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.peers import need
from tests.places import connect_to
from tests.threads import Threads
from trio_chardev.backends.socket.addresses import (
    FdAddress,
    InetAddress,
    SocketAddress,
    UnixAddress,
    VsockAddress,
)
from trio_chardev.backends.socket.connection import Connection
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions, open_socket
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChardevError,
    NotSupportedError,
    OptionsError,
)
from trio_chardev.events import BackendEvent, Event
from trio_chardev.options.members import TaggedUnion
from trio_chardev.options.structure import structure
from trio_chardev.testing import CancelAtStep
from trio_chardev.testing.pair import receive_some

OPENED, CLOSED = Event.OPENED, Event.CLOSED
LOOPBACK = InetAddress("127.0.0.1", "0")


@asynccontextmanager
async def opened(
    options: SocketOptions, *, replaces: Backend | None = None, in_place: bool = True
) -> AsyncIterator[tuple[SocketBackend, list[BackendEvent]]]:
    events: list[BackendEvent] = []
    request = OpenRequest(id="x", on_event=events.append, replaces=replaces)
    async with open_socket(options, request) as backend:
        assert isinstance(backend, SocketBackend)
        if in_place:
            backend.activate()
        yield backend, events


def dial(address: SocketAddress) -> socket.socket:
    """A client of a server at *address*; it is in the queue now."""
    if isinstance(address, InetAddress):
        return socket.create_connection((address.host, int(address.port)), timeout=5)
    assert isinstance(address, UnixAddress)
    client = socket.socket(socket.AF_UNIX)
    try:
        client.settimeout(5)
        client.connect(f"\0{address.path}" if address.abstract else address.path)
    except BaseException:
        client.close()
        raise
    return client


async def dial_soon(address: SocketAddress) -> socket.socket:
    """As `dial`, as soon as a server is there: a thread makes its socket."""
    with trio.fail_after(5):
        while True:
            try:
                return dial(address)
            except (FileNotFoundError, ConnectionRefusedError):
                await trio.sleep(0.001)


async def receive(backend: SocketBackend, size: int) -> bytes:
    """Exactly *size* bytes."""
    data = b""
    with trio.fail_after(5):
        while len(data) < size:
            data += await receive_some(backend, size - len(data))
    return data


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until *condition* holds."""
    with trio.fail_after(5):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


@asynccontextmanager
async def reading(backend: SocketBackend) -> AsyncIterator[bytearray]:
    """A task that reads all the time, as a chardev's does."""
    got = bytearray()

    async def read() -> None:
        while True:
            got.extend(await receive_some(backend, 4096))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        yield got
        nursery.cancel_scope.cancel()


def unix(tmp_path: Path, name: str = "s") -> UnixAddress:
    return UnixAddress(str(tmp_path / name))


@contextlib.contextmanager
def serving(tmp_path: Path, name: str = "peer") -> Iterator[socket.socket]:
    """A server that a client backend may connect to."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / name))
        server.listen()
        server.settimeout(5)
        yield server


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> SocketAddress:
    return LOOPBACK if request.param == "tcp" else unix(tmp_path)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            SocketOptions(addr=FdAddress("3"), reconnect=1),
            "'reconnect' option is incompatible with 'fd' address type",
        ),
        (
            SocketOptions(addr=FdAddress("3"), server=False, reconnect_ms=1),
            "'reconnect-ms' option is incompatible with 'fd' address type",
        ),
        (
            SocketOptions(addr=LOOPBACK, reconnect=0),
            "'reconnect' option is incompatible with socket in server listen mode",
        ),
        (
            SocketOptions(addr=LOOPBACK, server=False, wait=False),
            "'wait' option is incompatible with socket in client connect mode",
        ),
        (
            SocketOptions(addr=LOOPBACK, server=False, wait=True, reconnect=1, reconnect_ms=1),
            "'wait' option is incompatible with socket in client connect mode",
        ),
        (
            SocketOptions(addr=LOOPBACK, server=False, reconnect=1, reconnect_ms=1000),
            "'reconnect' and 'reconnect-ms' are mutually exclusive",
        ),
        (
            SocketOptions(addr=LOOPBACK, reconnect_max_ms=1000),
            "'reconnect-max-ms' option requires 'reconnect' or 'reconnect-ms'",
        ),
        (
            SocketOptions(addr=LOOPBACK, server=False, reconnect=0, reconnect_max_ms=1000),
            "'reconnect-max-ms' option requires 'reconnect' or 'reconnect-ms'",
        ),
        (
            SocketOptions(addr=LOOPBACK, server=False, reconnect=2, reconnect_max_ms=1999),
            "'reconnect-max-ms' must not be less than 'reconnect'",
        ),
        (
            SocketOptions(addr=FdAddress("no number"), server=False),
            "File descriptor named 'no number' has not been found",
        ),
        (
            SocketOptions(addr=FdAddress(""), server=False),
            "File descriptor named '' has not been found",
        ),
        (
            SocketOptions(addr=UnixAddress("p" * 109), server=False, reconnect=1),
            f"UNIX socket path '{'p' * 109}' is too long",
        ),
        (
            SocketOptions(addr=VsockAddress("abc", "1"), server=False, reconnect=1),
            "Failed to parse cid 'abc'",
        ),
    ],
)
async def test_options_that_exclude_each_other_are_refused_in_qemus_words(
    options: SocketOptions, error: str
) -> None:
    with pytest.raises(ChardevError) as caught:
        async with opened(options):
            pass
    assert str(caught.value) == error


def test_only_a_server_that_waits_may_open_for_ever() -> None:
    assert SocketOptions(addr=LOOPBACK).open_timeout == 30
    assert SocketOptions(addr=LOOPBACK, wait=True).open_timeout == math.inf
    assert SocketOptions(addr=LOOPBACK, server=False, wait=True).open_timeout == 30


def test_options_are_structured_as_qapi_names_them() -> None:
    union = TaggedUnion("Backend", {"socket": SocketOptions})
    data = {
        "addr": {"type": "fd", "data": {"str": "7"}},
        "server": False,
        "reconnect-ms": 5,
    }
    options = structure(union, {"type": "socket", "data": data})
    assert options == SocketOptions(addr=FdAddress("7"), server=False, reconnect_ms=5)


# ---------------------------------------------------------------- a server's clients


async def test_server_reports_clients_and_names_them(address: SocketAddress) -> None:
    async with opened(SocketOptions(addr=address)) as (backend, events):
        at = backend.address
        assert backend.filename == f"disconnected:{at.name},server=on"
        assert not backend.is_open
        with dial(at) as client:
            client.send(b"hello")
            assert await receive(backend, 5) == b"hello"
            assert events == [OPENED]
            assert backend.is_open
            if isinstance(at, UnixAddress):
                assert backend.filename == f"{at.name},server=on"
            else:
                there = client.getsockname()[1]
                assert backend.filename == f"{at.name},server=on <-> 127.0.0.1:{there}"
            assert backend.send_nowait(memoryview(b"there")) == 5
            assert client.recv(10) == b"there"
            client.send(b"last")
        async with reading(backend) as got:
            await until(lambda: events == [OPENED, CLOSED])
            assert got == b"last"
        assert not backend.is_open
        assert backend.filename == f"disconnected:{at.name},server=on"


async def test_sending_to_nobody_is_refused(address: SocketAddress) -> None:
    async with opened(SocketOptions(addr=address)) as (backend, _):
        with pytest.raises(BackendDisconnectedError):
            backend.send_nowait(memoryview(b"x"))
        with pytest.raises(BackendDisconnectedError), trio.fail_after(5):
            await backend.send_some(memoryview(b"x"))
        assert backend.receive_nowait(10) == b""
        with pytest.raises(BackendDisconnectedError):
            await backend.wait_writable()


async def test_second_client_waits_until_the_first_leaves(address: SocketAddress) -> None:
    async with opened(SocketOptions(addr=address)) as (backend, events):
        with dial(backend.address) as first, dial(backend.address) as second:
            first.send(b"1")
            second.send(b"2")
            async with reading(backend) as got:
                await until(lambda: got == b"1")
                assert events == [OPENED]
                second.setblocking(False)
                with pytest.raises(BlockingIOError):
                    second.recv(1)  # no refusal, no data
                first.close()
                await until(lambda: got == b"12")
        assert events == [OPENED, CLOSED, OPENED]


async def test_input_is_read_before_the_client_counts_as_gone(address: SocketAddress) -> None:
    """QEMU 7.2 loses most of it."""
    async with opened(SocketOptions(addr=address)) as (backend, events):
        with dial(backend.address) as client:
            client.send(b"12345678")
        assert [await receive(backend, 2) for _ in range(4)] == [b"12", b"34", b"56", b"78"]
        assert events == [OPENED]
        assert backend.receive_nowait(10) == b""
        assert events == [OPENED, CLOSED]


async def test_half_close_is_a_full_close_without_linger(address: SocketAddress) -> None:
    """As QEMU."""
    async with opened(SocketOptions(addr=address, linger_ms=0)) as (backend, events):
        with dial(backend.address) as client:
            client.send(b"x")
            client.shutdown(socket.SHUT_WR)
            async with reading(backend) as got:
                await until(lambda: events == [OPENED, CLOSED])
                assert got == b"x"
            assert client.recv(10) == b""


async def test_a_reset_is_a_disconnect() -> None:
    async with opened(SocketOptions(addr=LOOPBACK)) as (backend, events):
        with dial(backend.address) as client:
            client.send(b"x")
            assert await receive(backend, 1) == b"x"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        async with reading(backend):
            await until(lambda: events == [OPENED, CLOSED])


async def test_a_client_that_has_reset_in_the_queue_is_skipped() -> None:
    async with opened(SocketOptions(addr=LOOPBACK)) as (backend, events):
        with dial(backend.address) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with dial(backend.address) as client:
            client.send(b"x")
            assert await receive(backend, 1) == b"x"
        assert events[-1:] == [OPENED]


async def test_a_failed_send_reports_the_disconnect_when_nothing_is_left_to_read(
    tmp_path: Path,
) -> None:
    async with opened(SocketOptions(addr=unix(tmp_path))) as (backend, events):
        with dial(backend.address) as client:
            client.send(b"x")
            assert await receive(backend, 1) == b"x"
        with pytest.raises(BackendDisconnectedError) as caught:
            backend.send_nowait(memoryview(b"y"))
        assert isinstance(caught.value.__cause__, BrokenPipeError)
        assert events == [OPENED, CLOSED]


async def test_a_failed_send_does_not_lose_unread_input(tmp_path: Path) -> None:
    async with opened(SocketOptions(addr=unix(tmp_path))) as (backend, events):
        with dial(backend.address) as client:
            client.send(b"1")
            assert await receive(backend, 1) == b"1"
            client.send(b"23")
        for _ in range(2):
            with pytest.raises(BackendDisconnectedError):
                backend.send_nowait(memoryview(b"x"))
        assert events == [OPENED]
        assert backend.receive_nowait(10) == b"23"
        assert backend.receive_nowait(10) == b""
        assert events == [OPENED, CLOSED]


async def test_a_stuck_writer_hears_of_the_disconnect(tmp_path: Path) -> None:
    """Also when another client comes at once: the rest is not for that one."""
    async with opened(SocketOptions(addr=unix(tmp_path))) as (backend, _):
        with dial(backend.address) as client, dial(backend.address) as other:
            client.send(b"x")
            assert await receive(backend, 1) == b"x"
            while backend.send_nowait(memoryview(bytes(1 << 16))):
                pass
            heard = trio.Event()

            async def write() -> None:
                with pytest.raises(BackendDisconnectedError):
                    await backend.send_some(memoryview(b"rest"))
                heard.set()

            with trio.fail_after(5):
                async with reading(backend), trio.open_nursery() as nursery:
                    nursery.start_soon(write)
                    await trio.testing.wait_all_tasks_blocked()
                    client.shutdown(socket.SHUT_WR)
                    await heard.wait()
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(1)


async def test_a_cancelled_reader_has_consumed_nothing(address: SocketAddress) -> None:
    async with opened(SocketOptions(addr=address)) as (backend, events):
        with trio.move_on_after(0.01):
            await receive_some(backend, 10)
        with dial(backend.address) as client:
            client.send(b"x")
            with trio.CancelScope() as scope:
                scope.cancel()
                await receive_some(backend, 10)
            assert await receive(backend, 1) == b"x"
            with trio.move_on_after(0.01):
                await receive_some(backend, 10)
            client.send(b"y")
            assert await receive(backend, 1) == b"y"
        assert events == [OPENED]


async def test_tcp_options_are_set_on_each_connection() -> None:
    address = InetAddress("127.0.0.1", "0", keep_alive=True)
    async with opened(SocketOptions(addr=address, nodelay=True)) as (backend, _):
        with dial(backend.address) as client:
            client.send(b"x")
            await receive(backend, 1)
            assert isinstance(backend.there.link, Connection)
            sock = backend.there.link._sock
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_wait_opens_with_the_first_client(tmp_path: Path) -> None:
    options = SocketOptions(addr=unix(tmp_path), wait=True)
    ready = trio.Event()

    async def open_and_read() -> None:
        async with opened(options, in_place=False) as (backend, events):
            ready.set()
            assert events == [OPENED]
            assert backend.is_open
            backend.activate()
            assert await receive(backend, 1) == b"x"

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_and_read)
            await trio.testing.wait_all_tasks_blocked()
            assert not ready.is_set()
            with await dial_soon(options.addr) as client:
                client.send(b"x")
                await ready.wait()


async def test_wait_that_is_cancelled_leaves_no_file(tmp_path: Path) -> None:
    with trio.move_on_after(0.01):
        async with opened(SocketOptions(addr=unix(tmp_path), wait=True)):
            raise AssertionError("nobody has connected")
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- a client


async def test_client_is_connected_when_it_is_open(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        options = SocketOptions(addr=unix(tmp_path, "peer"), server=False)
        async with opened(options) as (backend, events):
            assert events == [OPENED]
            assert backend.filename == f"unix:{tmp_path}/peer"
            peer, _ = server.accept()
            peer.send(b"hi")
            assert await receive(backend, 2) == b"hi"
            peer.close()
            async with reading(backend):
                await until(lambda: events == [OPENED, CLOSED])
            assert backend.filename == f"disconnected:unix:{tmp_path}/peer"
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()  # it stays away for ever


async def test_client_name_has_both_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        options = SocketOptions(addr=InetAddress("localhost", str(port)), server=False)
        async with opened(options) as (backend, _):
            with server.accept()[0] as peer:
                here = peer.getpeername()[1]
                assert backend.filename == f"tcp:127.0.0.1:{here} <-> 127.0.0.1:{port}"
            async with reading(backend):
                await until(lambda: not backend.is_open)
            assert backend.filename == f"disconnected:tcp:localhost:{port}"


@pytest.mark.parametrize("reconnect", [None, 0])
async def test_client_without_reconnect_fails_to_open(
    tmp_path: Path, reconnect: int | None
) -> None:
    options = SocketOptions(addr=unix(tmp_path), server=False, reconnect=reconnect)
    with pytest.raises(BackendError) as caught:
        async with opened(options):
            pass
    assert str(caught.value) == f"Failed to connect to '{tmp_path}/s': No such file or directory"


@pytest.mark.parametrize("option", ["reconnect", "reconnect-ms"])
async def test_a_negative_delay_is_refused(tmp_path: Path, option: str) -> None:
    delay: dict[str, Any] = {option.replace("-", "_"): -1}
    options = SocketOptions(addr=unix(tmp_path), server=False, **delay)
    with pytest.raises(OptionsError, match=f"^'{option}' must not be negative$"):
        async with opened(options):
            pass


@pytest.mark.parametrize("address", [UnixAddress("/nonexistent/s"), InetAddress("127.0.0.1", "1")])
async def test_client_with_reconnect_opens_without_a_thread(
    monkeypatch: pytest.MonkeyPatch, address: SocketAddress
) -> None:
    threads = Threads(monkeypatch)
    threads.run_out()
    async with opened(SocketOptions(addr=address, server=False, reconnect=1)) as (backend, _):
        assert not backend.is_open
    assert threads.asked == 0


async def test_client_with_reconnect_opens_at_once_and_comes_back(tmp_path: Path) -> None:
    options = SocketOptions(addr=unix(tmp_path, "peer"), server=False, reconnect_ms=2)
    async with opened(options) as (backend, events), reading(backend) as got:
        assert not backend.is_open
        with serving(tmp_path) as server:
            for text in (b"once", b"more"):
                with trio.fail_after(5):
                    await trio.lowlevel.wait_readable(server)
                with server.accept()[0] as peer:
                    peer.send(text)
        await until(lambda: events == [OPENED, CLOSED, OPENED, CLOSED])
        assert got == b"oncemore"


async def test_closing_gives_up_reconnecting(tmp_path: Path) -> None:
    options = SocketOptions(addr=unix(tmp_path, "peer"), server=False, reconnect_ms=1)
    async with opened(options) as (backend, _), reading(backend):
        pass
    with serving(tmp_path) as server:
        server.setblocking(False)
        await trio.sleep(0.01)
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_a_client_says_why_it_waits_and_dials_now_if_it_is_asked_to(tmp_path: Path) -> None:
    options = SocketOptions(addr=unix(tmp_path, "peer"), server=False, reconnect_ms=60_000)
    async with opened(options) as (backend, _), reading(backend):
        refused = f"Failed to connect to '{tmp_path}/peer': No such file or directory"
        await until(lambda: backend.peer.outlook.last_error == refused)
        assert backend.peer.outlook.may_come
        assert backend.peer.outlook.next_try == pytest.approx(trio.current_time() + 60, abs=5)
        with serving(tmp_path) as server:
            backend.peer.retry()
            await until(lambda: backend.is_open)
            server.accept()[0].close()
            ended = f"the connection to '{tmp_path}/peer' has ended after 0."
            await until(lambda: (backend.peer.outlook.last_error or "").startswith(ended))


@pytest.mark.parametrize("server", [True, False])
async def test_one_that_does_not_dial_again_has_nothing_to_retry(
    tmp_path: Path, server: bool
) -> None:
    with contextlib.nullcontext() if server else serving(tmp_path, "s"):
        async with opened(SocketOptions(addr=unix(tmp_path), server=server)) as (backend, _):
            with pytest.raises(NotSupportedError, match="no client with 'reconnect-ms'$"):
                backend.peer.retry()
            assert backend.peer.outlook.may_come is server


# ---------------------------------------------------------------- sockets passed in


async def test_passed_connected_socket_is_a_client() -> None:
    ours, theirs = socket.socketpair()
    number = str(ours.detach())
    async with opened(SocketOptions(addr=FdAddress(number), server=False)) as (backend, events):
        assert backend.filename == "unix:"
        assert events == [OPENED]
        theirs.send(b"x")
        assert await receive(backend, 1) == b"x"
        theirs.close()
        async with reading(backend):
            await until(lambda: not backend.is_open)
        assert backend.filename == f"disconnected:fd:{number}"


async def test_passed_socket_that_is_not_connected_is_refused() -> None:
    number = str(socket.socket().detach())
    with pytest.raises(BackendError, match="Transport endpoint is not connected"):
        async with opened(SocketOptions(addr=FdAddress(number), server=False)):
            pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(int(number))


async def test_passed_listening_socket_is_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        number = str(os.dup(theirs.fileno()))
        port = theirs.getsockname()[1]
        async with opened(SocketOptions(addr=FdAddress(number))) as (backend, _):
            assert backend.filename == f"disconnected:tcp:127.0.0.1:{port},server=on"
            with dial(backend.address) as client:
                client.send(b"x")
                assert await receive(backend, 1) == b"x"


# ---------------------------------------------------------------- add_client, disconnect


async def test_server_without_address_gets_its_clients_by_add_client() -> None:
    async with opened(SocketOptions(addr=FdAddress(""), wait=True)) as (backend, events):
        assert backend.filename == "disconnected:fd:,server=on"
        async with reading(backend) as got:
            for text in (b"one", b"two"):
                ours, theirs = socket.socketpair()
                backend.add_client(ours)
                assert backend.filename == "unix:,server=on"
                theirs.send(text)
                theirs.close()
                await until(lambda: not backend.is_open)
        assert got == b"onetwo"
        assert events == [OPENED, CLOSED, OPENED, CLOSED]


async def test_a_listening_server_takes_a_client_that_is_added(tmp_path: Path) -> None:
    async with opened(SocketOptions(addr=unix(tmp_path))) as (backend, _):
        ours, theirs = socket.socketpair()
        async with reading(backend) as got:
            with dial(backend.address) as queued:
                backend.add_client(ours)
                queued.send(b"2")
                theirs.send(b"1")
                await until(lambda: got == b"1")
                theirs.close()
                await until(lambda: got == b"12")


async def test_add_client_is_refused_beside_a_client_and_for_what_is_none() -> None:
    async with opened(SocketOptions(addr=FdAddress(""))) as (backend, events):
        with socket.socket() as loose, pytest.raises(BackendError, match=r"^failed to add client$"):
            backend.add_client(loose)
        assert events == []
        ours, theirs = socket.socketpair()
        backend.add_client(ours)
        a, b = socket.socketpair()
        with a, b, theirs:
            with pytest.raises(BackendError, match=r"^failed to add client$"):
                backend.add_client(a)
            b.send(b"x")
            assert a.recv(1) == b"x"  # it is the caller's still


async def test_disconnect_is_as_if_the_client_had_left(address: SocketAddress) -> None:
    async with opened(SocketOptions(addr=address)) as (backend, events):
        backend.peer.disconnect()
        with dial(backend.address) as client, dial(backend.address) as other:
            client.send(b"1")
            assert await receive(backend, 1) == b"1"
            client.send(b"23")
            backend.peer.disconnect()
            assert client.recv(1) == b""
            other.send(b"4")
            assert await receive(backend, 3) == b"234"
            assert events == [OPENED, CLOSED, OPENED]


# ---------------------------------------------------------------- descriptors


async def test_descriptors_go_both_ways_over_unix_sockets(tmp_path: Path) -> None:
    async with opened(SocketOptions(addr=unix(tmp_path))) as (backend, _):
        r, w = os.pipe()
        with dial(backend.address) as client:
            socket.send_fds(client, [b"x"], [r])
            assert await receive(backend, 1) == b"x"
            [fd] = backend.peer.take_fds()
            assert os.fstat(fd).st_ino == os.fstat(r).st_ino
            backend.peer.send_fds([fd])
            assert backend.send_nowait(memoryview(b"y")) == 1
            data, [back], _, _ = socket.recv_fds(client, 10, 4)
            assert (data, os.fstat(back).st_ino) == (b"y", os.fstat(r).st_ino)
        for each in (r, w, fd, back):
            os.close(each)


OTHER_PROCESS = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
r, w = os.pipe()
socket.send_fds(sock, [b"write here"], [w])
os.close(w)
assert os.read(r, 100) == b"from afar"
data, [fd], _, _ = socket.recv_fds(sock, 100, 4)
assert data == b"and here"
os.write(fd, b"from the other process")
"""


async def test_descriptors_go_to_another_process_and_come_from_it(tmp_path: Path) -> None:
    async with opened(SocketOptions(addr=unix(tmp_path))) as (backend, events):
        argv = [sys.executable, "-c", OTHER_PROCESS, f"{tmp_path}/s"]
        process = await trio.lowlevel.open_process(argv)
        try:
            assert await receive(backend, 10) == b"write here"
            [fd] = backend.peer.take_fds()
            os.write(fd, b"from afar")
            os.close(fd)
            r, w = os.pipe()
            backend.peer.send_fds([w])
            os.close(w)
            await backend.send_some(memoryview(b"and here"))
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(r)
                assert os.read(r, 100) == b"from the other process"
                assert await process.wait() == 0
            os.close(r)
            async with reading(backend):
                await until(lambda: events == [OPENED, CLOSED])
        finally:
            process.kill()


async def test_descriptors_need_a_unix_peer() -> None:
    async with opened(SocketOptions(addr=LOOPBACK)) as (backend, _):
        with pytest.raises(BackendDisconnectedError):
            backend.peer.send_fds([0])
        with dial(backend.address) as client:
            client.send(b"x")
            await receive(backend, 1)
            assert backend.peer.take_fds() == []
            with pytest.raises(NotSupportedError, match="can't pass file descriptors"):
                backend.peer.send_fds([0])


async def test_closed_descriptors_are_one_error(tmp_path: Path) -> None:
    async with opened(SocketOptions(addr=unix(tmp_path))) as (backend, _):
        with dial(backend.address) as client:
            client.send(b"x")
            await receive(backend, 1)
            with pytest.raises(BackendError, match="Bad file descriptor"):
                backend.peer.send_fds([1 << 20])


# ---------------------------------------------------------------- changes


@asynccontextmanager
async def chardev_on(options: SocketOptions) -> AsyncIterator[Chardev]:
    chardev = Chardev("x")
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        await chardev.open(lambda request: open_socket(options, request), timeout=5)
        yield chardev
        await chardev.aclose()


def address_of(chardev: Chardev) -> SocketAddress:
    assert isinstance(chardev.backend, SocketBackend)
    return chardev.backend.address


def abstract() -> UnixAddress:
    return UnixAddress(f"trio-chardev-{secrets.token_hex(8)}", abstract=True)


@pytest.mark.parametrize("kind", ["path", "abstract", "tcp"])
async def test_change_to_the_same_address(kind: str, tmp_path: Path) -> None:
    """Refused by QEMU, or for a path it leaves nobody there."""
    addresses: dict[str, SocketAddress]
    addresses = {"path": unix(tmp_path), "abstract": abstract(), "tcp": LOOPBACK}
    address = addresses[kind]
    async with chardev_on(SocketOptions(addr=address)) as chardev:
        first = chardev.backend
        options = SocketOptions(addr=address_of(chardev), wait=True)
        await chardev.change(lambda request: open_socket(options, request), timeout=5)
        assert chardev.backend is not first
        with dial(options.addr) as client:
            await until(lambda: chardev.is_open)
            assert chardev.backend.send_nowait(memoryview(b"x")) == 1
            assert client.recv(1) == b"x"
    assert os.listdir(tmp_path) == []


async def test_change_that_fails_leaves_the_path(tmp_path: Path) -> None:
    async with chardev_on(SocketOptions(addr=unix(tmp_path))) as chardev:

        @asynccontextmanager
        async def fail(request: OpenRequest) -> AsyncIterator[Backend]:
            async with open_socket(SocketOptions(addr=unix(tmp_path)), request):
                assert os.listdir(tmp_path) == ["s"]
                raise BackendError("no")
                yield

        with pytest.raises(BackendError, match="no"):
            await chardev.change(fail, timeout=5)
        assert os.listdir(tmp_path) == ["s"]
        with dial(address_of(chardev)):
            await until(lambda: chardev.is_open)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_change_cancelled_at_any_step_leaves_one_server_at_the_path(
    tmp_path: Path, when: str
) -> None:
    options = SocketOptions(addr=unix(tmp_path))
    was_cancelled = set()
    for k in range(1, 200):
        async with chardev_on(options) as chardev:
            first = chardev.backend
            with trio.CancelScope() as scope:
                injector = CancelAtStep(k, when, scope)
                trio.lowlevel.add_instrument(injector)
                injector.armed = True
                try:
                    await chardev.change(lambda request: open_socket(options, request), timeout=5)
                finally:
                    trio.lowlevel.remove_instrument(injector)
            if scope.cancelled_caught:
                assert chardev.backend is first
            was_cancelled.add(scope.cancelled_caught)
            assert os.listdir(tmp_path) == ["s"]
            with dial(options.addr):
                await until(lambda: chardev.is_open)
        assert os.listdir(tmp_path) == []
        if not injector.fired:
            break
    assert was_cancelled == {True, False}
    assert not injector.fired


# ---------------------------------------------------------------- a frontend that does not read


@asynccontextmanager
async def full(chardev: Chardev) -> AsyncIterator[bytes]:
    """A client has sent more than there is room for, and is still there."""
    async with connect_to(chardev.backend) as client:
        data = bytes(range(256)) * 320
        with trio.fail_after(5):
            await client.send_all(data)
        await until(lambda: chardev._parts.users.room <= 0)
        yield data


async def test_a_client_that_leaves_is_noticed_while_the_frontend_takes_nothing(
    address: SocketAddress,
) -> None:
    events: list[BackendEvent] = []
    async with chardev_on(SocketOptions(addr=address)) as chardev:
        frontend = chardev.attach(on_event=events.append)
        async with full(chardev) as data:
            pass
        await until(lambda: not chardev.is_open)
        with dial(address_of(chardev)) as other:
            await until(lambda: chardev.is_open)  # it need not wait until somebody reads
            await frontend.send_all(b"hello")
            assert other.recv(10) == b"hello"
            other.send(b"next")
            got = b""
            with trio.fail_after(5):
                while len(got) < len(data):
                    got += await frontend.receive_some()
                assert got == data
                assert events == [OPENED]
                assert await frontend.receive_some() == b"next"
        assert events == [OPENED, CLOSED, OPENED]


async def test_a_client_that_is_yanked_is_gone_while_the_frontend_takes_nothing(
    address: SocketAddress,
) -> None:
    async with chardev_on(SocketOptions(addr=address)) as chardev:
        chardev.attach()
        async with full(chardev):
            assert isinstance(chardev.backend, SocketBackend)
            chardev.backend.peer.disconnect()
            await until(lambda: not chardev.is_open)


async def test_a_reset_is_noticed_while_the_frontend_takes_nothing() -> None:
    async with chardev_on(SocketOptions(addr=LOOPBACK)) as chardev:
        chardev.attach()
        async with connect_to(chardev.backend) as client:
            await client.send_all(bytes(80_000))
            await until(lambda: chardev._parts.users.room <= 0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await until(lambda: not chardev.is_open)


async def test_a_server_in_place_of_another_accepts_while_the_frontend_takes_nothing(
    address: SocketAddress,
) -> None:
    async with chardev_on(SocketOptions(addr=address)) as chardev:
        chardev.attach(be_change=stateless)
        async with full(chardev):
            options = SocketOptions(addr=address_of(chardev))
            await chardev.change(lambda request: open_socket(options, request), timeout=5)
            assert not chardev.is_open
            with dial(options.addr):
                await until(lambda: chardev.is_open)


async def test_without_a_descriptor_to_spare_a_client_leaves_when_the_frontend_reads(
    address: SocketAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chardev_on(SocketOptions(addr=address)) as chardev:

        def fail(*_: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        frontend = chardev.attach()
        monkeypatch.setattr("trio_chardev.backends.socket.connection.select.epoll", fail)
        async with full(chardev) as data:
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert chardev.is_open
        got = b""
        with trio.fail_after(5):
            while len(got) < len(data):
                got += await frontend.receive_some()
        await until(lambda: not chardev.is_open)


async def test_no_busy_loop_while_the_frontend_takes_nothing(address: SocketAddress) -> None:
    class CountSteps(trio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.steps += 1

    async with chardev_on(SocketOptions(addr=address)) as chardev:
        chardev.attach()
        async with full(chardev):
            await trio.testing.wait_all_tasks_blocked(0.01)
            counter = CountSteps()
            trio.lowlevel.add_instrument(counter)
            await trio.sleep(0.05)
            trio.lowlevel.remove_instrument(counter)
            assert counter.steps < 10


# ---------------------------------------------------------------- real peers


@asynccontextmanager
async def socat(*argv: str) -> AsyncIterator[trio.Process]:
    process = await trio.lowlevel.open_process(
        [need("socat"), *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.fail_after(5, shield=True):
            await process.wait()


async def test_socat_is_served(address: SocketAddress) -> None:
    async with opened(SocketOptions(addr=address)) as (backend, events):
        at = backend.address
        target = f"UNIX-CONNECT:{at}" if isinstance(at, UnixAddress) else f"TCP:{at}"
        async with socat("-", target) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            with trio.fail_after(5):
                await process.stdin.send_all(b"ping")
                assert await receive(backend, 4) == b"ping"
                await backend.send_some(memoryview(b"pong"))
                assert await process.stdout.receive_some(10) == b"pong"
                await process.stdin.aclose()  # socat half-closes, and we close
                async with reading(backend):
                    assert await process.wait() == 0
    assert events == [OPENED, CLOSED]


async def test_socat_is_a_server_that_comes_late(tmp_path: Path) -> None:
    address = unix(tmp_path)
    options = SocketOptions(addr=address, server=False, reconnect_ms=5)
    async with opened(options) as (backend, _), reading(backend) as got:
        assert not backend.is_open
        async with socat(f"UNIX-LISTEN:{address}", "EXEC:cat"):
            await until(lambda: backend.is_open)
            await backend.send_some(memoryview(b"echo"))
            await until(lambda: got == b"echo")
