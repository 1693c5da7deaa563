"""file: output goes to a file, input may come from another file or a FIFO.

A disk can be slow, or hang, which blocks whoever reads or writes: so regular files are read and
written in threads, see `ReadAhead` and `BackgroundFile`. What can't be written is kept and tried
again; when 1 MiB is kept, senders wait. FIFOs and devices are never waited for, and need no thread.

The input is opened first, so that a missing one leaves no empty output behind. When the last writer
of a FIFO leaves, reads give end of file, and polls report a hang-up for ever. So the FIFO is opened
again, which waits for the next writer. What that one has written already is kept, because the new
descriptor is opened before the old one is closed.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Self

import attrs
import trio

from trio_chardev.backends.ahead import ReadAhead, RegularFile
from trio_chardev.backends.descriptor import (
    DescriptorBackend,
    FdHolder,
    mode_of,
    open_fd,
    slow_errors,
)
from trio_chardev.backends.holder import owned
from trio_chardev.backends.limit import check_size, no_size
from trio_chardev.backends.taps.background_file import BackgroundFile
from trio_chardev.backends.taps.output import Output
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.core.leaving import Leaving
from trio_chardev.errors import BackendError
from trio_chardev.files import SlowFileError, work_on_files
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.values import path_text, path_text_or_none
from trio_chardev.readiness import RETRY_INTERVAL
from trio_chardev.workers import NoThreadError

log = logging.getLogger(__name__)

NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@attrs.frozen(kw_only=True)
class FileOptions(BackendOptions):
    """Writes output to a file, and may read input from another."""

    open_timeout = math.inf  # `work_on_files` has a deadline of its own

    in_: str | None = attrs.field(default=None, converter=path_text_or_none)
    """File or FIFO to read input from."""

    out: str = attrs.field(converter=path_text)
    """File to write output to; created, or truncated unless append is set."""

    append: bool = False
    """Append to the output file instead of truncating it."""

    max_size: int | None = None
    """Largest size of the output file in bytes; what would exceed it is left out, and counted."""

    @property
    def again(self) -> Self | None:
        """Without truncating what is there by now."""
        options = super().again
        return attrs.evolve(options, append=True) if options is not None else None


class FileBackend(DescriptorBackend):
    """Writes to a file (a FIFO or a device here), and may read from another."""

    def __init__(
        self,
        request: OpenRequest,
        options: FileOptions,
        source: FdHolder | None,
        sink: FdHolder,
    ) -> None:
        super().__init__(request, source, sink)
        self._options = options
        self._open_path = request.files.open
        self._is_left = False  # the FIFO, by its last writer
        self._lacks_descriptor = False

    @property
    def filename(self) -> str:
        return "file"

    def input_ended(self, error: OSError | None) -> None:
        if error is None and not isinstance(self.source, ReadAhead):
            self._is_left = True  # `wait_readable` opens it again
        else:
            super().input_ended(error)

    async def wait_readable(self) -> None:
        # A FIFO that was opened again is at end of file as well, but it can be waited for.
        if not self._is_left or await self._reopen_fifo():
            await super().wait_readable()

    async def _reopen_fifo(self) -> bool:
        """If the input is a FIFO, open it for the next writer; otherwise the input has ended.

        Returns False if it has to be tried again. Until then the old descriptor still gives what
        comes, but it polls as at end of file all the time, so it is read once a second.
        """
        assert self._options.in_ is not None
        try:
            source = await work_on_files(
                _open_fifo, self._options.in_, self._open_path, discard=FdHolder.close
            )
        except (SlowFileError, NoThreadError):
            await trio.sleep(RETRY_INTERVAL)
            return False
        except BackendError as exc:
            if getattr(exc.__cause__, "errno", None) in NO_DESCRIPTOR:
                if not self._lacks_descriptor:
                    log.warning("chardev '%s': %s; trying again each second", self.id, exc)
                self._lacks_descriptor = True
                await trio.sleep(RETRY_INTERVAL)
                return False
            self._is_left = False
            super().input_ended(None)
            return True
        self._is_left = self._lacks_descriptor = False
        if self.source is not None:
            self.source.close()
        self.source = source
        return True


class RegularFileBackend(FileBackend):
    """Writes to a regular file."""

    def __init__(
        self, request: OpenRequest, options: FileOptions, source: FdHolder | None, sink: _Sink
    ) -> None:
        super().__init__(request, options, source, sink)
        self.inode = sink.inode
        self.background = sink.background
        self._before: BackgroundFile | None = None
        old = request.replaces
        if isinstance(old, RegularFileBackend) and old.inode == self.inode:
            self._before = old.background

    def activate(self) -> None:
        """Have the output truncated before anything is written to it."""
        if self._before is not None:
            self.background.follow(self._before)
            self._before = None
        if not self._options.append:
            self.background.empty()

    @property
    def leaving(self) -> Leaving:
        return _BackgroundLeaving(self.background)


class _BackgroundLeaving(Leaving):
    """A thread may still be writing what was sent."""

    def __init__(self, background: BackgroundFile) -> None:
        self._background = background

    async def settle(self, timeout: float) -> None:
        """Wait until all is written, or can't be: then it is carried over."""
        await self._background.wait_idle(while_it_works=True)

    def take_back(self) -> bytes:
        return self._background.take_back()

    @property
    def is_drained(self) -> bool:
        return self._background.is_idle

    async def drain(self) -> None:
        """Wait until all is written."""
        await self._background.wait_idle()


class _Sink(FdHolder):
    """The output, if it is a regular file; a `BackgroundFile` writes it."""

    __slots__ = ("background", "inode")

    def __init__(
        self, path: str, output: Output, inode: tuple[int, int], max_size: int | None
    ) -> None:
        self.inode = inode
        what = f"file '{path}'"
        self.background = BackgroundFile(what, output, max_size, keeps=True, is_only_copy=True)
        super().__init__(output.fd)

    def _have_non_blocking(self) -> None:
        return None

    def close(self) -> None:
        """Have the `BackgroundFile` close it."""
        self.fd = -1
        self.background.close()

    def write(self, data: memoryview) -> int:
        if not (room := self.background.room):
            raise BlockingIOError
        self.background.put(data[:room])
        return min(room, len(data))

    async def wait_writable(self) -> None:
        await self.background.wait_room()


# ---------------------------------------------------------------- in a thread


def _is_on_disk(mode: int) -> bool:
    """Can a disk block its reads and writes? O_NONBLOCK has no effect there."""
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _open_source(path: str, opener: Callable[[str, int], int]) -> FdHolder:
    """Open the input; of a regular file read the first piece. Raises BackendError, OSError."""
    holder = open_fd(path, os.O_RDONLY, opener)
    with owned(holder.close):
        mode = mode_of(holder, path)
        if stat.S_ISDIR(mode):  # a folder can be opened, but not read
            raise BackendError(f"Could not open '{path}': Is a directory")
        if not _is_on_disk(mode):
            return holder
        offset = os.lseek(holder.fd, 0, os.SEEK_CUR)
        ahead = ReadAhead(RegularFile(os.dup(holder.fd)), offset)
    holder.close()
    ahead.read_first()
    return ahead


def _open_output(
    path: str, flags: int, opener: Callable[[str, int], int]
) -> tuple[Output, tuple[int, int]] | FdHolder:
    """Open the output; give the inode too if it is a regular file. Raises BackendError, OSError."""
    holder = open_fd(path, flags, opener)
    with owned(holder.close):
        status = os.fstat(holder.fd)
        if not _is_on_disk(status.st_mode):
            return holder
        output = Output(os.dup(holder.fd))
    holder.close()
    return output, (status.st_dev, status.st_ino)


def _open_fifo(path: str, opener: Callable[[str, int], int]) -> FdHolder:
    """Open a FIFO for reading. Raises BackendError, also for anything else, as /dev/fdset/N."""
    holder = open_fd(path, os.O_RDONLY, opener)
    with owned(holder.close):
        if not (stat.S_ISFIFO(mode_of(holder, path)) and is_fifo(path)):
            raise BackendError(f"'{path}' is no FIFO any more")
        return holder


def is_fifo(path: str) -> bool:
    """Would opening *path* give a new end of a FIFO? False for /dev/fdset/N."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


def _close(opened: tuple[Output, tuple[int, int]] | FdHolder) -> None:
    (opened if isinstance(opened, FdHolder) else opened[0]).close()


# ---------------------------------------------------------------- opening


@asynccontextmanager
async def open_file(options: FileOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open the files. Raises BackendError, ``Could not open 'PATH': strerror``."""
    check_size("max-size", options.max_size)
    source = None
    if (path := options.in_) is not None:
        with slow_errors(f"Could not open '{path}'"):
            source = await work_on_files(
                _open_source, path, request.files.open, discard=FdHolder.close
            )
    try:
        async with _open_sink(options, request) as sink:
            if isinstance(sink, _Sink):
                backend: FileBackend = RegularFileBackend(request, options, source, sink)
            else:
                backend = FileBackend(request, options, source, sink)
            try:
                backend.set_open(True)
                yield backend
            finally:
                await _close_source(source, path)  # noqa: ASYNC102 - it shields itself
                backend.close()
    finally:
        await _close_source(source, path)  # noqa: ASYNC102 - as above


async def _close_source(source: FdHolder | None, path: str | None) -> None:
    if isinstance(source, ReadAhead):
        await source.aclose(f"'{path}'")
    elif source is not None:
        source.close()


@asynccontextmanager
async def _open_sink(options: FileOptions, request: OpenRequest) -> AsyncIterator[FdHolder]:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if options.append else 0)
    with slow_errors(f"Could not open '{options.out}'"):
        opened = await work_on_files(
            _open_output, options.out, flags, request.files.open, discard=_close
        )
    if isinstance(opened, FdHolder):
        if options.max_size is not None:
            opened.close()
            raise no_size(options.out)
        yield opened
        return
    sink = _Sink(options.out, *opened, options.max_size)
    async with sink.background.running():
        yield sink


FILE = Kind(FileOptions, open_file)
