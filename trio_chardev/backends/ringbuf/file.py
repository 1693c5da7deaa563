"""The file of a ring, which survives a crash.

It is a header of one page and then the bytes. The header has the size, the position of the oldest
byte and the position after the newest, both counted from the first byte ever written to the ring. A
step first moves the oldest position past what will be overwritten, then writes the bytes, and then
moves the newest position. A note of the ring's owner is in the header, too. If the process is killed in between, the file lacks the oldest bytes or
the newest, but what it has is right. Each of these is one pwrite(2), which SIGKILL does not
interrupt, and the kernel keeps the pages when the process is gone. (Not when the machine crashes:
nothing is synced.)

The file is not mapped, because if somebody truncated it, access would cause a SIGBUS.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from contextlib import suppress

from trio_chardev.errors import BackendError

HEAD_SIZE = 4096  # bytes
MAX_POSITION = 1 << 62
_MAGIC = b"trio-chardev ring 1\n"
_HEAD = struct.Struct("<24sQQQ")  # magic, size, start, end
_BOUNDS = struct.Struct("<QQ")  # the last two
_BOUNDS_AT = _HEAD.size - _BOUNDS.size
_NOTE_AT = 64
_NOTE_SIZE = struct.Struct("<H")
MAX_NOTE = HEAD_SIZE - _NOTE_AT - _NOTE_SIZE.size  # bytes

Bounds = tuple[int, int]
"""The position of the oldest byte, and the position after the newest."""


class RingFile:
    """The file of a ring, locked so that no other ring uses it."""

    __slots__ = ("_fd", "_size", "bounds", "path")

    def __init__(self, path: str, fd: int, size: int) -> None:
        """Take *fd* over, even if this raises BackendError or OSError."""
        self.path = path
        self._fd = fd
        self._size = size
        self.bounds: Bounds | None = (0, 0)
        """The bounds of what is in the file; None if that is unknown."""
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        """Lock the file and check its header; an empty file becomes a ring."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackendError(f"'{self.path}' is the ring of somebody else") from None
        length = os.fstat(self._fd).st_size
        head = os.pread(self._fd, HEAD_SIZE, 0)
        total = HEAD_SIZE + self._size
        if length == 0 or (length == total and not any(head)):  # the latter if killed while made
            self._make(total)
            return
        if not head.startswith(_MAGIC) or len(head) < HEAD_SIZE:
            raise BackendError(f"'{self.path}' is not a ring")
        _, size, start, end = _HEAD.unpack_from(head)
        if size != self._size:
            raise BackendError(f"'{self.path}' is a ring of {size} bytes, not {self._size}")
        if length != total or not start <= end <= start + size:
            raise BackendError(f"'{self.path}' is a damaged ring")
        if end > MAX_POSITION:  # a damaged number must not overflow later
            start, end = start % size, start % size + end - start
        self.bounds = start, end

    def read_note(self) -> bytes:
        """Return what `write_note` has written last; ``b""`` if nothing. Raises OSError."""
        head = os.pread(self._fd, HEAD_SIZE, 0)
        (size,) = _NOTE_SIZE.unpack_from(head, _NOTE_AT)
        begin = _NOTE_AT + _NOTE_SIZE.size
        return head[begin : begin + min(size, MAX_NOTE)]

    def write_note(self, note: bytes) -> None:
        """Keep *note*, up to MAX_NOTE bytes, in the header; one write, as the module says.

        Raises OSError.
        """
        os.pwrite(self._fd, _NOTE_SIZE.pack(len(note)) + note, _NOTE_AT)

    def _make(self, total: int) -> None:
        try:
            os.posix_fallocate(self._fd, 0, total)  # so that a full disk is noticed now
        except OSError:
            os.ftruncate(self._fd, 0)
            raise
        os.pwrite(self._fd, _HEAD.pack(_MAGIC, self._size, 0, 0), 0)

    def is_same(self, fd: int) -> bool:
        """Does *fd* refer to this file?"""
        return os.path.sameopenfile(self._fd, fd)

    def load(self, memory: mmap.mmap) -> Bounds:
        """Read the bytes into *memory*, and return the bounds. Raises OSError."""
        assert self.bounds is not None
        view = memoryview(memory)
        at = 0
        while at < self._size and (count := os.preadv(self._fd, [view[at:]], HEAD_SIZE + at)):
            at += count
        view.release()
        return self.bounds

    def follow(self, start: int, begin: int, data: bytes) -> None:
        """Bring the file up to date: *data* is the ring's content from *begin* on.

        Content before *start* is removed. Raises OSError; the file's content is then void.
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
        """Close the file, which unlocks it."""
        if self._fd != -1:
            fd, self._fd = self._fd, -1
            with suppress(OSError):  # it is closed even then, see close(2)
                os.close(fd)
