"""A connected stream socket, and the descriptors that come with one of the UNIX domain.

Protocols go between it and the backend, see `trio_chardev.backends.socket.layer`.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
from collections.abc import Callable
from socket import MSG_NOSIGNAL
from time import perf_counter
from typing import Self

import trio

from trio_chardev.backends.socket import rights
from trio_chardev.backends.socket.codec import TRY_AGAIN_LATER
from trio_chardev.backends.socket.tcp import (
    INTERNET,
    has_arrived,
    is_reset,
    round_trips,
    set_tcp_options,
)
from trio_chardev.core.reactor import notify_closing
from trio_chardev.core.splicing import SplicePipe
from trio_chardev.events import BackendEvent
from trio_chardev.readiness import Shortage, wait_readable, wait_writable

Take = Callable[[bytes], None]
"""Called with the bytes that a peer still sends while it is left."""


TAKEN_INTERVAL = 0.001  # seconds; nothing reports that a peer has acknowledged data
SILENCE = 0.25  # seconds; a peer that was silent for so long will not send, and its kernel neither:
# it retransmits what was dropped for want of room after 0.2 s (tcp(7))
READ_SIZE = 1 << 16  # bytes
READS = 16  # in a row, as a peer may send for ever


class Connection:
    """Owns a stream socket, which is connected and non-blocking. It is a `Link`."""

    __slots__ = ("_hangup", "_has_sent_eof", "_heard", "_receiving", "_sending", "_sock", "name")

    unsent = False
    """False, as the kernel has what it has accepted."""

    _reads = READS, READ_SIZE
    """How often it is read in a row by `finish`, and how many bytes at once."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._sock = sock
        self._has_sent_eof = False
        self._heard = -math.inf  # when something came, by the cheapest clock
        self._hangup: select.epoll | None = None  # from the first `wait_hangup` on
        self._receiving, self._sending = Shortage(), Shortage()
        self.name = name
        """The connection as query-chardev shows it."""

    @property
    def sock(self) -> socket.socket:
        """The socket; see `Link.sock`."""
        return self._sock

    async def handshake(self) -> None:
        """Return at once, as there is none."""
        await trio.lowlevel.checkpoint()

    def receive(self, max_bytes: int) -> bytes:
        """Read what has come, ``b""`` at the end. Raises BlockingIOError, or another OSError."""
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
        """Send a prefix. Raises BlockingIOError, or another OSError if the connection is over."""
        try:
            return self._sock.send(data, MSG_NOSIGNAL)
        except BlockingIOError:
            raise
        except OSError as exc:
            self._sending.meet(exc, self.name)
            raise

    @property
    def plain_socket(self) -> socket.socket | None:
        """See `Direct.plain_socket`. From now on the caller wants nothing but bytes."""
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
        """Do nothing."""

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
            return
        try:
            await wait_readable(self._sock)
        except trio.ClosedResourceError:  # as when another task has closed it before this wait
            await trio.lowlevel.checkpoint()

    async def wait_hangup(self) -> None:
        """Wait until no more can come, even if input is unread; or else as `wait_readable`.

        Raises OSError if that can't be known, for want of a descriptor. While a peer could not send
        all that it had, its hang-up is not noticed: its bytes are first on the wire, too.
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

    def turn_away(self, why: str, code: int = TRY_AGAIN_LATER) -> None:
        """See `Link.turn_away`."""
        self.send(memoryview(f"{why}\r\n".encode()))

    def send_eof(self) -> None:
        """See `Link.send_eof`."""
        self._has_sent_eof = True
        self._sock.shutdown(socket.SHUT_WR)

    def shut_down(self) -> None:
        """End both directions: what has come can still be read, then `receive` gives ``b""``."""
        with contextlib.suppress(OSError):  # the peer has ended it first
            self._sock.shutdown(socket.SHUT_RDWR)

    def dismiss(self) -> bool:
        """See `Link.dismiss`."""
        if perf_counter() - self._heard >= SILENCE and not self.has_input():
            self.shut_down()
            return False
        with contextlib.suppress(OSError):  # the peer has ended it first
            self._sock.shutdown(socket.SHUT_WR)
        self._wake()
        return True

    async def finish(self, take: Take) -> None:
        """See `Link.finish`: a FIN tells the peer, which answers with its own.

        A silent peer is only waited for until its kernel has what was sent, and what the peer had
        sent before that has come here. The peer of a UNIX socket has it at once, and one that has
        reset the connection never will.

        After the time is over there is one more look, as a process that is held up between a look
        and the clock has not seen what came meanwhile.
        """
        silent = perf_counter() - self._heard
        if silent >= SILENCE and self._sock.family == socket.AF_UNIX and not self.has_input():
            return  # close(2), which follows, tells it as well, and does not wake it beside this
        with contextlib.suppress(OSError):  # the peer has ended it first
            self._sock.shutdown(socket.SHUT_WR)
        now = trio.current_time()
        patience = max(now + SILENCE - silent, now + round_trips(self._sock))
        with _Arrivals(self._sock) as arrivals:
            while (size := self._take_all(take)) is not None:
                if size:
                    patience = trio.current_time() + SILENCE
                    await trio.lowlevel.checkpoint()
                elif (now >= patience and has_arrived(self._sock)) or is_reset(self._sock):
                    return
                else:
                    now = trio.current_time()
                    await arrivals.wait(TAKEN_INTERVAL)

    def _take_all(self, take: Take) -> int | None:
        """Pass what has come to *take*, or some of it if it comes without end.

        Returns how many bytes; None at the end. Raises OSError.
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

    def hand_over(
        self, on_event: Callable[[BackendEvent], None], *, nodelay: bool, keep_alive: bool
    ) -> None:
        """Give it to another backend, which will wait for it; others stop. Never fails."""
        self._wake()
        if self._sock.family in INTERNET:
            with contextlib.suppress(OSError):  # its new reader will get the error
                set_tcp_options(self._sock, nodelay=nodelay, keep_alive=keep_alive)

    def _wake(self) -> None:
        """Wake the tasks that wait for it."""
        notify_closing(self._sock.fileno())
        if self._hangup is not None:
            trio.lowlevel.notify_closing(self._hangup)

    def _discard_input(self) -> None:
        """Discard what has come: if closed with unread input, TCP drops what was sent, too."""
        with contextlib.suppress(OSError):
            for _ in range(READS):
                if not self._sock.recv(READ_SIZE):
                    return

    def close(self) -> None:
        """Close the socket and wake the tasks that wait for it. Never fails."""
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
    except trio.ClosedResourceError:  # as when another task has closed it before this wait
        await trio.lowlevel.checkpoint()


def _make_hangup_epoll(sock: socket.socket, events: int = select.EPOLLRDHUP) -> select.epoll:
    """Make an epoll to wait for, as Trio itself can't wait for EPOLLRDHUP. Raises OSError.

    With no *events* it reports EPOLLHUP and EPOLLERR alone.
    """
    epoll = select.epoll(1)
    try:
        epoll.register(sock, events)
    except BaseException:
        epoll.close()
        raise
    return epoll


class _Arrivals:
    """Waits for input of a socket for which another task may wait, too: Trio has one wait for it."""

    __slots__ = ("_epoll", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._epoll: select.epoll | None = None  # made when it is first waited for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._epoll is not None:
            self._epoll.close()

    async def wait(self, timeout: float) -> None:
        """Wait for *timeout* seconds at most."""
        if self._epoll is None:
            try:
                self._epoll = _make_hangup_epoll(self._sock, select.EPOLLIN)
            except OSError:  # there is no descriptor to spare
                await trio.sleep(timeout)
                return
        with trio.move_on_after(timeout):
            await wait_readable(self._epoll)


def _is_over(sock: socket.socket) -> bool:
    """Is it over in both directions? It is when the peer has reset it, or closed a UNIX socket.

    Bytes that a TCP peer has not acknowledged still count then.
    """
    poll = select.poll()
    poll.register(sock, 0)  # for POLLHUP and POLLERR only, which are always reported
    return bool(poll.poll(0))
