"""Descriptors that a peer passes (SCM_RIGHTS, unix(7)): refuses them, or closes them in threads.

close(2) waits for as long as its descriptor says: a TCP socket with SO_LINGER for its last bytes, a
file of FUSE for its server. So a descriptor of a stranger, and a socket in whose queue there may
be some, is closed by a thread. Where none are wanted they are refused (SO_PASSRIGHTS, Linux 6.16).
"""

from __future__ import annotations

import _thread
import array
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from trio_chardev.workers import POOL, NoThreadError

SO_PASSRIGHTS = 83
MAX_RIGHTS = 253  # the kernel's SCM_MAX_FD; with less room it would close the rest itself
MAX_THREADS = 8
MAX_WAITING = 256  # to be closed; then no more are taken, nor clients of UNIX sockets
READ_SIZE = 1 << 16

_NO_LINGER = struct.pack("ii", 0, 0)
_FLAGS = int(socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)  # made once: an enum's | takes 1 us
_SPACE = socket.CMSG_SPACE(MAX_RIGHTS * array.array("i").itemsize)


def refuse(sock: socket.socket) -> bool:
    """Refuse descriptors that are passed to *sock*, or to the sockets that it accepts.

    Returns False if the kernel can't. Those that have come already stay in the queue.
    """
    return _let(sock, False)


def allow(sock: socket.socket) -> None:
    """Allow descriptors again."""
    _let(sock, True)


def _let(sock: socket.socket, is_allowed: bool) -> bool:
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, is_allowed)
    except OSError:  # ENOPROTOOPT, before Linux 6.16
        return False
    return True


def receive(sock: socket.socket, max_bytes: int) -> tuple[bytes, list[int]]:
    """Do recv(2), and return the descriptors that came with it, which the caller owns."""
    data, ancillary, _, _ = sock.recvmsg(max_bytes, _SPACE, _FLAGS)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, fds.tolist()


def count_unread(sock: socket.socket) -> int:
    """Return how many bytes wait in the queue of *sock*. Raises OSError."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))
    return int(count)


class Closer:
    """Calls closing functions in a few threads; its caller never waits."""

    def __init__(self, run: Callable[..., None] = POOL.run) -> None:
        self._run = run
        self._waiting: deque[Callable[[], object]] = deque()
        self._lock = _thread.allocate_lock()
        self._threads = 0

    @property
    def is_idle(self) -> bool:
        """Have all been called?"""
        return not self._threads

    @property
    def is_full(self) -> bool:
        """Do so many wait that no more should be taken?"""
        return len(self._waiting) >= MAX_WAITING

    def do(self, close: Callable[[], object]) -> None:
        """Call *close*, which must not raise, soon."""
        with self._lock:
            self._waiting.append(close)
            if self._threads == MAX_THREADS:
                return
            self._threads += 1
        try:
            self._run(self._work, _nothing)
        except NoThreadError:
            self._work()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                close = self._waiting.popleft()
            close()


def _nothing() -> None:
    """Do nothing."""


CLOSER = Closer()
"""One for the process, as descriptors are the process's."""


def close_fds(fds: Iterable[int]) -> None:
    """Close *fds*, which a peer has passed, soon."""
    for fd in fds:
        CLOSER.do(partial(_close_fd, fd))


def close_socket(sock: socket.socket) -> None:
    """Close *sock* now; or soon, if its peer may have passed descriptors to it. Never fails."""
    if sock.family != socket.AF_UNIX or sock.fileno() == -1 or _has_only_bytes(sock):
        with contextlib.suppress(OSError):  # such as ECONNRESET: it is closed all the same
            sock.close()
    else:
        CLOSER.do(partial(_close_unread, sock, is_shared=type(sock) is not socket.socket))


def _has_only_bytes(sock: socket.socket) -> bool:
    try:
        return refuse(sock) and not count_unread(sock)
    except OSError:
        return False


# ---------------------------------------------------------------- in a thread


def _close_fd(fd: int) -> None:
    """Close *fd*, without waiting for a socket's unsent bytes."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:  # it is not a socket
        with contextlib.suppress(OSError):
            os.close(fd)
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    with contextlib.suppress(OSError):
        sock.close()


def _close_unread(sock: socket.socket, *, is_shared: bool) -> None:
    """Close *sock*, and before it the descriptors in its queue, unless others may read them."""
    with contextlib.suppress(OSError):
        while not is_shared:
            data, fds = receive(sock, READ_SIZE)
            for fd in fds:
                _close_fd(fd)
            if not data:
                break
    with contextlib.suppress(OSError):
        sock.close()
