"""Connections: bytes, the end, and descriptors passed along with the bytes."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_chardev.backends.socket import connection as module
from trio_chardev.backends.socket.connection import SILENCE, Connection
from trio_chardev.backends.socket.passed import socket_from_fd
from trio_chardev.backends.socket.unix_connection import MAX_FDS, UnixConnection
from trio_chardev.errors import BackendError

PATIENCE = 5  # seconds


@pytest.fixture
def pair() -> Iterator[tuple[UnixConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with theirs, ours:
        yield UnixConnection(ours, "unix:"), theirs


Pair = tuple[UnixConnection, socket.socket]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


@pytest.fixture
def tcp_pair() -> Iterator[tuple[Connection, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname(), timeout=PATIENCE)
        ours, _ = server.accept()
    ours.setblocking(False)
    with theirs, ours:
        yield Connection(ours, "tcp:"), theirs


TcpPair = tuple[Connection, socket.socket]


def fill(connection: Connection) -> int:
    """Send until the socket takes no more; how much it took."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += connection.send(memoryview(bytes(1 << 16)))
    return sent


async def test_bytes_go_both_ways(pair: Pair) -> None:
    connection, peer = pair
    with pytest.raises(BlockingIOError):
        connection.receive(10)
    assert not connection.has_input()
    peer.send(b"hello")
    assert connection.has_input()
    await connection.wait_readable()
    assert connection.receive(3) == b"hel"
    assert connection.receive(10) == b"lo"
    await connection.wait_writable()
    assert connection.send(memoryview(b"there")) == 5
    assert peer.recv(10) == b"there"
    peer.close()
    assert connection.receive(10) == b""
    assert not connection.has_input()
    with pytest.raises(BrokenPipeError):
        connection.send(memoryview(b"x"))


def test_shut_down_leaves_what_has_come(pair: Pair) -> None:
    connection, peer = pair
    peer.send(b"last")
    connection.shut_down()
    assert connection.receive(10) == b"last"
    assert connection.receive(10) == b""
    assert peer.recv(10) == b""
    connection.shut_down()


async def test_closing_wakes_both_waiters(pair: Pair) -> None:
    connection, _ = pair
    fill(connection)
    writer_was_told = False

    async def wait_writable() -> None:
        nonlocal writer_was_told
        with pytest.raises(trio.ClosedResourceError):
            await connection.wait_writable()
        writer_was_told = True

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.wait_readable)
            nursery.start_soon(wait_writable)
            await trio.testing.wait_all_tasks_blocked()
            connection.close()
    assert writer_was_told
    connection.close()


async def test_waiting_for_the_hang_up_takes_one_descriptor_however_often(pair: Pair) -> None:
    connection, peer = pair

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for _ in range(3):
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.wait_hangup()
        assert count() == before + 1
    peer.shutdown(socket.SHUT_WR)
    with trio.fail_after(5):
        await connection.wait_hangup()
    connection.close()
    assert count() == before - 1


async def test_closing_wakes_who_waits_for_the_hang_up(pair: Pair) -> None:
    connection, _ = pair
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.wait_hangup)
            await wait_all_tasks_blocked()
            connection.close()


# ---------------------------------------------------------------- what is taken when it is left


def ignore(data: bytes) -> None:
    """What the peer sends does not matter."""


def read_to_end(peer: socket.socket) -> int:
    received = 0
    while data := peer.recv(1 << 20):
        received += len(data)
    return received


def read_exactly(peer: socket.socket, size: int) -> int:
    """Read *size* bytes, or what there is; how many it was."""
    received = 0
    while received < size and (data := peer.recv(min(size - received, 1 << 20))):
        received += len(data)
    return received


async def test_a_tcp_peer_has_time_to_take_what_was_sent(tcp_pair: TcpPair) -> None:
    connection, peer = tcp_pair
    sent = fill(connection)
    with trio.move_on_after(0.02) as unread:
        await connection.finish(ignore)
    assert unread.cancelled_caught, "it did not wait"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, read_exactly, peer, sent)
        with trio.fail_after(PATIENCE):
            await connection.finish(ignore)


async def test_a_tcp_peer_that_is_sending_is_not_in_its_own_way(tcp_pair: TcpPair) -> None:
    """Who does not read before it has sent all would wait for us, and we for him."""
    connection, peer = tcp_pair
    sent = fill(connection)
    received = []

    def send_then_read() -> None:
        peer.sendall(bytes(16 << 20))
        received.append(read_exactly(peer, sent))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, send_then_read)
        with trio.fail_after(PATIENCE):
            await connection.finish(ignore)
        connection.close()
    assert received == [sent]


@pytest.mark.parametrize("where", ["before-the-clock", "after-it"])
async def test_what_comes_while_the_process_is_held_up_is_heard(
    where: str, pair: Pair, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had not been: the peer's silence is not as long as the process's."""
    connection, peer = pair
    taken: list[bytes] = []
    blocked = 0

    async def send_in_its_turn() -> None:
        peer.send(b"late")

    def look(max_bytes: int) -> bytes:
        nonlocal blocked
        try:
            return receive(max_bytes)
        except BlockingIOError:
            blocked += 1
            if blocked == 2:  # the first was behind "early"
                autojump_clock.jump(2 * SILENCE)
                if where == "before-the-clock":
                    peer.send(b"late")
                else:
                    nursery.start_soon(send_in_its_turn)
            raise

    receive = connection._receive
    monkeypatch.setattr(UnixConnection, "_receive", lambda self, max_bytes: look(max_bytes))
    peer.send(b"early")
    async with trio.open_nursery() as nursery:
        await connection.finish(taken.append)
    assert taken == [b"early", b"late"]


async def test_what_a_unix_socket_took_its_peer_has(pair: Pair) -> None:
    connection, _ = pair
    fill(connection)
    with trio.fail_after(PATIENCE):
        await connection.finish(ignore)


async def test_a_tcp_peer_can_take_the_rest_later_though_its_own_bytes_were_not_read(
    tcp_pair: TcpPair,
) -> None:
    """Closed with unread input, the kernel resets the connection and drops what was sent."""
    connection, peer = tcp_pair
    sent = fill(connection)
    peer.send(b"unread")
    await connection.wait_readable()
    connection.close()
    assert read_to_end(peer) == sent


async def test_who_waited_for_it_does_not_when_it_was_handed_over(pair: Pair) -> None:
    """Two tasks must not wait for one socket."""
    connection, peer = pair
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.wait_readable)
            nursery.start_soon(connection.wait_hangup)
            await trio.testing.wait_all_tasks_blocked()
            connection.hand_over(lambda _: None, nodelay=True, keep_alive=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.wait_readable)
            peer.send(b"x")


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_handed_over_tcp_connection_has_the_options_of_its_new_owner(
    wanted: bool, tcp_pair: TcpPair
) -> None:
    connection, _ = tcp_pair
    for value in (not wanted, wanted):
        connection.hand_over(lambda _: None, nodelay=value, keep_alive=value)
    assert bool(connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is wanted
    assert bool(connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)) is wanted


async def test_handing_over_what_has_ended_never_fails(tcp_pair: TcpPair) -> None:
    connection, _ = tcp_pair
    connection.close()
    connection.hand_over(lambda _: None, nodelay=True, keep_alive=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        connection.receive(1)


# ---------------------------------------------------------------- descriptors


def test_descriptors_come_with_a_read_and_are_closed_on_exec(pair: Pair) -> None:
    connection, peer = pair
    r, w = os.pipe()
    socket.send_fds(peer, [b"x"], [r, w])
    assert connection.receive(10) == b"x"
    fds = connection.take_fds()
    assert [inode(fd) for fd in fds] == [inode(r), inode(w)]
    assert not any(os.get_inheritable(fd) for fd in fds)
    assert connection.take_fds() == []
    for fd in (r, w, *fds):
        os.close(fd)


async def read_soon(fd: int) -> bytes:
    """What can be read of *fd*, when a thread has closed the other end."""
    with trio.fail_after(20):
        while True:
            try:
                return os.read(fd, 1)
            except BlockingIOError:
                await trio.sleep(0.001)


async def test_unclaimed_descriptors_are_closed_when_others_come_and_at_the_end(
    pair: Pair,
) -> None:
    """The end of a pipe is at its end when every copy of the other end is closed."""
    connection, peer = pair
    r1, w1 = os.pipe()
    r2, w2 = os.pipe()
    for r in (r1, r2):
        os.set_blocking(r, False)
    for w in (w1, w2):
        socket.send_fds(peer, [b"x"], [w])
        os.close(w)
        await connection.wait_readable()
        assert connection.receive(10) == b"x"
    assert await read_soon(r1) == b""
    peer.send(b"without any")
    connection.receive(100)
    with pytest.raises(BlockingIOError):
        os.read(r2, 1)
    connection.close()
    assert await read_soon(r2) == b""
    os.close(r1)
    os.close(r2)


def test_more_descriptors_than_qemu_takes_are_closed(pair: Pair) -> None:
    connection, peer = pair
    r, w = os.pipe()
    socket.send_fds(peer, [b"x"], [r] * (MAX_FDS + 4))
    connection.receive(10)
    fds = connection.take_fds()
    assert len(fds) == MAX_FDS
    for fd in (r, w, *fds):
        os.close(fd)


def test_descriptors_go_with_the_next_bytes_only(pair: Pair) -> None:
    connection, peer = pair
    r, w = os.pipe()
    connection.send_fds([r])
    connection.send_fds([w])  # instead
    os.close(r)
    os.close(w)  # the caller's; what is to be sent is a duplicate
    assert connection.send(memoryview(b"ab")) == 2
    data, [fd], _, _ = socket.recv_fds(peer, 10, MAX_FDS)
    assert data == b"ab"
    os.write(fd, b"")
    os.close(fd)
    connection.send(memoryview(b"c"))
    assert socket.recv_fds(peer, 10, MAX_FDS)[:2] == (b"c", [])


def test_descriptors_wait_while_the_socket_is_full_and_are_dropped_by_an_error(
    pair: Pair,
) -> None:
    connection, peer = pair
    fill(connection)
    null = os.open(os.devnull, os.O_RDONLY)
    connection.send_fds([null])
    os.close(null)
    [duplicate] = connection._fds_to_send
    with pytest.raises(BlockingIOError):
        connection.send(memoryview(b"x"))
    assert is_open(duplicate)
    peer.close()
    with pytest.raises(BrokenPipeError):
        connection.send(memoryview(b"x"))
    assert not is_open(duplicate)
    assert connection._fds_to_send == []


def test_closed_descriptors_can_not_be_passed(pair: Pair) -> None:
    connection, peer = pair
    with pytest.raises(OSError, match="Bad file descriptor"):
        connection.send_fds([peer.fileno(), 1 << 20])
    assert connection._fds_to_send == []


def test_only_stream_sockets_can_be_passed_in() -> None:
    """QEMU's text; the descriptor is closed, because it was given away."""
    r, w = os.pipe()
    with pytest.raises(BackendError, match=r"^File descriptor 'pp' is not a socket$"):
        socket_from_fd(r, "pp")
    assert not is_open(r)
    os.close(w)
    datagram = socket.socket(type=socket.SOCK_DGRAM).detach()
    with pytest.raises(BackendError, match=r"^File descriptor 'u' is not a stream socket$"):
        socket_from_fd(datagram, "u")
    assert not is_open(datagram)
    with pytest.raises(BackendError, match="is not a socket"):
        socket_from_fd(10**12, "10**12")


def test_passed_sockets_never_wait_and_are_as_blocking_as_they_were() -> None:
    """Who has passed one may use it still. They are not inherited."""
    a, b = socket.socketpair()
    fd = a.detach()
    os.set_inheritable(fd, True)
    with b, socket_from_fd(fd, "a") as sock:
        assert os.get_blocking(fd)
        assert not sock.get_inheritable()
        for connection in (Connection(sock, "x"), UnixConnection(sock, "x")):
            with pytest.raises(BlockingIOError):
                connection.receive(10)
            with contextlib.suppress(BlockingIOError):
                while connection.send(memoryview(bytes(1 << 16))):
                    pass
            b.send(b"hello")
            assert connection.receive(10) == b"hello"
            while len(b.recv(1 << 20)) == 1 << 20:
                pass
        assert os.get_blocking(fd)


async def test_the_last_word_of_a_peer_is_heard_when_it_comes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next look for what it has taken, though another task waits for the socket, too."""
    monkeypatch.setattr(module, "TAKEN_INTERVAL", 60)
    connection, peer = pair
    peer.send(b"hello")
    connection.receive(10)
    taken: list[bytes] = []
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.wait_readable)
            await wait_all_tasks_blocked()
            nursery.start_soon(connection.finish, taken.append)
            await trio.lowlevel.wait_readable(peer)
            assert peer.recv(10) == b""
            await wait_all_tasks_blocked()
            peer.send(b"bye")
            peer.close()
    assert taken == [b"bye"]


async def test_without_a_descriptor_to_wait_for_it_a_last_word_is_looked_for(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(module, "_make_hangup_epoll", fail)
    connection, peer = pair
    peer.send(b"hello")
    connection.receive(10)
    taken: list[bytes] = []
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.finish, taken.append)
            await trio.lowlevel.wait_readable(peer)
            assert peer.recv(10) == b""
            peer.send(b"bye")
            peer.close()
    assert taken == [b"bye"]


async def test_a_silent_peer_of_a_unix_socket_is_told_by_the_close_alone(pair: Pair) -> None:
    connection, peer = pair
    with trio.fail_after(PATIENCE):
        await connection.finish(ignore)
    with pytest.raises(BlockingIOError):
        peer.recv(10)
    connection.close()
    assert peer.recv(10) == b""


async def test_what_a_peer_that_was_silent_has_sent_at_last_is_taken(
    pair: Pair, autojump_clock: MockClock
) -> None:
    connection, peer = pair
    peer.send(b"at last")
    taken: list[bytes] = []
    await connection.finish(taken.append)
    assert taken == [b"at last"]
    assert peer.recv(10) == b""
