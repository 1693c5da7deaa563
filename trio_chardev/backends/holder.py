"""A class that owns a descriptor, and reads and writes it without waiting.

An `FdHolder` forgets the number when it closes the descriptor, because the kernel gives the same
number to the next file that is opened, perhaps in another backend.

If other programs share the open file description (standard input and output, passed descriptors),
it is not put into non-blocking mode, which would affect them, too: `hold_shared` finds another way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import stat
import struct
from collections.abc import Awaitable, Callable

import trio

from trio_chardev.backends.borrowed import NonBlocking
from trio_chardev.core.reactor import notify_closing
from trio_chardev.errors import BackendError
from trio_chardev.readiness import NO_ROOM, Shortage, wait_readable, wait_writable

ANY_TERMINAL = "/dev/tty"  # tty(4): the controlling terminal
CLONING_MASTER = (5, 2)  # /dev/ptmx: opening it again would make another PTY
MEMORY = 1  # the major number of /dev/null, /dev/zero and the like, which never block
TIOCGDEV = 0x80045432  # ioctl_tty(2): gets the number of the terminal that /dev/tty stands for


class owned:  # noqa: N801 - used as a context manager is
    """Calls *close* if the block raises, that is, before it has handed the resource over."""

    __slots__ = ("_close",)

    def __init__(self, close: Callable[[], object]) -> None:
        self._close = close

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            self._close()


class FdHolder:
    """Owns one descriptor, which it puts into non-blocking mode; closing restores the mode.

    If others may share the description, use `hold_shared`.
    """

    __slots__ = ("_is_waited_for", "_non_blocking", "_reading", "_writing", "fd")

    fd: int
    """The descriptor, or -1 when closed."""

    def __init__(self, fd: int) -> None:
        """Take *fd* over, even if this raises OSError."""
        self.fd = fd
        self._is_waited_for = False  # was it ever? Otherwise Trio does not know it
        self._reading, self._writing = Shortage(), Shortage()
        with owned(lambda: os.close(fd)):
            self._non_blocking = self._have_non_blocking()

    def _have_non_blocking(self) -> NonBlocking | None:
        return NonBlocking(self.fd)

    @property
    def closed(self) -> bool:
        return self.fd == -1

    def fileno(self) -> int:
        """The descriptor, or -1 when closed."""
        return self.fd

    def close(self) -> None:
        """Close it, if it is open; tasks that wait for it get BackendError. Raises nothing."""
        if self.closed:
            return
        fd, self.fd = self.fd, -1
        if self._is_waited_for:
            notify_closing(fd)
        if self._non_blocking is not None:
            self._non_blocking.release()
        # close(2) reports errors of earlier writes, and closes the descriptor in any case.
        with contextlib.suppress(OSError):
            os.close(fd)

    def read(self, max_bytes: int) -> bytes:
        """Do read(2). Raises OSError; BlockingIOError if there is nothing yet."""
        try:
            return self._read(max_bytes)
        except BlockingIOError:
            raise
        except OSError as exc:
            self._reading.meet(exc, _name_of(self.fd))
            raise

    def write(self, data: memoryview) -> int:
        """Do write(2). Raises OSError; BlockingIOError if there is no room."""
        try:
            return self._write(data)
        except BlockingIOError:
            raise
        except OSError as exc:
            self._writing.meet(exc, _name_of(self.fd))
            raise

    def _read(self, max_bytes: int) -> bytes:
        return os.read(self.fd, max_bytes)

    def _write(self, data: memoryview) -> int:
        return os.write(self.fd, data)

    def input_fd(self) -> int | None:
        """The descriptor, which somebody is about to wait for, see `Backend.input_fd`; None if closed."""
        if self.fd == -1:
            return None
        self._is_waited_for = True
        return self.fd

    def wait_readable(self) -> Awaitable[None]:
        """Wait for input, end of file or hang-up. Raises BackendError if it is closed."""
        return self._wait(trio.lowlevel.wait_readable, wait_readable, self._reading)

    def wait_writable(self) -> Awaitable[None]:
        """Wait for room, or an error to be had. Raises BackendError if it is closed."""
        return self._wait(trio.lowlevel.wait_writable, wait_writable, self._writing)

    async def _wait(
        self,
        wait: Callable[[int], Awaitable[None]],
        wait_without_room: Callable[[FdHolder], Awaitable[None]],
        shortage: Shortage,
    ) -> None:
        """Await *wait*, or *wait_without_room* if epoll has none."""
        if shortage.is_met:
            await shortage.wait()
            return
        if self.fd == -1:
            raise BackendError("The file descriptor was closed")
        self._is_waited_for = True
        try:
            try:
                await wait(self.fd)
            except OSError as exc:
                if exc.errno not in NO_ROOM:
                    raise
            else:
                return
            await wait_without_room(self)
        except PermissionError:
            # epoll_ctl(2) rejects files that never block: regular files, /dev/null.
            await trio.lowlevel.checkpoint()
        except trio.ClosedResourceError:
            raise BackendError("The file descriptor was closed") from None
        except OSError as exc:
            raise BackendError.from_os_error("Could not wait for a file descriptor", exc) from exc


def _name_of(fd: int) -> str:
    """The name of the file, for the log."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"descriptor {fd}"


class _NeverBlocking(FdHolder):
    """A regular file, or /dev/null, for which the mode makes no difference."""

    __slots__ = ()

    def _have_non_blocking(self) -> None:
        return None


def closed_holder() -> FdHolder:
    """Return one that holds nothing yet, as if it had been closed."""
    return _NeverBlocking(-1)


class _SharedSocket(_NeverBlocking):
    """A socket, for which each call can have MSG_DONTWAIT."""

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
    """A pipe that can't be opened again; when polled first, up to `PIPE_BUF` bytes do not block.

    Somebody else who reads or writes at the very same moment could block us, once.
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
    """Take *fd* over, whose description is shared, so that others do not notice. Raises OSError.

    A terminal, pipe or FIFO is opened again, for a description of our own. If that fails (another
    user's, no /proc), a pipe becomes a `_SharedPipe`; the last resort is to change the mode and
    restore it.
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
    """Does non-blocking mode make no difference for this file?"""
    mode = status.st_mode
    if stat.S_ISCHR(mode):
        return os.major(status.st_rdev) == MEMORY
    return not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))


def reopen(fd: int, status: os.stat_result) -> int | None:
    """Open the terminal, pipe or FIFO at *fd* again, non-blocking; None if that is impossible.

    Not so other files: opening a device may have effects, and a regular file's offset is shared.
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
    if is_terminal:  # perhaps another user's who logged in there before su(1)
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
