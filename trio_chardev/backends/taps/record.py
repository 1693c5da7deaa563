"""The recording that every kind can have: all traffic with its times, in asciicast v2 or v3.

``o`` is what the backend has received, which is what the frontend is shown; ``i`` is what the
frontend has sent and the backend has taken. There are markers for OPENED, CLOSED and BREAK; the
first says whether the chardev was open at the beginning. ``CHANGED OLD -> NEW`` marks a change,
``LOST N events`` that so many lines are missing so far because the disk was slow or full.

If a backend is replaced by one with the same file, the recording goes on in it; otherwise it ends.
It is written in the background, see `trio_chardev.backends.taps.background_file`, in whole lines: a
part of a line that was written when the disk became full is removed. Two recordings can't share a
file: it is locked (flock(2)) while it is written, and also while it is played.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs
import trio

from trio_chardev.backends.descriptor import slow_errors, status_of
from trio_chardev.backends.holder import owned
from trio_chardev.backends.limit import parse_mode
from trio_chardev.backends.taps.background_file import BackgroundFile
from trio_chardev.backends.taps.output import Output, create_output
from trio_chardev.core.backend import OpenRequest
from trio_chardev.core.tap import Tap
from trio_chardev.errors import BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.files import work_on_files
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.asciicast import Direction, Encoder, Version, header

PIECE = 1 << 14  # bytes; larger data becomes several events with the same time
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY

_no_recording = contextlib.nullcontext(None)


def open_recording(
    options: BackendOptions, request: OpenRequest
) -> AbstractAsyncContextManager[Recording | None]:
    """Open the recording of *options*, a tap for the backend that *request* asks for.

    At the end of the block it is flushed, for FLUSH_TIMEOUT at most. Raises BackendError, ``Could
    not create 'PATH': strerror``.
    """
    if options.record is None:
        return _no_recording
    version: Version = 3 if options.record_format == "asciicast-v3" else 2
    return _open_recording(options.record, version, options, request)


@asynccontextmanager
async def _open_recording(
    path: str, version: Version, options: BackendOptions, request: OpenRequest
) -> AsyncIterator[Recording]:
    before = await _same_recording(request, path)
    if before is not None and before.version != version:
        raise BackendError(f"recording '{path}' is in asciicast v{before.version}: it can't go on")
    output = await _open_output(path, options, request, before)
    with owned(output.close), slow_errors(f"Could not create '{path}'"):
        recording = Recording(request.id, path, output, before, version, options.record_max)
    async with recording.background.running():
        try:
            yield recording
        finally:
            recording.close()


async def _same_recording(request: OpenRequest, path: str) -> Recording | None:
    """The recording of the replaced backend, if *path* still leads to its file."""
    for tap in request.replaces.taps if request.replaces is not None else ():
        if isinstance(tap, Recording) and tap.path == path:
            with slow_errors(f"Could not create '{path}'"):
                there = await work_on_files(_status, path, request)
            if there is not None and os.path.samestat(there, tap.file):
                return tap
    return None


def _status(path: str, request: OpenRequest) -> os.stat_result | None:
    return status_of(path, request) or status_of(path, request, _FLAGS)  # the latter for an fd set


class _LinesOutput(Output):
    """An output of lines: a line is written as a whole, or not at all."""

    unit = "events"

    def count(self, data: bytes | bytearray) -> int:
        return data.count(b"\n")

    def fitting(self, data: bytearray, room: int) -> int:
        return data.rfind(b"\n", 0, room) + 1

    def write(self, data: bytearray) -> None:
        size = os.fstat(self.fd).st_size
        try:
            super().write(bytearray(data))  # a copy, as on failure all of *data* is reported
        except OSError:
            with contextlib.suppress(OSError):  # it is not a regular file
                os.ftruncate(self.fd, size)
            raise


async def _open_output(
    path: str, options: BackendOptions, request: OpenRequest, before: Recording | None
) -> Output:
    """Open the file, locked if it is a regular one; it shares the lock of *before*."""
    try:
        if before is not None and before.background.output is not None:
            return _LinesOutput(os.dup(before.background.output.fd))
        output = await create_output(
            path,
            request.files.open,
            _LinesOutput,
            mode=parse_mode("record-mode", options.record_mode),
            is_limited=options.record_max is not None,
        )
        with owned(output.close):
            await work_on_files(lambda: lock(output.fd, fcntl.LOCK_EX))
    except BlockingIOError as exc:
        raise BackendError(f"Could not create '{path}': it is recorded or replayed now") from exc
    except OSError as exc:
        raise BackendError.from_os_error(f"Could not create '{path}'", exc) from exc
    return output


def lock(fd: int, how: int) -> None:
    """Lock *fd*, if it is a regular file and its file system can. Raises BlockingIOError."""
    if stat.S_ISREG(os.fstat(fd).st_mode):
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as exc:
            if exc.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise


@attrs.define
class _Tape:
    """The state of a recording, which is passed on if the recording goes on after a change."""

    title: str
    encoder: Encoder
    begin: float = attrs.Factory(trio.current_time)
    is_open: bool | None = None
    has_header: bool = False
    lost: int = 0
    """Events that are missing in the file so far, and how many of them it has reported."""
    lost_told: int = 0

    @property
    def now(self) -> float:
        """Seconds since the recording began."""
        return trio.current_time() - self.begin

    def head(self) -> bytes:
        """Lines that have to come before the next one: the header, a report of lost events."""
        version = self.encoder.version
        lines = b"" if self.has_header else header(self.title, int(time.time()), version)
        if self.lost != self.lost_told:
            lines += self.encoder.marker(self.now, f"LOST {self.lost} events")
        return lines


class Recording(Tap):
    """A recording; `Tap` describes the methods. Once closed, it ignores further calls."""

    def __init__(
        self,
        id: str,
        path: str,
        output: Output,
        before: Recording | None,
        version: Version = 2,
        max_size: int | None = None,
    ) -> None:
        """*before* is the recording of the replaced backend, if it is the same file."""
        self.path = path
        self.file = os.fstat(output.fd)
        """The file's status; by now the path may lead to another file."""
        self.version = version
        self.background = BackgroundFile(f"recording '{path}'", output, max_size)
        self.background.on_failure = self._note_failure
        self._before = before
        self._next: Recording | None = None
        self._tape = _Tape(f"chardev {id}", Encoder(version))
        self._is_in_place = False

    def activate(self) -> None:
        """Take over the replaced recording's state, or begin a new one and truncate the file."""
        before, self._before = self._before, None
        self._is_in_place = True
        if before is not None:
            before._next = self
            self._tape = before._tape
            self.background.follow(before.background)
            return
        self._tape.begin = trio.current_time()
        self.background.empty()

    def received(self, data: bytes) -> None:
        self._data("o", memoryview(data))

    def sent(self, data: memoryview) -> None:
        self._data("i", data)

    def event(self, event: BackendEvent) -> None:
        """Put a marker, unless it is an OPENED or CLOSED that is known already."""
        if not isinstance(event, Event):
            return  # line settings and modem lines mean nothing to a player
        if event in (Event.OPENED, Event.CLOSED):
            is_open = event is Event.OPENED
            if self._tape.is_open is is_open:
                return
            self._tape.is_open = is_open
        self._mark(event.value)

    def replaced(self, before: str, after: str) -> None:
        """Put a marker, into the next recording if this goes on there."""
        (self._next or self)._mark(f"CHANGED {before} -> {after}")
        self._is_in_place = False

    def close(self) -> None:
        """Record that nobody is there any more, if the backend was in place until now."""
        if self._is_in_place:
            self.event(Event.CLOSED)
            self._put(Encoder.flush)
            self._is_in_place = False

    def _mark(self, label: str) -> None:
        now = self._tape.now
        self._put(lambda encoder: encoder.flush() + encoder.marker(now, label))

    def _data(self, direction: Direction, data: memoryview) -> None:
        now = self._tape.now
        for start in range(0, len(data), PIECE):
            piece = bytes(data[start : start + PIECE])
            self._put(partial(Encoder.data, time=now, code=direction, data=piece))

    def _put(self, encode: Callable[[Encoder], bytes]) -> None:
        """Have the lines that *encode* makes written soon, all or none of them."""
        if not self._is_in_place:
            return
        tape = self._tape
        told = tape.encoder.told
        head = tape.head()
        lines = encode(tape.encoder)
        data = head + lines
        if not lines:
            tape.encoder.told = told
        elif len(data) > self.background.room:
            tape.encoder.told = told
            count = lines.count(b"\n")
            tape.lost += count
            self.background.drop(count)
        else:
            tape.has_header = True
            tape.lost_told = tape.lost
            self.background.put(data)

    def _note_failure(self, lines: bytearray) -> None:
        """Note that *lines* could not be written, perhaps with the header."""
        self._tape.lost += lines.count(b"\n")
        self._tape.encoder.lose(lines)
        if lines.startswith(b"{"):
            self._tape.has_header = False
