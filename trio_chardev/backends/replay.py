"""replay: plays a recording, in asciicast v2 or v3, with its timing.

It begins when it is put in place. The ``o`` events of the recording are input for the frontend; the
markers OPENED, CLOSED and BREAK become these events, and the end is CLOSED. If the first marker is
CLOSED it begins closed, otherwise open. A frontend that does not read delays the replay, which then
catches up.

What the frontend sends is compared, as one stream of bytes, with the ``i`` events; it may be sent
earlier than it was recorded. With ``expect=strict`` later output waits until what was recorded
before it has been sent, which delays all that follows. Writes while the recording is closed are
refused, and are not compared, as they were not recorded either.

The file is read while it is played, in pieces of 64 KiB and by threads; while its disk hangs
nothing comes. After a hundred lines without input for the frontend other tasks run.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar, Literal

import attrs
import trio

from trio_chardev.backends.descriptor import slow_errors
from trio_chardev.backends.holder import owned
from trio_chardev.backends.replay_file import Reader, Recording
from trio_chardev.backends.replay_script import LINES_AT_ONCE, Script
from trio_chardev.backends.taps.record import lock
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.environment import OpenPath
from trio_chardev.core.kind import Kind
from trio_chardev.errors import BackendDisconnectedError, BackendError, OptionsError, backend_errors
from trio_chardev.events import Event
from trio_chardev.files import end_on_files, in_time, work_on_files
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.values import path_text
from trio_chardev.protocols.asciicast import Entry

log = logging.getLogger(__name__)

SHORTEST = 1e-3  # seconds; a shorter recording without bytes is not played in a loop


@attrs.frozen(kw_only=True)
class ReplayOptions(BackendOptions):
    """Plays a recording as input, with its timing."""

    open_timeout = math.inf  # `work_on_files` has a deadline of its own

    path: str = attrs.field(converter=path_text)
    """The recording, a file in asciicast v2 or v3."""

    speed: str = "1"
    """How many times as fast to play it, a number above 0; max means without waiting."""

    loop: bool = False
    """Begin again at the end."""

    expect: Literal["off", "warn", "strict"] = "off"
    """What to do if the frontend sends something else than was recorded; strict ends the replay."""

    plays: ClassVar[bool] = True


def parse_speed(text: str) -> float:
    """Parse a speed; ``max`` is infinity. Raises OptionsError."""
    if text == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0 < speed < math.inf:
        raise OptionsError(f"replay: speed must be a number above 0, or max, not '{text}'")
    return speed


class ReplayBackend(Backend):
    """Plays a recording."""

    def __init__(self, request: OpenRequest, options: ReplayOptions, recording: Recording) -> None:
        """Raises OptionsError if *options* are wrong."""
        super().__init__(request)
        self._options = options
        self._speed = parse_speed(options.speed)
        self._reader = Reader(recording)
        self._script = (
            None if options.expect == "off" else Script(self._reader.again(), options.loop)
        )
        self._is_strict = options.expect == "strict"
        self._is_playing = True
        self._begin = math.inf  # Trio's time at which the recording's time is 0
        self._rest = b""  # of the entry that is being delivered
        self._has_output = False
        self._time = 0.0  # of the last entry
        self._expected = 0  # bytes that the recording has as sent, up to the present place
        self._changed = trio.lowlevel.ParkingLot()
        self._next: Entry | None = None
        self._is_played = True  # `_next` is used up; it is not replaced early, as it may be damaged
        self._is_beginning = True

    @property
    def filename(self) -> str:
        return f"replay:{self._options.path}"

    def activate(self) -> None:
        """Begin to play."""
        self._begin = trio.current_time()

    # ------------------------------------------------------------ playing

    def receive_nowait(self, max_bytes: int) -> bytes:
        for _ in range(LINES_AT_ONCE):
            if self._rest:
                data, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
                return data
            if not self._is_playing or not self.fetch() or self._due > trio.current_time():
                break
            if self._next is None:
                self._end()
                break  # one round at a time
            self._play(self._next)
            self._is_played = True
        return b""

    def fetch(self) -> bool:
        """Fetch the next entry, or find the end; False if other tasks should run first.

        Raises BackendError.
        """
        if self._is_played:
            entry = self._reader.next()
            if entry is None and not self._reader.is_over:
                return False
            self._next, self._is_played = entry, False
            if self._is_beginning:
                self._is_beginning = False
                self._open_as_recorded()
        return True

    async def read_on(self) -> None:
        """Have more of the recording read, if `fetch` waits for that; always a checkpoint.

        Raises BackendError.
        """
        if self._is_playing and self._is_played and self._reader.is_waiting:
            await self._reader.read_on()
        else:
            await trio.lowlevel.checkpoint()

    async def wait_readable(self) -> None:
        if self._is_playing and self._is_played and self._reader.is_waiting:
            await self.read_on()
            return
        with trio.move_on_at(self._due if self._is_playing else math.inf):
            await self._changed.park()

    @property
    def _due(self) -> float:
        """When to go on, in Trio's time; infinity while the frontend has to send something."""
        if self._is_strict and self._is_late:
            return math.inf
        time = self._next.time if self._next is not None else self._time
        return self._begin + time / self._speed

    @property
    def _is_late(self) -> bool:
        """Has the frontend not sent all that was recorded as sent by now?"""
        return self._script is not None and self._script.sent < self._expected

    def _play(self, entry: Entry) -> None:
        self._time = entry.time
        match entry.code:
            case "o":
                self._rest = entry.data
                self._has_output = self._has_output or bool(self._rest)
            case "i":
                self._expected += len(entry.data)
            case "m":
                self._play_marker(entry.text)

    def _play_marker(self, label: str) -> None:
        match label.split(" ", 1)[0]:
            case "OPENED":
                self.set_open(True)
            case "CLOSED":
                self.set_open(False)
            case "BREAK":
                self._on_event(Event.BREAK)
            case "LOST":
                text = "recording '%s' is not whole: %s"
                log.warning(text, self._options.path, label, extra=self._about)

    @property
    def _about(self) -> dict[str, dict[str, str]]:
        """Which chardev it is, for the log."""
        return {"fields": {"chardev": self.id}}

    def _open_as_recorded(self) -> None:
        """Report OPENED or CLOSED, whichever held at the beginning of the recording."""
        first = self._next
        self.set_open(first is None or first.code != "m" or first.text != "CLOSED")

    def _end(self) -> None:
        """Loop or stop, at the end of the recording."""
        if self._reader.is_torn:
            text = "recording '%s': its last line is torn"
            log.warning(text, self._options.path, extra=self._about)
        length = self._time / self._speed
        if self._options.loop and (self._has_output or length >= SHORTEST):
            self._begin += length
            self._time = 0.0
            self._has_output = False
            self._reader = self._reader.again()
            self._next, self._is_played, self._is_beginning = None, True, True
        else:
            self._stop()

    def _stop(self) -> None:
        self._is_playing = False
        self.set_open(False)
        self._changed.unpark_all()

    # ------------------------------------------------------------ what the frontend sends

    def send_nowait(self, data: memoryview) -> int:
        if not self.is_open:
            raise BackendDisconnectedError(f"nobody is at {self.filename}")
        return len(data) if self._script is None else self._compare(self._script, data)

    async def wait_writable(self) -> None:
        if self._script is not None and self._script.is_waiting:
            await self._script.read_on()
        else:
            await trio.lowlevel.checkpoint()

    def _compare(self, script: Script, data: memoryview) -> int:
        """Compare *data* with the recording; return how much was compared. Raises BackendError."""
        was_late = self._is_late
        taken = script.follow(data)
        if script.difference is not None:
            self._differ(script.difference)
            return len(data)
        if was_late and not self._is_late:
            self._begin = max(self._begin, trio.current_time() - self._time / self._speed)
            self._changed.unpark_all()
        return taken

    def _differ(self, difference: str) -> None:
        """Report the first difference, and compare no further."""
        self._script = None
        text = f"chardev '{self.id}' departs from recording '{self._options.path}': {difference}"
        if self._is_strict:
            self._stop()
            log.error("%s", text, extra=self._about)
            raise BackendError(text)
        log.warning("%s", text, extra=self._about)


@asynccontextmanager
async def open_replay(options: ReplayOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open the recording. Raises BackendError, ``Could not open 'PATH': strerror``."""
    with slow_errors(f"Could not open '{options.path}'"):
        recording = await work_on_files(_open_recording, options.path, request.files.open)
    try:
        backend = ReplayBackend(request, options, recording)
        with slow_errors(f"Could not open '{options.path}'"):
            await in_time(_find_beginning, backend)
        yield backend
    finally:
        what = f"recording '{options.path}'"
        await end_on_files(what, recording.file.close)  # noqa: ASYNC102 - it shields itself


async def _find_beginning(backend: ReplayBackend) -> None:
    while not backend.fetch():
        await backend.read_on()


def _open_recording(path: str, opener: OpenPath) -> Recording:
    """Open and lock the recording, in a thread, as the disk may hang. Raises BackendError."""
    with backend_errors(f"Could not open '{path}'"):
        fd = opener(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with owned(lambda: os.close(fd)):
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BackendError(f"Could not open '{path}': Not a regular file")
            try:
                lock(fd, fcntl.LOCK_SH)
            except BlockingIOError as exc:
                raise BackendError(f"Could not open '{path}': it is being recorded") from exc
        return Recording(path, fd)


REPLAY = Kind(ReplayOptions, open_replay)
