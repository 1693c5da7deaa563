"""The log file that every kind can have: a copy of all that is sent to the backend.

It is written in the background, see `trio_chardev.backends.taps.background_file`. What finds no
room in the buffer is dropped and counted, and that is logged.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime

from trio_chardev.backends.limit import parse_mode
from trio_chardev.backends.taps.background_file import BackgroundFile, create_output
from trio_chardev.backends.taps.output import Output
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.tap import Tap
from trio_chardev.options.backend import BackendOptions

_no_log = contextlib.nullcontext(None)


def open_log(
    options: BackendOptions, request: OpenRequest
) -> AbstractAsyncContextManager[LogFile | None]:
    """Open the log file of *options*, a tap for the backend that *request* asks for.

    At the end of the block it is flushed, for FLUSH_TIMEOUT at most. Raises BackendError, ``Could
    not create 'PATH': strerror``.
    """
    return _no_log if options.logfile is None else _open_log(options.logfile, options, request)


@asynccontextmanager
async def _open_log(
    path: str, options: BackendOptions, request: OpenRequest
) -> AsyncIterator[LogFile]:
    before = _log_of(request.replaces, path)
    output = await create_output(
        path,
        request.files.open,
        mode=parse_mode("log-mode", options.log_mode),
        is_limited=options.log_max is not None,
    )
    file = LogFile(path, output, options.logappend, options.logtimestamp, before, options.log_max)
    async with file.background.running():
        yield file


def _log_of(backend: Backend | None, path: str) -> LogFile | None:
    for tap in backend.taps if backend is not None else ():
        if isinstance(tap, LogFile) and tap.path == path:
            return tap
    return None


class LogFile(Tap):
    """The tap that writes the log file."""

    def __init__(
        self,
        path: str,
        output: Output,
        append: bool,
        timestamps: bool,
        before: LogFile | None,
        max_size: int | None = None,
    ) -> None:
        """*before* is the log of the replaced backend, if it is the same file."""
        self.path = path
        self.background = BackgroundFile(f"log file '{path}'", output, max_size)
        self._append = append
        self._timestamps = timestamps
        self._before = before
        self._at_line_start = True

    def activate(self) -> None:
        """Truncate the file, unless it is to be appended to."""
        if self._before is not None:
            if not self._append:
                self._before.background.pending.clear()
            self.background.follow(self._before.background)
            self._before = None
        if not self._append:
            self.background.empty()

    def sent(self, data: memoryview) -> None:
        """Have *data* written soon."""
        if not data:
            return
        text = self._stamp(bytes(data)) if self._timestamps else data
        room = self.background.room
        self.background.put(text[:room])
        if len(text) > room:
            self.background.drop(len(text) - room)

    def refused(self, data: memoryview) -> None:
        """Log *data* as well, though nobody was there to take it, as QEMU does."""
        self.sent(data)

    def _stamp(self, data: bytes) -> bytes:
        """Put the time in front of each line that begins in *data*; in UTC, as QEMU does."""
        now = datetime.now(UTC).replace(tzinfo=None)  # isoformat() would write it as +00:00
        time = now.isoformat(timespec="microseconds").encode() + b"Z "
        stamped = data[:-1].replace(b"\n", b"\n" + time) + data[-1:]
        if self._at_line_start:
            stamped = time + stamped
        self._at_line_start = data.endswith(b"\n")
        return stamped
