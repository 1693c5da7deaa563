"""The base of backends on file descriptors: opening, reading, writing and waiting."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import struct
import termios
from collections.abc import Callable, Iterator

import trio

from trio_chardev.backends.holder import FdHolder as FdHolder, hold_shared, owned
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.environment import open_path
from trio_chardev.errors import BackendDisconnectedError, BackendError, backend_errors
from trio_chardev.files import work_on_files

log = logging.getLogger(__name__)

READ_SIZE = 1 << 16  # bytes
TERMINAL_READ = 4095  # bytes that one read(2) of a terminal gives at most (n_tty.c)
TERMINAL_READS = 4  # in a row; more of them gain little
DRAIN_INTERVAL = 0.001  # seconds; nothing reports that a reader has taken all


def open_fd(path: str, flags: int, opener: Callable[[str, int], int] = open_path) -> FdHolder:
    """Open *path* by *opener*, without waiting for a peer.

    Raises BackendError, ``Could not open 'PATH': strerror``.
    """
    with backend_errors(f"Could not open '{path}'"):
        fd = opener(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with owned(lambda: os.close(fd)):
            is_shared = os.get_blocking(fd)  # then it is a duplicate of a client's descriptor
        return hold_shared(fd) if is_shared else FdHolder(fd)


def status_of(path: str, request: OpenRequest, flags: int = os.O_PATH) -> os.stat_result | None:
    """The status of what is at *path*; None if it can't be opened with *flags*, as /dev/fdset/N.

    Raises BackendError, also if it is outside of the sandbox.
    """
    try:
        fd = request.files.open(path, flags | os.O_CLOEXEC)
    except (OSError, ValueError):  # reported when it is opened
        return None
    try:
        return os.fstat(fd)
    except OSError as exc:
        raise BackendError.from_os_error(f"Could not open '{path}'", exc) from exc
    finally:
        os.close(fd)


def mode_of(holder: FdHolder, path: str) -> int:
    """The type of the open file, for stat.S_ISREG() and the like. Raises BackendError."""
    try:
        return os.fstat(holder.fd).st_mode
    except OSError as exc:
        raise BackendError.from_os_error(f"Could not open '{path}'", exc) from exc


async def open_fd_in_worker(
    path: str, flags: int, opener: Callable[[str, int], int] = open_path
) -> FdHolder:
    """Run `open_fd` in a thread, as the disk may hang. Raises as it does; see `work_on_files`."""
    with slow_errors(f"Could not open '{path}'"):
        return await work_on_files(open_fd, path, flags, opener, discard=FdHolder.close)


async def status_in_worker(path: str, request: OpenRequest) -> os.stat_result | None:
    """Run `status_of` in a thread. Raises BackendError; see `work_on_files`."""
    with slow_errors(f"Could not open '{path}'"):
        return await work_on_files(status_of, path, request)


@contextlib.contextmanager
def slow_errors(failed: str) -> Iterator[None]:
    """Make OSErrors, such as those of `work_on_files`, BackendErrors."""
    try:
        yield
    except OSError as exc:
        raise BackendError.from_os_error(failed, exc) from exc


def count_unread(fd: int) -> int:
    """How many unread bytes a FIFO or terminal has. Raises OSError."""
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    assert isinstance(count, int)
    return count


def read_terminal(fd: int, max_bytes: int) -> bytes:
    """Do read(2), and again while it gives as much as a terminal can. Raises OSError."""
    data = os.read(fd, max_bytes)
    if len(data) < TERMINAL_READ:
        return data
    pieces = [data]
    with contextlib.suppress(OSError):  # the next call reports it, and the end of file
        while len(pieces[-1]) == TERMINAL_READ and len(pieces) < TERMINAL_READS:
            max_bytes -= TERMINAL_READ
            if not max_bytes or not (more := os.read(fd, max_bytes)):
                break
            pieces.append(more)
    return b"".join(pieces)


def truncate(fd: int) -> None:
    """Truncate the file if it is a regular one, as O_TRUNC does. Raises OSError."""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        os.ftruncate(fd, 0)


class DescriptorBackend(Backend):
    """A backend that reads from one descriptor and writes to another, or the same one."""

    def __init__(self, request: OpenRequest, source: FdHolder | None, sink: FdHolder) -> None:
        """Take *source* (None means no input, now or later) and *sink* over."""
        super().__init__(request)
        self.source = source
        self.sink = sink

    def receive_nowait(self, max_bytes: int) -> bytes:
        return self.read_nowait(max_bytes)

    def read_nowait(self, max_bytes: int) -> bytes:
        """Read what has come, ``b""`` if nothing has; the end, and errors, are handled."""
        if self.source is None or max_bytes == 0:  # reading 0 bytes would look like the end
            return b""
        try:
            data = self.read(self.source, max_bytes)
        except BlockingIOError:
            return b""
        except OSError as exc:
            self.input_ended(exc)
            return b""
        if not data:
            self.input_ended(None)
        return data

    def read(self, source: FdHolder, max_bytes: int) -> bytes:
        """Do read(2). Raises OSError."""
        return source.read(max_bytes)

    def input_ended(self, error: OSError | None) -> None:
        """Handle the end of file (None), or a read that failed with *error*.

        By default this reports CLOSED, and ends the input; output goes on. But if one descriptor
        serves both directions and fails, it raises BackendError.
        """
        if error is not None:
            failure = BackendError.from_os_error(f"Could not read from {self.filename}", error)
            if self.source is self.sink:
                raise failure
            log.warning("chardev '%s': %s", self.id, failure)
        if self.source is not None and self.source is not self.sink:
            self.source.close()
        self.source = None
        self.set_open(False)

    def send_nowait(self, data: memoryview) -> int:
        try:
            return self.sink.write(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise self.send_failed(exc) from exc

    def send_failed(self, error: OSError) -> BackendError:
        """Make the exception for a write that failed with *error*."""
        gone = isinstance(error, ConnectionError)  # EPIPE, ECONNRESET and the like
        kind = BackendDisconnectedError if gone else BackendError
        return kind.from_os_error(f"Could not write to {self.filename}", error)

    async def wait_readable(self) -> None:
        if self.source is None:
            await trio.sleep_forever()
        else:
            await self.source.wait_readable()

    async def wait_writable(self) -> None:
        await self.sink.wait_writable()

    def close(self) -> None:
        """Close both descriptors. Called by the opener at its end."""
        if self.source is not None:
            self.source.close()
        self.sink.close()
