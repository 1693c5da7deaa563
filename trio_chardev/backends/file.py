"""file: output goes to a file, input may come from another file or a FIFO.

Writing to a regular file never says that it would block, so it is done at once, in pieces
of 64 KiB: into the page cache each takes about 15 us, a tenth of what a worker thread costs
for one byte. Only a disk that can't keep up makes the kernel hold the writer, for one piece
at a time. A thread would also have to be waited for through a cancellation, since
"Cancelled: nothing was sent" can't be said of a write that is under way.

The input is opened first, so that a missing one leaves no empty output behind. A FIFO whose
last writer leaves gives the end of file and then a hang-up for ever; it is opened anew, which
waits for the next writer. What that one has written already is kept, because the new
descriptor is open before the old one is closed.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import attrs

from trio_chardev.backends.descriptor import (
    DescriptorBackend,
    FdHolder,
    mode_of,
    open_fd,
    open_fd_in_worker,
    truncate,
)
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError
from trio_chardev.options import BackendOptions

PIECE = 1 << 16  # bytes


@attrs.frozen(kw_only=True)
class FileOptions(BackendOptions):
    """Writes output to a file, and may read input from another."""

    open_timeout = math.inf  # that of `work_on_files`

    in_: str | None = None
    """File or FIFO from which input is read."""

    out: str
    """File to which output is written; created, or truncated, unless append is set."""

    append: bool = False
    """Append to the output file instead of truncating it."""


class FileBackend(DescriptorBackend):
    """A file for output and perhaps another for input."""

    def __init__(
        self,
        request: OpenRequest,
        options: FileOptions,
        source: FdHolder | None,
        sink: FdHolder,
    ) -> None:
        super().__init__(request, source, sink)
        self._options = options
        self._open_path = request.open_path

    @property
    def filename(self) -> str:
        return "file"

    def send_nowait(self, data: memoryview) -> int:
        return super().send_nowait(data[:PIECE])

    def input_ended(self, error: OSError | None) -> None:
        if error is not None or not self._reopen_fifo():
            super().input_ended(error)

    def _reopen_fifo(self) -> bool:
        """Wait for the next writer, if the input is a FIFO; else, or if it is gone, False."""
        path = self._options.in_
        if path is None or self.source is None or not is_fifo(path):
            return False
        try:
            source = open_fd(path, os.O_RDONLY, self._open_path)
        except BackendError:
            return False
        self.source.close()
        self.source = source
        return True

    def activate(self) -> None:
        """Truncate the output, if it is a regular file. Raises BackendError."""
        try:
            if not self._options.append:
                truncate(self.sink.fd)
        except OSError as exc:
            raise BackendError.from_os_error(f"Could not open '{self._options.out}'", exc) from exc


def is_fifo(path: str) -> bool:
    """Would opening *path* give another end of a FIFO? Not so with /dev/fdset/N."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except OSError:
        return False


@asynccontextmanager
async def open_file(options: FileOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open the files. Raises BackendError, ``Could not open 'PATH': strerror``."""
    append = os.O_APPEND if options.append else 0
    with ExitStack() as undo:
        source = None
        if options.in_ is not None:
            source = await open_fd_in_worker(options.in_, os.O_RDONLY, request.open_path)
            undo.callback(source.close)
            if stat.S_ISDIR(mode_of(source, options.in_)):  # which can be opened, but not read
                raise BackendError(f"Could not open '{options.in_}': Is a directory")
        flags = os.O_WRONLY | os.O_CREAT | append
        sink = await open_fd_in_worker(options.out, flags, request.open_path)
        undo.pop_all()
    backend = FileBackend(request, options, source, sink)
    try:
        backend.set_open(True)
        yield backend
    finally:
        backend.close()
