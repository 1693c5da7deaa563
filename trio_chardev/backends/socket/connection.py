"""A connected stream socket, and what comes with one of the UNIX domain: descriptors.

Protocols go between it and the backend, see `trio_chardev.backends.socket.layer`.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import math
import os
import select
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from time import perf_counter

import trio

from trio_chardev.backends.socket import rights
from trio_chardev.core.splicing import CannotSplice, SplicePipe
from trio_chardev.events import Event
from trio_chardev.readiness import NO_MEMORY, Shortage, wait_readable, wait_writable

Take = Callable[[bytes], None]
"""Gets the bytes that a peer still sends when it is left."""

MAX_FDS = 16
"""Descriptors taken with one read, as QEMU; those beyond are closed."""

INTERNET = (socket.AF_INET, socket.AF_INET6)
TAKEN_INTERVAL = 0.001  # seconds; nothing tells when a peer has confirmed
SILENCE = 0.25  # seconds; who has sent nothing for so long is not about to, and its kernel neither:
# what was dropped for want of room it sends again after 0.2 s (tcp(7))
READ_SIZE = 1 << 16  # bytes
READS = 16  # in a row: a peer may send for ever
DECODED_AT_ONCE = 1 << 11  # bytes; a protocol may have much to do with each of them
ROUND_TRIPS = 2  # one, and some time to spare

# Of struct tcp_info, see linux/tcp.h.
TCP_CLOSE = 7
_TCP_INFO = struct.Struct("B147xI")  # the state, and the shortest round trip that was seen, in us


class Connection:
    """Owns a stream socket, which is connected and non-blocking. A `layer.Link`."""

    __slots__ = ("_hangup", "_has_sent_eof", "_heard", "_receiving", "_sending", "_sock", "name")

    unsent = False
    """What it has accepted the kernel has."""

    _reads = READS, READ_SIZE
    """How often it is read in a row when it is heard out, and how much at once."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._sock = sock
        self._has_sent_eof = False
        self._heard = -math.inf  # when something came; by the clock that is cheapest
        self._hangup: select.epoll | None = None  # from the first `wait_hangup` on
        self._receiving, self._sending = Shortage(), Shortage()
        self.name = name
        """What query-chardev shows."""

    @property
    def sock(self) -> socket.socket:
        """The socket; see `Link.sock`."""
        return self._sock

    async def handshake(self) -> None:
        """There is none."""
        await trio.lowlevel.checkpoint()

    def receive(self, max_bytes: int) -> bytes:
        """What has come, ``b""`` at the end. Raises BlockingIOError, or another OSError."""
        try:
            data = self._receive(max_bytes)
        except BlockingIOError:
            raise
        except OSError as exc:
            self._receiving.meet(exc, self.name)
            raise
        self._heard = perf_counter()
        return data

    def _receive(self, max_bytes: int) -> bytes:
        return self._sock.recv(max_bytes)

    def send(self, data: memoryview) -> int:
        """Send a prefix. Raises BlockingIOError, or another OSError if that is the end."""
        try:
            return self._send(data)
        except BlockingIOError:
            raise
        except OSError as exc:
            self._sending.meet(exc, self.name)
            raise

    def _send(self, data: memoryview) -> int:
        return self._sock.send(data, socket.MSG_NOSIGNAL)

    @property
    def plain_socket(self) -> socket.socket | None:
        """See `Direct.plain_socket`. Who asks wants nothing but bytes from now on."""
        return None if self._has_sent_eof else self._sock

    def receive_into(self, pipe: SplicePipe, max_bytes: int) -> int:
        """See `Direct.receive_into`."""
        size = pipe.fill(self._sock.fileno(), max_bytes)
        self._heard = perf_counter()
        return size

    def send_from(self, pipe: SplicePipe) -> int:
        """See `Direct.send_from`."""
        return pipe.empty_into(self._sock.fileno())

    def flush(self) -> None:
        """Nothing to do."""

    def has_input(self) -> bool:
        """Would `receive` give bytes?"""
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def has_room(self) -> bool:
        """Would `send` accept something, or fail?"""
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        return bool(poll.poll(0))

    async def wait_readable(self) -> None:
        """Wait for input, or the end; or until it is closed by another task."""
        if self._receiving.is_met:
            await self._receiving.wait()
        else:
            await _wait_readable(self._sock)

    async def wait_hangup(self) -> None:
        """Wait until no more can come, whatever can be read before; else as `wait_readable`.

        Raises OSError if it can't know, for want of a descriptor. A peer that could not send
        all that it had is not heard to leave: its bytes come first on the line, too.
        """
        if self._hangup is None:
            self._hangup = _make_hangup_epoll(self._sock)
        await _wait_readable(self._hangup)

    async def wait_writable(self) -> None:
        """Wait for room, or the end. Raises ClosedResourceError if another task closes it."""
        if self._sending.is_met:
            await self._sending.wait()
        else:
            await wait_writable(self._sock)

    @property
    def ends_one_way(self) -> bool:
        """See `Link.ends_one_way`."""
        return True

    @property
    def takes_more(self) -> bool:
        """See `Link.takes_more`."""
        return self._sock.fileno() != -1 and not _is_over(self._sock)

    async def wait_gone(self) -> None:
        """See `Link.wait_gone`."""
        if self._sock.fileno() == -1:
            await trio.lowlevel.checkpoint()
            return
        if self._hangup is None:
            self._hangup = _make_hangup_epoll(self._sock, 0)
        else:
            self._hangup.modify(self._sock, 0)
        await _wait_readable(self._hangup)

    def turn_away(self, why: str) -> None:
        """See `Link.turn_away`."""
        self.send(memoryview(f"{why}\r\n".encode()))

    def send_eof(self) -> None:
        """See `Link.send_eof`."""
        self._has_sent_eof = True
        self._sock.shutdown(socket.SHUT_WR)

    def shut_down(self) -> None:
        """End it both ways: what has come can still be read, then `receive` gives ``b""``."""
        with contextlib.suppress(OSError):  # the peer was faster
            self._sock.shutdown(socket.SHUT_RDWR)

    def dismiss(self) -> bool:
        """See `Link.dismiss`."""
        if perf_counter() - self._heard >= SILENCE and not self.has_input():
            self.shut_down()
            return False
        with contextlib.suppress(OSError):  # the peer was faster
            self._sock.shutdown(socket.SHUT_WR)
        self._wake()
        return True

    async def finish(self, take: Take) -> None:
        """See `Link.finish`: the peer knows by a FIN, and answers it by its own.

        One that has been silent is only waited for until its kernel has what was sent, and what
        it had sent before that came there has come here. A UNIX socket's peer has it at once,
        and one that has reset the connection never.

        It is looked for once more after its time is over: a process that is held up between a look
        and the clock has not seen what came meanwhile.
        """
        silent = perf_counter() - self._heard
        with contextlib.suppress(OSError):  # the peer was faster
            self._sock.shutdown(socket.SHUT_WR)
        now = trio.current_time()
        patience = max(now + SILENCE - silent, now + self._round_trips())
        while (size := self._take_all(take)) is not None:
            if size:
                patience = trio.current_time() + SILENCE
                await trio.lowlevel.checkpoint()
            elif (now >= patience and self._has_arrived()) or self._is_reset():
                return
            else:
                now = trio.current_time()
                await trio.sleep(TAKEN_INTERVAL)

    def _take_all(self, take: Take) -> int | None:
        """Have *take* get what has come, some of it if it comes without end.

        How much it was; None at the end. Raises OSError.
        """
        size = 0
        reads, read_size = self._reads
        with contextlib.suppress(BlockingIOError):
            for _ in range(reads):
                if not (data := self.receive(read_size)):
                    return None
                take(data)
                size += len(data)
        return size

    def _round_trips(self) -> float:
        """Seconds in which a FIN comes to the peer, and what was on its way then comes here.

        Of a peer on this host nothing is.
        """
        with contextlib.suppress(OSError):  # it has left: what it sent is here
            if self._sock.family in INTERNET and not _is_on_this_host(self._sock):
                _, shortest = _TCP_INFO.unpack(self._info(_TCP_INFO.size))
                return ROUND_TRIPS * float(shortest) * 1e-6
        return 0

    def _has_arrived(self) -> bool:
        """Has the peer's kernel what was sent, the FIN excepted, which it may confirm late?"""
        return self._sock.family not in INTERNET or count_unacknowledged(self._sock) <= 1

    def _is_reset(self) -> bool:
        """Has the peer reset the connection? What it has not confirmed still counts then."""
        return self._sock.family in INTERNET and self._info(1)[0] == TCP_CLOSE

    def _info(self, size: int) -> bytes:
        return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)

    def hand_over(
        self, on_event: Callable[[Event], None], *, nodelay: bool, keep_alive: bool
    ) -> None:
        """It is another backend's from now on, which waits for it: others stop. Never fails."""
        self._wake()
        if self._sock.family in INTERNET:
            with contextlib.suppress(OSError):  # its new reader meets that
                set_tcp_options(self._sock, nodelay=nodelay, keep_alive=keep_alive)

    def _wake(self) -> None:
        """Make those who wait for it look again."""
        trio.lowlevel.notify_closing(self._sock)
        if self._hangup is not None:
            trio.lowlevel.notify_closing(self._hangup)

    def _discard_input(self) -> None:
        """Throw away what has come: closed with unread input, TCP drops what was sent, too."""
        with contextlib.suppress(OSError):
            for _ in range(READS):
                if not self._sock.recv(READ_SIZE):
                    return

    def close(self) -> None:
        """Close the socket and wake those who wait for it. Never fails."""
        if self._sock.fileno() != -1:
            self._wake()
            if self._sock.family in INTERNET:
                self._discard_input()
        if self._hangup is not None:
            self._hangup.close()
            self._hangup = None
        rights.close_socket(self._sock)


async def _wait_readable(file: socket.socket | select.epoll) -> None:
    try:
        await wait_readable(file)
    except trio.ClosedResourceError:  # such as by an earlier task, before this one came here
        await trio.lowlevel.checkpoint()


def _make_hangup_epoll(sock: socket.socket, events: int = select.EPOLLRDHUP) -> select.epoll:
    """Trio does not wait for EPOLLRDHUP, but it waits for an epoll that does. Raises OSError.

    With no *events* it tells of EPOLLHUP and EPOLLERR alone.
    """
    epoll = select.epoll(1)
    try:
        epoll.register(sock, events)
    except BaseException:
        epoll.close()
        raise
    return epoll


class SharedConnection(Connection):
    """One for protocols to stand on: several tasks may wait to write to it, and take turns.

    TCP's urgent byte stays in the stream, where telnet has its meaning (RFC 854).
    """

    __slots__ = ("_turn",)

    _reads = 1, DECODED_AT_ONCE

    def __init__(self, sock: socket.socket, name: str) -> None:
        super().__init__(sock, name)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self._turn = trio.Lock()
        if sock.family == socket.AF_UNIX:
            rights.refuse(sock)

    def _receive(self, max_bytes: int) -> bytes:
        if self._sock.family != socket.AF_UNIX:
            return super()._receive(max_bytes)
        data, fds = rights.receive(self._sock, max_bytes)
        rights.close_fds(fds)
        return data

    async def wait_writable(self) -> None:
        async with self._turn:
            await super().wait_writable()


class UnixConnection(Connection):
    """Takes and passes descriptors beside the bytes (SCM_RIGHTS, unix(7))."""

    __slots__ = ("_fds_to_send", "_may_bring", "_received_fds")

    def __init__(self, sock: socket.socket, name: str) -> None:
        super().__init__(sock, name)
        self._received_fds: list[int] = []
        self._fds_to_send: list[int] = []
        self._may_bring: int | None = None  # of how many bytes, once no more are let to

    def _receive(self, max_bytes: int) -> bytes:
        if self._may_bring == 0:
            return super()._receive(max_bytes)
        data, fds = rights.receive(self._sock, max_bytes)
        if self._may_bring is not None:
            self._may_bring = max(0, self._may_bring - len(data)) if data else 0
        if fds:
            self._keep(fds)
        return data

    def _keep(self, fds: list[int]) -> None:
        """Keep *fds* instead of those before. Raises OSError if too many wait to be closed."""
        rights.close_fds([*self._received_fds, *fds[MAX_FDS:]])
        self._received_fds = fds[:MAX_FDS]
        if rights.CLOSER.is_full:
            raise ConnectionAbortedError("too many descriptors that were passed wait to be closed")

    def has_only_bytes(self) -> bool:
        """Let the peer pass no descriptors from now on. Can nothing but bytes come?

        Those on their way come first, with bytes that `receive` has to give.
        """
        if self._may_bring is None and rights.refuse(self._sock):
            with contextlib.suppress(OSError):
                self._may_bring = rights.count_unread(self._sock)
        return self._may_bring == 0

    @property
    def plain_socket(self) -> socket.socket | None:
        if self._has_sent_eof or self._fds_to_send or not self.has_only_bytes():
            return None
        return self._sock

    def receive_into(self, pipe: SplicePipe, max_bytes: int) -> int:
        if not self.has_only_bytes():
            raise CannotSplice
        return super().receive_into(pipe, max_bytes)

    def take_fds(self) -> list[int]:
        """The descriptors of the last read that brought any; the caller owns them now.

        Those that nobody takes are closed when others come, and with the connection.
        """
        fds, self._received_fds = self._received_fds, []
        return fds

    def send_fds(self, fds: Sequence[int]) -> None:
        """Pass *fds*, which the caller keeps, with the next bytes; instead of earlier ones.

        They are dropped if those bytes can't be sent. Raises OSError if one is not open.
        """
        duplicates: list[int] = []
        try:
            for fd in fds:
                duplicates.append(os.dup(fd))  # noqa: PERF401 - those made are closed below
        except OSError:
            _close_all(duplicates)
            raise
        _close_all(self._fds_to_send)
        self._fds_to_send = duplicates

    def _send(self, data: memoryview) -> int:
        if not self._fds_to_send:
            return super()._send(data)
        rights = array.array("i", self._fds_to_send)
        try:
            sent = self._sock.sendmsg(
                [data],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)],
                socket.MSG_NOSIGNAL,
            )
        except BaseException as exc:
            if not (isinstance(exc, BlockingIOError) or getattr(exc, "errno", 0) in NO_MEMORY):
                self._drop_fds_to_send()
            raise
        self._drop_fds_to_send()
        return sent

    def send_from(self, pipe: SplicePipe) -> int:
        if self._fds_to_send:
            raise CannotSplice
        return super().send_from(pipe)

    def _drop_fds_to_send(self) -> None:
        fds, self._fds_to_send = self._fds_to_send, []
        _close_all(fds)

    def close(self) -> None:
        super().close()
        rights.close_fds(self.take_fds())
        self._drop_fds_to_send()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def set_tcp_options(sock: socket.socket, *, nodelay: bool, keep_alive: bool) -> None:
    """Send small pieces at once, or not; probe the peer while nothing goes, or not."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, keep_alive)


def _is_on_this_host(sock: socket.socket) -> bool:
    """Does the peer use the same address as we? Raises OSError if it has left."""
    return bool(sock.getsockname()[0] == sock.getpeername()[0])


def count_unacknowledged(sock: socket.socket) -> int:
    """How many bytes the peer's kernel has not confirmed (SIOCOUTQ, tcp(7)). Raises OSError."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    assert isinstance(count, int)
    return count


def _is_over(sock: socket.socket) -> bool:
    """Is it over both ways? So it is when the peer has reset it, or closed a UNIX socket.

    What a TCP peer has not confirmed still counts then.
    """
    poll = select.poll()
    poll.register(sock, 0)  # for POLLHUP and POLLERR only, which always tell
    return bool(poll.poll(0))
