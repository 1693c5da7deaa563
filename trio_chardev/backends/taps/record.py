"""The recording that every kind can have: all traffic with its times, in asciicast v2 or v3.

``o`` is what the backend has received, for that is what the frontend is shown; ``i`` is what
the frontend has sent and the backend has taken. Markers tell OPENED, CLOSED and BREAK; the
first one tells which of the two held at the beginning. ``CHANGED OLD -> NEW`` tells of a change,
``LOST N events`` that so many lines by now are not in the file because the disk was slow or full.

When a backend is replaced by one with the same file the recording goes on in it, else it ends.
It is written in the background, see `trio_chardev.backends.taps.background_file`, in whole lines: what of a
line was written when the disk became full is taken back. Two recordings can't share a file: it
is locked (flock(2)) as long as it is written, and so is one that is played.
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
from trio_chardev.backends.taps.background_file import BackgroundFile, Output, create_output
from trio_chardev.core.backend import OpenRequest
from trio_chardev.core.tap import Tap
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.files import work_on_files
from trio_chardev.options.structure import BackendOptions
from trio_chardev.protocols.asciicast import Direction, Encoder, Version, header

PIECE = 1 << 14  # bytes; more are several events at one time
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY

_no_recording = contextlib.nullcontext(None)


def check_recording(options: BackendOptions) -> None:
    """Raise BackendError if what *options* say of recording does not fit together."""
    if options.rr == "record" and options.record is None:
        raise OptionsError("rr=record needs record=FILE")
    if options.record_format is not None and options.record is None:
        raise OptionsError("record-format needs record=FILE")
    if options.rr == "play" and not options.plays:
        raise OptionsError("rr=play needs a chardev of kind replay")
    if options.record is not None and options.record == options.logfile:
        raise OptionsError("record and logfile cannot be the same file")


def open_recording(
    options: BackendOptions, request: OpenRequest
) -> AbstractAsyncContextManager[Recording | None]:
    """Open the recording of *options*; it is a tap for the backend that *request* asks for.

    Leaving flushes it, for FLUSH_TIMEOUT at most. Raises BackendError, ``Could not create 'PATH':
    strerror``.
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
    """The recording of the replaced backend, if it is in the file that *path* leads to now."""
    for tap in request.replaces.taps if request.replaces is not None else ():
        if isinstance(tap, Recording) and tap.path == path:
            with slow_errors(f"Could not create '{path}'"):
                there = await work_on_files(_status, path, request)
            if there is not None and os.path.samestat(there, tap.file):
                return tap
    return None


def _status(path: str, request: OpenRequest) -> os.stat_result | None:
    return status_of(path, request) or status_of(path, request, _FLAGS)  # of an fd set


class _LinesOutput(Output):
    """Of lines only whole ones stay in the file."""

    unit = "events"

    def count(self, data: bytes | bytearray) -> int:
        return data.count(b"\n")

    def fitting(self, data: bytearray, room: int) -> int:
        return data.rfind(b"\n", 0, room) + 1

    def write(self, data: bytearray) -> None:
        size = os.fstat(self.fd).st_size
        try:
            super().write(bytearray(data))  # who is told of a failure wants the whole
        except OSError:
            with contextlib.suppress(OSError):  # no regular file
                os.ftruncate(self.fd, size)
            raise


async def _open_output(
    path: str, options: BackendOptions, request: OpenRequest, before: Recording | None
) -> Output:
    """The file, locked if it is a regular one; the same lock as that of *before*."""
    try:
        if before is not None and before.background.output is not None:
            return _LinesOutput(os.dup(before.background.output.fd))
        output = await create_output(
            path,
            request.open_path,
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
    """Lock a regular file, where its file system can. Raises BlockingIOError."""
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
    """What a recording is at; it is handed on where the recording goes on behind a change."""

    title: str
    encoder: Encoder
    begin: float = attrs.Factory(trio.current_time)
    is_open: bool | None = None
    has_header: bool = False
    lost: int = 0
    """Events that by now are not in the file, and how many of them it tells of."""
    lost_told: int = 0

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return trio.current_time() - self.begin

    def head(self) -> bytes:
        """What has to come before the next line."""
        version = self.encoder.version
        lines = b"" if self.has_header else header(self.title, int(time.time()), version)
        if self.lost != self.lost_told:
            lines += self.encoder.marker(self.now, f"LOST {self.lost} events")
        return lines


class Recording(Tap):
    """A recording; `Tap` says when each method is called. Nothing is recorded once it is closed."""

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
        """What is at the path may be another one by now."""
        self.version = version
        self.background = BackgroundFile(f"recording '{path}'", output, max_size)
        self.background.on_failure = self._note_failure
        self._before = before
        self._next: Recording | None = None
        self._tape = _Tape(f"chardev {id}", Encoder(version))
        self._is_in_place = False

    def activate(self) -> None:
        """Go on with what the replaced one was at, or begin anew: then the file is emptied."""
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
        """Put a marker, but not for an OPENED or CLOSED that is known already."""
        if not isinstance(event, Event):
            return  # line settings, modem lines: a player has no line
        if event in (Event.OPENED, Event.CLOSED):
            is_open = event is Event.OPENED
            if self._tape.is_open is is_open:
                return
            self._tape.is_open = is_open
        self._mark(event.value)

    def replaced(self, before: str, after: str) -> None:
        """Put a marker into what goes on, or at the end of what does not."""
        (self._next or self)._mark(f"CHANGED {before} -> {after}")
        self._is_in_place = False

    def close(self) -> None:
        """If it was in place until now, nobody is there any more."""
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
        """Have the lines that *encode* gives written soon, all or none of them."""
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
        """*lines* could not be written, with the header if that was among them."""
        self._tape.lost += lines.count(b"\n")
        self._tape.encoder.lose(lines)
        if lines.startswith(b"{"):
            self._tape.has_header = False
