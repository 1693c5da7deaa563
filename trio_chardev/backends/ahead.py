"""A regular file that is read ahead, in threads, as its disk may hang.

One piece is there before anybody asks, and the next is read when that has been taken. Reads use an
offset of our own: a descriptor that was passed keeps its position for others who share it, and
what a cancelled call has read is read again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from functools import partial

import trio

from trio_chardev.backends.holder import FdHolder
from trio_chardev.errors import BackendError
from trio_chardev.files import end_on_files
from trio_chardev.workers import NoThreadError, do_in_worker, run_in_worker

PIECE = 1 << 16  # bytes
NO_THREAD_PAUSE = 1.0  # seconds


class RegularFile:
    """A descriptor that threads read and close, as closing may block, too."""

    __slots__ = ("_is_closed", "_lock", "_readers", "fd")

    def __init__(self, fd: int) -> None:
        """Take *fd* over."""
        self.fd = fd
        self._lock = threading.Lock()
        self._readers = 0
        self._is_closed = False

    def read(self, offset: int) -> bytes:
        """Read at most `PIECE` bytes. Raises OSError."""
        with self._lock:
            if self._is_closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._readers += 1
        try:
            return os.pread(self.fd, PIECE, offset)
        finally:
            with self._lock:
                self._readers -= 1
                is_last = self._is_closed and not self._readers
            if is_last:
                self._close()

    def close(self) -> None:
        """Close it now, or when the thread that is reading has finished."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            is_read = self._readers
        if not is_read:
            self._close()

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def __del__(self) -> None:
        self.close()


class ReadAhead(FdHolder):
    """The file from *offset* on, a piece of which has been read and not taken yet."""

    __slots__ = ("_data", "_error", "_file", "_is_at_end", "_limiter", "_offset")

    def __init__(self, file: RegularFile, offset: int = 0) -> None:
        self._file: RegularFile | None = file
        self._offset = offset  # of the next piece
        self._data = b""
        self._is_at_end = False
        self._error: OSError | None = None
        self._limiter = trio.CapacityLimiter(2)  # one thread may have been abandoned
        super().__init__(file.fd)

    def _have_non_blocking(self) -> None:
        return None

    def close(self) -> None:
        """Read no more. A thread closes the descriptor; see `aclose`."""
        file = self._file
        self.fd, self._file = -1, None
        if file is not None:
            do_in_worker(file.close)

    async def aclose(self, what: str) -> None:
        """Do as `close`, and wait for the thread, as `end_on_files` does."""
        file = self._file
        self.fd, self._file = -1, None
        if file is not None:
            await end_on_files(what, file.close)
        self._error = None  # its traceback refers to the file

    def read_first(self) -> None:
        """Read the first piece; for a thread. `read` raises the error, if there was one."""
        if self._file is not None:
            try:
                self._note(self._file.read(self._offset))
            except OSError as exc:
                self._error = exc

    def read(self, max_bytes: int) -> bytes:
        """Take at most *max_bytes* of what is there; ``b""`` at the end.

        Raises BlockingIOError if nothing is there yet, and OSError.
        """
        if self._data:
            data, self._data = self._data[:max_bytes], self._data[max_bytes:]
            return data
        if self._error is not None:
            raise self._error
        if self._is_at_end:
            return b""
        raise BlockingIOError

    @property
    def is_waiting(self) -> bool:
        """Would `read` raise BlockingIOError?"""
        return not (self._data or self._error is not None or self._is_at_end)

    async def wait_readable(self) -> None:
        """Read the next piece, if all was taken. Raises BackendError if it is closed."""
        if self._file is None:
            raise BackendError("The file descriptor was closed")
        if not self.is_waiting:
            await trio.lowlevel.checkpoint()
            return
        try:
            data = await run_in_worker(
                partial(self._file.read, self._offset), limiter=self._limiter
            )
        except NoThreadError:
            await trio.sleep(NO_THREAD_PAUSE)
        except OSError as exc:
            self._error = exc
        else:
            self._note(data)

    def _note(self, data: bytes) -> None:
        self._offset += len(data)
        self._data = data
        self._is_at_end = not data
