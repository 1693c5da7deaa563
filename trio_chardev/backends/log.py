"""The log file that every kind can have: a copy of all that is sent to the backend.

The data path only appends to a bounded buffer. A task takes what has gathered there and writes
it in a worker thread, so that a slow disk holds up nobody; what does not fit into the buffer
is dropped, counted, and complained about. The file is opened for appending always: when a
backend is replaced by one with the same log file, two tasks have it open for a moment.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime

import trio

from trio_chardev.backends.descriptor import truncate
from trio_chardev.core.backend import Backend, OpenRequest, open_path
from trio_chardev.errors import BackendError, strerror
from trio_chardev.options import BackendOptions

log = logging.getLogger("trio_chardev.log")

MAX_PENDING = 1 << 20  # bytes
FLUSH_TIMEOUT = 3.0  # seconds; less than the core waits for a backend to close

_no_log = contextlib.nullcontext(None)


def open_log(
    options: BackendOptions, request: OpenRequest
) -> AbstractAsyncContextManager[LogFile | None]:
    """Open the log file of *options*; it is a tap for the backend that *request* asks for.

    Leaving flushes it, for FLUSH_TIMEOUT at most. Raises BackendError, ``Could not create 'PATH':
    strerror``.
    """
    return _no_log if options.logfile is None else _open_log(options.logfile, options, request)


@asynccontextmanager
async def _open_log(
    path: str, options: BackendOptions, request: OpenRequest
) -> AsyncIterator[LogFile]:
    before = _log_of(request.replaces, path)
    file = LogFile(path, options.logappend, options.logtimestamp, before, request.open_path)
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.run)
        try:
            yield file
        except Exception as exc:
            error = exc  # raised below, where the nursery does not put it into a group
        finally:
            file.close()
    if error is not None:
        raise error


def _log_of(backend: Backend | None, path: str) -> LogFile | None:
    for tap in backend.taps if backend is not None else ():
        if isinstance(tap, LogFile) and tap.path == path:
            return tap
    return None


class LogFile:
    """A log file; implements Tap."""

    def __init__(
        self,
        path: str,
        append: bool,
        timestamps: bool,
        before: LogFile | None = None,
        opener: Callable[[str, int], int] = open_path,
    ) -> None:
        """*before* is the log of the replaced backend, if it is the same file.

        Raises BackendError.
        """
        self.path = path
        self.dropped = 0
        """Bytes that are not in the file because it was too slow."""
        self._append = append
        self._timestamps = timestamps
        self._before = before
        self._output: _Output | None = _Output(_create(path, opener))
        self._pending = bytearray()
        self._at_line_start = True
        self._is_dropping = False
        self._is_failing = False
        self._wake = trio.Event()
        self._closing = False
        self._done = trio.Event()
        self._turn: trio.Event | None = None  # of the log that has to be done first
        self._scope = trio.CancelScope(shield=True)  # gets its deadline in close()
        self._limiter = trio.CapacityLimiter(1)  # not the common one: slow disks would use it up

    def activate(self) -> None:
        """Truncate the file, unless it is to be appended to. Failing is only complained about."""
        if self._before is not None:
            if not self._append:
                self._before._pending.clear()
            self._turn = self._before._done
            self._before = None
        try:
            if not self._append and self._output is not None:
                truncate(self._output.fd)
        except OSError as exc:
            log.warning("Could not truncate '%s': %s", self.path, strerror(exc))

    def sent(self, data: memoryview) -> None:
        """Have *data* written soon."""
        if not data:
            return
        text = self._stamp(bytes(data)) if self._timestamps else data
        room = MAX_PENDING - len(self._pending)
        self._pending += text[:room]
        if len(text) > room:
            self._drop(len(text) - room)
        self._wake.set()

    def _stamp(self, data: bytes) -> bytes:
        """*data* with the local time before each line that begins in it."""
        time = datetime.now().astimezone().isoformat(timespec="milliseconds").encode() + b" "
        stamped = data[:-1].replace(b"\n", b"\n" + time) + data[-1:]
        if self._at_line_start:
            stamped = time + stamped
        self._at_line_start = data.endswith(b"\n")
        return stamped

    def _drop(self, count: int) -> None:
        self.dropped += count
        if not self._is_dropping:
            log.warning("log file '%s' is too slow: output is not logged", self.path)
            self._is_dropping = True

    async def run(self) -> None:
        """Write what gathers, until closed and done, or out of time."""
        try:
            with self._scope:
                while self._pending or not self._closing:
                    await self._wake.wait()
                    self._wake = trio.Event()
                    await self._write_pending()
            if self._scope.cancelled_caught:
                log.error("log file '%s' hangs: its end is lost", self.path)
            elif self._output is not None:
                self._output.close()
        finally:
            self._output = None
            self._done.set()

    async def _write_pending(self) -> None:
        if self._turn is not None and self._pending:
            await self._turn.wait()
            self._turn = None
        while self._pending and self._output is not None:
            chunk, self._pending = self._pending, bytearray()
            try:
                await trio.to_thread.run_sync(
                    self._output.write, chunk, abandon_on_cancel=True, limiter=self._limiter
                )
            except OSError as exc:
                self._note_failure(exc)
            else:
                self._is_failing = False
        if self._is_dropping:
            log.warning("log file '%s' lacks %d bytes by now", self.path, self.dropped)
            self._is_dropping = False

    def _note_failure(self, error: OSError) -> None:
        if not self._is_failing:
            log.warning("Could not write to '%s': %s", self.path, strerror(error))
            self._is_failing = True

    def close(self) -> None:
        """Have `run` write the rest and end."""
        self._closing = True
        self._scope.deadline = trio.current_time() + FLUSH_TIMEOUT
        self._wake.set()


class _Output:
    """The descriptor of a log file, which is closed at the latest when nobody refers to it.

    For a thread that was abandoned may still be writing to it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, data: bytearray) -> None:
        """Write all of *data*, for as long as it takes. Raises OSError."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.fd, rest) :]

    def close(self) -> None:
        if self.fd != -1:
            fd, self.fd = self.fd, -1
            with contextlib.suppress(OSError):  # close(2) reports earlier writes
                os.close(fd)

    def __del__(self) -> None:
        self.close()


def _create(path: str, opener: Callable[[str, int], int]) -> int:
    """Open *path* for appending, 0666 & ~umask if it is new, without waiting for a peer."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
        fd = opener(path, flags | os.O_CLOEXEC)
    except OSError as exc:
        raise BackendError.from_os_error(f"Could not create '{path}'", exc) from exc
    except ValueError as exc:  # a NUL, or what the file system's encoding does not have
        raise BackendError(f"Could not create '{path}': {exc}") from exc
    os.set_blocking(fd, True)  # for the thread
    return fd
