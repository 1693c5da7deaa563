"""ringbuf, also called memory: keeps the newest output until somebody reads it.

QMP's ringbuf-read and ringbuf-write use the same ring as the frontend's output; the frontend gets
no input. With ``path`` the ring's content survives a crash, and a change to another backend and
back; see `Ring`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs

from trio_chardev.backends.descriptor import slow_errors
from trio_chardev.backends.limit import parse_mode
from trio_chardev.backends.ringbuf.ring import Ring, open_ring
from trio_chardev.core.at_once import AtOnce
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.core.leaving import Leaving
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.files import work_on_files
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.values import path_text_or_none

MAX_SIZE = 1 << 30
"""Bytes. QEMU has no limit but the allocator's, at which the process ends."""


@attrs.frozen(kw_only=True)
class RingbufOptions(BackendOptions):
    """Keeps the newest output in memory, to be read by command."""

    open_timeout = math.inf  # it does not wait

    size: int = 65536
    """Size of the ring in bytes, a power of two; the oldest bytes are overwritten."""

    path: str | None = attrs.field(default=None, converter=path_text_or_none)
    """File that keeps the ring as well, to begin with after a crash."""

    mode: str | None = None
    """Permissions of a new file, in octal, less the umask; the default is 0600."""


@attrs.frozen(kw_only=True)
class MemoryOptions(RingbufOptions):
    """Another name for ringbuf."""


class RingbufBackend(Backend):
    """A backend that uses *ring*; *filename* is the name that is shown."""

    is_silent = True

    def __init__(self, request: OpenRequest, ring: Ring, filename: str) -> None:
        super().__init__(request)
        self.ring = ring
        self._filename = filename

    @property
    def filename(self) -> str:
        return self._filename

    @property
    def count(self) -> int:
        """How many bytes can be read."""
        return self.ring.count

    def send_nowait(self, data: memoryview) -> int:
        self.ring.write(data)
        return len(data)

    @property
    def leaving(self) -> Leaving:
        return _RingLeaving(self.ring)

    def write(self, data: bytes | memoryview) -> None:
        """Append *data*, dropping the oldest bytes if there is no room."""
        self.ring.write(data)

    def peek(self, size: int) -> bytes:
        """The oldest *size* bytes, or as many as there are."""
        return self.ring.peek(size)

    def read(self, size: int) -> bytes:
        """Remove and return the oldest *size* bytes, or as many as there are."""
        return self.ring.read(size)

    @property
    def has_file(self) -> bool:
        """Is the ring kept in a file as well?"""
        return self.ring.has_file

    async def kept(self) -> None:
        """Wait until the file, if there is one, has the ring's content, unless writing fails."""
        await self.ring.kept()


class _RingLeaving(Leaving):
    """What nobody has read from the ring can be taken back."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def take_back(self) -> bytes:
        return self._ring.read(self._ring.count)


def open_ringbuf(
    options: RingbufOptions, request: OpenRequest
) -> AbstractAsyncContextManager[Backend]:
    """Give what opens a ring, empty or with its file's content. Raises OptionsError, BackendError."""
    size = options.size
    if size < 1 or size & (size - 1):
        raise OptionsError("size of ringbuf chardev must be power of two")
    if size > MAX_SIZE:
        raise OptionsError(f"size of ringbuf chardev must be at most {MAX_SIZE}")
    if options.path is not None:
        return _open_with_file(options, options.path, request)
    if options.mode is not None:
        raise OptionsError("mode needs path=FILE")
    return AtOnce(partial(_open_in_memory, options, request))


def _open_in_memory(options: RingbufOptions, request: OpenRequest) -> RingbufBackend:
    try:
        ring = Ring(options.size)
    except OSError as exc:
        raise BackendError.from_os_error(f"no memory for a ring of {options.size}", exc) from exc
    return _backend_of(ring, options, request)


@asynccontextmanager
async def _open_with_file(
    options: RingbufOptions, path: str, request: OpenRequest
) -> AsyncIterator[Backend]:
    replaced = request.replaces.ring if isinstance(request.replaces, RingbufBackend) else None
    with slow_errors(f"Could not open '{path}'"):
        ring = await work_on_files(
            open_ring,
            path,
            options.size,
            request.files.open,
            replaced,
            parse_mode("mode", options.mode),
            discard=Ring.close_unused,
        )
    ring.users += 1
    try:
        yield _backend_of(ring, options, request)
    finally:
        await ring.release()  # noqa: ASYNC102 - it shields itself, with a deadline


def _backend_of(ring: Ring, options: RingbufOptions, request: OpenRequest) -> RingbufBackend:
    name = "memory" if isinstance(options, MemoryOptions) else "ringbuf"
    backend = RingbufBackend(request, ring, name)
    backend.set_open(True)
    return backend


MEMORY = Kind(MemoryOptions, open_ringbuf)
RINGBUF = Kind(RingbufOptions, open_ringbuf)
