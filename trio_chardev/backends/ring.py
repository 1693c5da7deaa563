"""The ring of a ringbuf: in memory, and if wanted with a copy in a file that survives a crash.

The file is a head of one page and then the bytes. The head tells the size, where the oldest
byte is and where the next one goes, both counted from the ring's first byte ever. A write
moves the first of them past what it will overwrite, writes the bytes, and then moves the
second: killed in between, the ring lacks the oldest bytes or the newest, but what it has is
right. Each step is one pwrite(2), which SIGKILL does not tear, and the kernel keeps the pages
when the process is gone. (Not when the machine is: nothing is synced.)

The file is not mapped: if somebody truncated it, that would be a SIGBUS.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import stat
import struct
from contextlib import suppress

from trio_chardev.backends.holder import owned
from trio_chardev.backends.limit import PRIVATE
from trio_chardev.core.backend import OpenPath
from trio_chardev.errors import BackendError, strerror

log = logging.getLogger(__name__)

HEAD_SIZE = 4096  # bytes
_MAGIC = b"trio-chardev ring 1\n"
_HEAD = struct.Struct("<24sQQQ")  # magic, size, start, end
_BOUNDS = struct.Struct("<QQ")  # the last two
_BOUNDS_AT = _HEAD.size - _BOUNDS.size
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Ring:
    """The newest *size* bytes of what was written and has not been read."""

    __slots__ = ("_end", "_memory", "_start", "file", "users")

    def __init__(self, size: int, file: RingFile | None = None) -> None:
        """With what is in *file*, where the copy is. Raises OSError."""
        self._memory = mmap.mmap(-1, size)  # costs no time to clear, and memory only as it fills
        self._start = self._end = 0
        self.file = file
        self.users = 0
        """Backends that have it: two while one replaces another with the same file."""
        if file is not None:
            self._start, self._end = file.load(self._memory)

    def __len__(self) -> int:
        return len(self._memory)

    @property
    def count(self) -> int:
        """How many bytes can be read."""
        return self._end - self._start

    def write(self, data: bytes | memoryview) -> None:
        """Append *data*; what has no room pushes out the oldest."""
        newest = memoryview(data)[-len(self) :]
        at = self._end % len(self)
        first = min(len(newest), len(self) - at)
        self._memory[at : at + first] = newest[:first]
        self._memory[: len(newest) - first] = newest[first:]
        self._end += len(newest)
        self._start = max(self._start, self._end - len(self))
        if self.file is not None:
            self.file.append(newest, self._start, self._end, self._memory)

    def peek(self, size: int) -> bytes:
        """The oldest *size* bytes, or fewer if there are not so many."""
        size = min(size, self.count)
        at = self._start % len(self)
        data = self._memory[at : at + size]
        return data + self._memory[: size - len(data)]

    def read(self, size: int) -> bytes:
        """Take the oldest *size* bytes out, or fewer if there are not so many."""
        data = self.peek(size)
        self._start += len(data)
        if self.file is not None:
            self.file.append(memoryview(b""), self._start, self._end, self._memory)
        return data

    def release(self) -> None:
        """One user less; the last closes the file."""
        self.users -= 1
        self.close_unused()

    def close_unused(self) -> None:
        """Close the file, unless somebody uses it."""
        if not self.users and self.file is not None:
            self.file.close()


class RingFile:
    """The file of a ring; locked, so that it is that of one ring only."""

    __slots__ = ("_bounds", "_fd", "_is_failing", "_size", "path")

    def __init__(self, path: str, fd: int, size: int) -> None:
        """Own *fd*, also if this raises BackendError, OSError."""
        self.path = path
        self._fd = fd
        self._size = size
        self._is_failing = False
        self._bounds = 0, 0  # of what it has
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
        self._bounds = start % size, start % size + end - start

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

    def load(self, memory: mmap.mmap) -> tuple[int, int]:
        """Read the bytes into *memory*, and give the bounds, which were checked. Raises OSError."""
        view = memoryview(memory)
        at = 0
        while at < self._size and (count := os.preadv(self._fd, [view[at:]], HEAD_SIZE + at)):
            at += count
        view.release()
        return self._bounds

    def append(self, newest: memoryview, start: int, end: int, memory: mmap.mmap) -> None:
        """*newest* came, and now *memory* has the bytes from *start* to *end*. Never fails."""
        try:
            if self._is_failing:  # so it lacks more than these
                self._set_bounds(end, end)
                self._write(memoryview(memory), 0)
            elif newest:
                before = end - len(newest)
                at = before % self._size
                first = self._size - at
                self._set_bounds(min(start, before), before)
                self._write(newest[:first], at)
                self._write(newest[first:], 0)
            self._set_bounds(start, end)
        except OSError as exc:
            if not self._is_failing:
                log.warning("Could not write to '%s': %s", self.path, strerror(exc))
            self._is_failing = True
        else:
            self._is_failing = False

    def _set_bounds(self, start: int, end: int) -> None:
        os.pwrite(self._fd, _BOUNDS.pack(start, end), _BOUNDS_AT)

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


def open_ring(
    path: str, size: int, opener: OpenPath, replaced: Ring | None, mode: int = PRIVATE
) -> Ring:
    """The ring of the file *path*, which may be *replaced*; a new file, with *mode*, is made a ring.

    Raises BackendError, and then the file is as it was.
    """
    try:
        fd = opener(path, _FLAGS, mode=mode)
        with owned(lambda: os.close(fd)):
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BackendError(f"'{path}' is not a ring")
            again = _same(path, fd, size, replaced)
        if again is not None:
            os.close(fd)
            return again
        file = RingFile(path, fd, size)
        with owned(file.close):
            return Ring(size, file)
    except (OSError, ValueError) as exc:
        raise BackendError.from_os_error(f"Could not open '{path}'", exc) from exc


def _same(path: str, fd: int, size: int, replaced: Ring | None) -> Ring | None:
    """*replaced*, if *fd* is its file. Raises BackendError, OSError."""
    if replaced is None or replaced.file is None or not replaced.file.is_same(fd):
        return None
    if len(replaced) != size:
        raise BackendError(f"'{path}' is a ring of {len(replaced)} bytes, not {size}")
    return replaced
