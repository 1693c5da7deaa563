"""ringbuf, also called memory: keeps the newest output until somebody reads it.

QMP's ringbuf-read and ringbuf-write use the same ring as the frontend's output; nothing is
input for the frontend. The ring is an anonymous mapping: a large one costs no time to clear,
and takes memory only as it fills.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError
from trio_chardev.options import BackendOptions

MAX_SIZE = 1 << 30
"""Bytes. QEMU has no limit but the allocator's, which ends the process."""


@attrs.frozen(kw_only=True)
class RingbufOptions(BackendOptions):
    """Keeps the newest output in memory, to be read by command."""

    open_timeout = math.inf  # it does not wait

    size: int = 65536
    """Size of the ring in bytes, a power of two; the oldest bytes are overwritten."""


@attrs.frozen(kw_only=True)
class MemoryOptions(RingbufOptions):
    """Another name for ringbuf."""


class RingbufBackend(Backend):
    """A ring of *size* bytes, shown as *filename*."""

    def __init__(self, request: OpenRequest, size: int, filename: str) -> None:
        """Raises BackendError if there is no memory for it."""
        super().__init__(request)
        try:
            self._ring = mmap.mmap(-1, size)
        except OSError as exc:
            raise BackendError.from_os_error(f"no memory for a ring of {size}", exc) from exc
        self._start = 0  # of the oldest byte
        self._count = 0
        self._filename = filename

    @property
    def filename(self) -> str:
        return self._filename

    @property
    def count(self) -> int:
        """How many bytes can be read."""
        return self._count

    def send_nowait(self, data: memoryview) -> int:
        self.write(data)
        return len(data)

    def write(self, data: bytes | memoryview) -> None:
        """Append *data*; what has no room pushes out the oldest."""
        size = len(self._ring)
        newest = memoryview(data)[-size:]
        end = (self._start + self._count) % size
        first = min(len(newest), size - end)
        self._ring[end : end + first] = newest[:first]
        self._ring[: len(newest) - first] = newest[first:]
        self._count += len(newest)
        if (excess := self._count - size) > 0:
            self._start = (self._start + excess) % size
            self._count = size

    def read(self, size: int) -> bytes:
        """Take the oldest *size* bytes out, or fewer if there are not so many."""
        size = min(size, self._count)
        end = self._start + size
        data = self._ring[self._start : end]
        data += self._ring[: size - len(data)]
        self._start = end % len(self._ring)
        self._count -= size
        return data


@asynccontextmanager
async def open_ringbuf(options: RingbufOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open a ring, empty. Raises BackendError for a size that can't be."""
    size = options.size
    if size < 1 or size & (size - 1):
        raise BackendError("size of ringbuf chardev must be power of two")
    if size > MAX_SIZE:
        raise BackendError(f"size of ringbuf chardev must be at most {MAX_SIZE}")
    name = "memory" if isinstance(options, MemoryOptions) else "ringbuf"
    backend = RingbufBackend(request, size, name)
    backend.set_open(True)
    yield backend
