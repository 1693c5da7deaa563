"""The ring of kind ringbuf: in memory, and optionally in a file that survives a crash."""

from __future__ import annotations

import mmap
import os
import stat
import threading

from trio_chardev.backends.holder import owned
from trio_chardev.backends.limit import PRIVATE
from trio_chardev.backends.ringbuf.file import Bounds, RingFile
from trio_chardev.backends.ringbuf.keeper import Keeper
from trio_chardev.core.environment import OpenPath
from trio_chardev.errors import BackendError

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Ring:
    """Keeps the newest *size* bytes of those written and not read yet."""

    __slots__ = ("_end", "_keeper", "_memory", "_start", "lock", "note", "users")

    def __init__(self, size: int, file: RingFile | None = None) -> None:
        """Begin with the content of *file*, if there is one. Raises OSError."""
        self._memory = mmap.mmap(-1, size)  # needs no clearing, and takes memory only as it fills
        self._start = self._end = 0
        self.lock = threading.Lock()
        """Held while the ring changes or is copied, and never for long."""
        self.users = 0
        """How many backends use it: two while one replaces another with the same file."""
        self.note = b"" if file is None else file.read_note()
        """What the ring's owner keeps with it; set by `annotate`."""
        self._keeper = None if file is None else Keeper(self, file)
        if file is not None:
            self._start, self._end = file.load(self._memory)

    def __len__(self) -> int:
        return len(self._memory)

    @property
    def bounds(self) -> Bounds:
        """The position of the oldest byte, and after the newest, counted from the first ever."""
        return self._start, self._end

    @property
    def count(self) -> int:
        """How many bytes can be read."""
        return self._end - self._start

    def write(self, data: bytes | memoryview) -> None:
        """Append *data*, dropping the oldest bytes if there is no room."""
        newest = memoryview(data)[-len(self) :]
        with self.lock:
            self._end += len(data) - len(newest)
            at = self._end % len(self)
            first = min(len(newest), len(self) - at)
            self._memory[at : at + first] = newest[:first]
            self._memory[: len(newest) - first] = newest[first:]
            self._end += len(newest)
            self._start = max(self._start, self._end - len(self))
        self._changed()

    def copy(self, begin: int, size: int) -> bytes:
        """Copy *size* of its bytes, from position *begin* on."""
        at = begin % len(self)
        data = self._memory[at : at + size]
        return data + self._memory[: size - len(data)]

    def peek(self, size: int) -> bytes:
        """The oldest *size* bytes, or as many as there are."""
        return self.copy(self._start, min(size, self.count))

    def read(self, size: int) -> bytes:
        """Remove and return the oldest *size* bytes, or as many as there are."""
        data = self.peek(size)
        with self.lock:
            self._start += len(data)
        self._changed()
        return data

    def annotate(self, note: bytes) -> None:
        """Keep *note*, at most `MAX_NOTE` bytes, in the file, if there is one."""
        with self.lock:
            self.note = note
        self._changed()

    def go_on_from(self, other: Ring) -> None:
        """Begin with what *other* has, at the same positions, as far as there is room."""
        start, end = other.bounds
        begin = max(start, end - len(self))
        with self.lock:
            self._start = self._end = begin
        self.write(other.copy(begin, end - begin))

    def _changed(self) -> None:
        if self._keeper is not None:
            self._keeper.note()

    @property
    def has_file(self) -> bool:
        """Is it kept in a file as well?"""
        return self._keeper is not None

    def is_in(self, fd: int) -> bool:
        """Does *fd* refer to the ring's file?"""
        return self._keeper is not None and self._keeper.file.is_same(fd)

    async def kept(self) -> None:
        """Wait until the file, if there is one, has the ring's content; see `Keeper.kept`."""
        if self._keeper is not None:
            await self._keeper.kept()

    async def release(self) -> None:
        """Count one user less; the last one closes the file. Shielded from Cancelled."""
        self.users -= 1
        if not self.users and self._keeper is not None:
            await self._keeper.aclose()

    def close_unused(self) -> None:
        """Close the file unless the ring is in use. For a thread."""
        if not self.users and self._keeper is not None:
            self._keeper.file.close()


def open_ring(
    path: str, size: int, opener: OpenPath, replaced: Ring | None, mode: int = PRIVATE
) -> Ring:
    """Open the ring in the file *path*, or return *replaced* if that is its ring.

    A new file, which gets *mode*, becomes a ring. Raises BackendError, and leaves the file alone.
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
    """Return *replaced*, if *fd* refers to its file. Raises BackendError, OSError."""
    if replaced is None or not replaced.is_in(fd):
        return None
    if len(replaced) != size:
        raise BackendError(f"'{path}' is a ring of {len(replaced)} bytes, not {size}")
    return replaced
