"""The file of a ring, which survives a crash.

It is a head of one page and then the bytes. The head tells the size, where the oldest
byte is and where the next one goes, both counted from the ring's first byte ever. A step
moves the first of them past what it will overwrite, writes the bytes, and then moves the
second: killed in between, the file lacks the oldest bytes or the newest, but what it has is
right. Each is one pwrite(2), which SIGKILL does not tear, and the kernel keeps the pages
when the process is gone. (Not when the machine is: nothing is synced.)

The file is not mapped: if somebody truncated it, that would be a SIGBUS.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from contextlib import suppress

from trio_chardev.errors import BackendError

HEAD_SIZE = 4096  # bytes
_MAGIC = b"trio-chardev ring 1\n"
_HEAD = struct.Struct("<24sQQQ")  # magic, size, start, end
_BOUNDS = struct.Struct("<QQ")  # the last two
_BOUNDS_AT = _HEAD.size - _BOUNDS.size

Bounds = tuple[int, int]
"""Where the oldest byte is, and where the next one goes."""


class RingFile:
    """The file of a ring; locked, so that it is that of one ring only."""

    __slots__ = ("_fd", "_size", "bounds", "path")

    def __init__(self, path: str, fd: int, size: int) -> None:
        """Own *fd*, also if this raises BackendError, OSError."""
        self.path = path
        self._fd = fd
        self._size = size
        self.bounds: Bounds | None = (0, 0)
        """Of what it has; None if that is not known."""
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        """Lock it, and have it begin with a head that is right."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackendError(f"'{self.path}' is the ring of somebody else") from None
        length = os.fstat(self._fd).st_size
        head = os.pread(self._fd, HEAD_SIZE, 0)
        total = HEAD_SIZE + self._size
        if length == 0 or (length == total and not any(head)):  # ... killed while it made one
            self._make(total)
            return
        if not head.startswith(_MAGIC) or len(head) < HEAD_SIZE:
            raise BackendError(f"'{self.path}' is not a ring")
        _, size, start, end = _HEAD.unpack_from(head)
        if size != self._size:
            raise BackendError(f"'{self.path}' is a ring of {size} bytes, not {self._size}")
        if length != total or not start <= end <= start + size:
            raise BackendError(f"'{self.path}' is a damaged ring")
        # Counted from a round ago: however far somebody says it has come, there is room for more.
        self.bounds = start % size, start % size + end - start

    def _make(self, total: int) -> None:
        try:
            os.posix_fallocate(self._fd, 0, total)  # so that the disk can't be full later
        except OSError:
            os.ftruncate(self._fd, 0)
            raise
        os.pwrite(self._fd, _HEAD.pack(_MAGIC, self._size, 0, 0), 0)

    def is_same(self, fd: int) -> bool:
        """Is *fd* this file?"""
        return os.path.sameopenfile(self._fd, fd)

    def load(self, memory: mmap.mmap) -> Bounds:
        """Read the bytes into *memory*, and give the bounds, which were checked. Raises OSError."""
        assert self.bounds is not None
        view = memoryview(memory)
        at = 0
        while at < self._size and (count := os.preadv(self._fd, [view[at:]], HEAD_SIZE + at)):
            at += count
        view.release()
        return self.bounds

    def follow(self, start: int, begin: int, data: bytes) -> None:
        """*data* is what the ring has from *begin* on; before that it has what is in the file.

        What is older than *start* is in it no more. Raises OSError, and then nothing is in the file.
        """
        before = start, begin
        try:
            if self.bounds != before:
                self._set_bounds(*before)
            if data:
                at = begin % self._size
                first = self._size - at
                self._write(memoryview(data)[:first], at)
                self._write(memoryview(data)[first:], 0)
                self._set_bounds(start, begin + len(data))
        except OSError:
            self.bounds = None
            raise

    def _set_bounds(self, start: int, end: int) -> None:
        os.pwrite(self._fd, _BOUNDS.pack(start, end), _BOUNDS_AT)
        self.bounds = start, end

    def _write(self, data: memoryview, at: int) -> None:
        while data:
            count = os.pwrite(self._fd, data, HEAD_SIZE + at)
            data, at = data[count:], at + count

    def close(self) -> None:
        """Close it, which unlocks it."""
        if self._fd != -1:
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # it is closed all the same, close(2)
                os.close(fd)
