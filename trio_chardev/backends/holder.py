"""A descriptor that is owned, and read and written without waiting.

An `FdHolder` forgets the number when it closes it: the kernel gives the same number to the
next file that is opened, perhaps in another backend.

A description that other programs share (standard input and output, what was passed to us) is
not put into non-blocking mode, which would hit them, too: `hold_shared` finds a way round.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio

from trio_chardev.backends.borrowed import NonBlocking
from trio_chardev.errors import BackendError
from trio_chardev.readiness import Shortage, wait_readable, wait_writable

ANY_TERMINAL = "/dev/tty"  # tty(4): the one that controls this process
CLONING_MASTER = (5, 2)  # /dev/ptmx: to open it again would make another PTY
MEMORY = 1  # the major number of /dev/null, /dev/zero and the like, which never block
TIOCGDEV = 0x80045432  # ioctl_tty(2); the number of the terminal that /dev/tty stands for

A = TypeVar("A")
R = TypeVar("R")


@contextmanager
def owned(close: Callable[[], object]) -> Iterator[None]:
    """Call *close* if the block raises: what it was to take over is nobody's then."""
    try:
        yield
    except BaseException:
        close()
        raise


class FdHolder:
    """Owns one descriptor, which is in non-blocking mode.

    Whom that may harm should be asked before, see `hold_shared`; closing puts it back as it was.
    """

    __slots__ = ("_is_waited_for", "_non_blocking", "_reading", "_writing", "fd")

    fd: int
    """The descriptor, or -1 when closed."""

    def __init__(self, fd: int) -> None:
        """Own *fd*, also if this raises OSError."""
        self.fd = fd
        self._is_waited_for = False  # ever; else Trio does not know it
        self._reading, self._writing = Shortage(), Shortage()
        with owned(lambda: os.close(fd)):
            self._non_blocking = self._have_non_blocking()

    def _have_non_blocking(self) -> NonBlocking | None:
        return NonBlocking(self.fd)

    @property
    def closed(self) -> bool:
        return self.fd == -1

    def fileno(self) -> int:
        """See `fd`."""
        return self.fd

    def close(self) -> None:
        """Close it, if it is open; who waits for it gets BackendError. Never fails."""
        if self.closed:
            return
        fd, self.fd = self.fd, -1
        if self._is_waited_for:
            trio.lowlevel.notify_closing(fd)
        if self._non_blocking is not None:
            self._non_blocking.release()
        # What close(2) reports is of earlier writes, and the descriptor is gone anyway.
        with contextlib.suppress(OSError):
            os.close(fd)

    def read(self, max_bytes: int) -> bytes:
        """As read(2). Raises OSError, BlockingIOError if there is nothing yet."""
        return self._try(self._read, max_bytes, self._reading)

    def write(self, data: memoryview) -> int:
        """As write(2). Raises OSError, BlockingIOError if there is no room."""
        return self._try(self._write, data, self._writing)

    def _try(self, call: Callable[[A], R], argument: A, shortage: Shortage) -> R:
        """What *call* gives. No memory is as if it would block."""
        try:
            return call(argument)
        except BlockingIOError:
            raise
        except OSError as exc:
            shortage.meet(exc, _name_of(self.fd))
            raise

    def _read(self, max_bytes: int) -> bytes:
        return os.read(self.fd, max_bytes)

    def _write(self, data: memoryview) -> int:
        return os.write(self.fd, data)

    async def wait_readable(self) -> None:
        """Wait for input, end of file or hang-up. Raises BackendError if it is closed."""
        await self._wait(wait_readable, self._reading)

    async def wait_writable(self) -> None:
        """Wait for room, or an error to be had. Raises BackendError if it is closed."""
        await self._wait(wait_writable, self._writing)

    async def _wait(self, wait: Callable[[FdHolder], Awaitable[None]], shortage: Shortage) -> None:
        if shortage.is_met:
            await shortage.wait()
            return
        try:
            self._is_waited_for = True
            await wait(self)
        except PermissionError:
            # epoll_ctl(2) refuses what never blocks: regular files, /dev/null.
            await trio.lowlevel.checkpoint()
        except trio.ClosedResourceError:
            raise BackendError("The file descriptor was closed") from None
        except OSError as exc:
            raise BackendError.from_os_error("Could not wait for a file descriptor", exc) from exc


def _name_of(fd: int) -> str:
    """For the log."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"


class _NeverBlocking(FdHolder):
    """A regular file, or /dev/null: the mode makes no difference."""

    __slots__ = ()

    def _have_non_blocking(self) -> None:
        return None


class _SharedSocket(_NeverBlocking):
    """A socket: each call can say for itself that it shall not wait."""

    __slots__ = ("_sock",)

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        with owned(self.close):
            self._sock = socket.socket(fileno=fd)

    def close(self) -> None:
        if not self.closed and hasattr(self, "_sock"):
            self._sock.detach()
        super().close()

    def _read(self, max_bytes: int) -> bytes:
        return self._sock.recv(max_bytes, socket.MSG_DONTWAIT)

    def _write(self, data: memoryview) -> int:
        return self._sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class _SharedPipe(_NeverBlocking):
    """A pipe that can't be opened again: asked first, it does not block for `PIPE_BUF` bytes.

    Another who reads or writes at the very same moment could make it wait for him, once.
    """

    __slots__ = ()

    def _read(self, max_bytes: int) -> bytes:
        self._check(select.POLLIN)
        return super()._read(max_bytes)

    def _write(self, data: memoryview) -> int:
        self._check(select.POLLOUT)
        return super()._write(data[: select.PIPE_BUF])

    def _check(self, mask: int) -> None:
        poll = select.poll()
        poll.register(self.fd, mask)
        if not poll.poll(0):
            raise BlockingIOError


def hold_shared(fd: int) -> FdHolder:
    """Own *fd*, whose description others share, which shall not notice. Raises OSError.

    A terminal, pipe or FIFO is opened again, for a description of our own. Where that can't be
    (another user's, no /proc), there is `_SharedPipe`, and the last resort: a mode that is put
    back.
    """
    with owned(lambda: os.close(fd)):
        status = os.fstat(fd)
        if stat.S_ISSOCK(status.st_mode):
            make: Callable[[int], FdHolder] = _SharedSocket
        elif never_blocks(status):
            make = _NeverBlocking
        elif (own := reopen(fd, status)) is not None:
            os.close(fd)
            return FdHolder(own)
        else:
            make = _SharedPipe if stat.S_ISFIFO(status.st_mode) else FdHolder
    return make(fd)


def never_blocks(status: os.stat_result) -> bool:
    """Does the mode make no difference to such a file?"""
    mode = status.st_mode
    if stat.S_ISCHR(mode):
        return os.major(status.st_rdev) == MEMORY
    return not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def reopen(fd: int, status: os.stat_result) -> int | None:
    """Another description of the terminal, pipe or FIFO at *fd*, non-blocking; None: can't be.

    Other devices may do something when they are opened, and a regular file's offset is shared.
    """
    is_terminal = stat.S_ISCHR(status.st_mode) and os.isatty(fd)
    number = os.major(status.st_rdev), os.minor(status.st_rdev)
    if not (stat.S_ISFIFO(status.st_mode) or (is_terminal and number != CLONING_MASTER)):
        return None
    try:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:
        return None
    flags |= os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/fd/{fd}", flags)
    if is_terminal:  # such as one that another user has logged in at, before su(1)
        with contextlib.suppress(OSError):
            return _open_controlling(fd, flags)
    return None


def _open_controlling(fd: int, flags: int) -> int | None:
    own = os.open(ANY_TERMINAL, flags)
    with owned(lambda: os.close(own)):
        if _terminal_number(own) == _terminal_number(fd):
            return own
    os.close(own)
    return None


def _terminal_number(fd: int) -> int:
    (number,) = struct.unpack("I", fcntl.ioctl(fd, TIOCGDEV, bytes(4)))
    return int(number)
