"""A log file in a format, of one direction or both, with notes of what happens.

The format may hold back the beginning of a line; a task gives it up after `HOLD_TIME`, so that the
last words of a board are in the file even if no newline follows.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from functools import partial

import trio

from trio_chardev.backends.taps.log_file import LogFile
from trio_chardev.backends.taps.log_options import name_of_format
from trio_chardev.backends.taps.output import Output
from trio_chardev.core.backend import Backend
from trio_chardev.events import BackendEvent, Event
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.log_format import (
    Direction,
    HexDump,
    JsonLines,
    LogFormat,
    MarkedTimestamps,
    Timestamps,
)

HOLD_TIME = 0.5  # seconds that the beginning of a line is held back
PIECE = 1 << 12  # bytes; in json, lines that are empty take a hundred times as much


class FormattedLog(LogFile):
    """The tap that writes such a log file. Once finished, it ignores further calls."""

    times = 8
    """What is short has long lines: a burst of empty ones must find room as it does in a plain log."""

    def __init__(
        self,
        path: str,
        output: Output,
        options: BackendOptions,
        before: LogFile | None,
        form: LogFormat,
    ) -> None:
        super().__init__(path, output, options, before, form)
        self._has_out = options.log != "in"
        self._has_in = options.log != "out"
        self._notes_events = options.log_events
        self._is_open: bool | None = None
        self._is_finished = False
        self._begun = trio.Event()
        self._scope = trio.CancelScope()  # of the task that gives lines up
        self._backend: weakref.ref[Backend] | None = None

    def sent(self, data: memoryview) -> None:
        if self._has_out:
            self._data("out", bytes(data))

    def received(self, data: bytes) -> None:
        if self._has_in:
            self._data("in", data)

    def event(self, event: BackendEvent) -> None:
        """Note *event*, unless it is an OPENED or CLOSED that is known already."""
        if not isinstance(event, Event):
            return  # line settings and modem lines
        if event in (Event.OPENED, Event.CLOSED):
            is_open = event is Event.OPENED
            if self._is_open is is_open:
                return
            self._is_open = is_open
        self.note(f"OPENED {self._name}" if event is Event.OPENED else event.value)

    def replaced(self, before: str, after: str) -> None:
        self.note(f"CHANGED {before} -> {after}")
        self._is_open = None

    def note(self, text: str) -> None:
        """Put a line with *text*, if events are to be noted."""
        if self._notes_events and not self._is_finished:
            line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
            self._put(0, partial(self._format.note, line, self._now()))

    def shows(self, backend: Backend) -> None:
        """Know *backend*, for its name, without keeping it alive."""
        self._backend = weakref.ref(backend)

    @property
    def _name(self) -> str:
        backend = self._backend() if self._backend is not None else None
        return backend.filename if backend is not None else ""

    async def give_up_lines(self) -> None:
        """Have the beginnings of lines written that have been held back for `HOLD_TIME`."""
        with self._scope:
            while True:
                await self._begun.wait()
                while not math.isinf(due := self._format.due):
                    await trio.sleep_until(due + HOLD_TIME)
                    self._flush(due)
                self._begun = trio.Event()

    def finish(self) -> None:
        """Have everything written: nothing more will come. Nobody is there any more, either."""
        if self._is_open:
            self.event(Event.CLOSED)
        self._flush(math.inf)
        self._is_finished = True
        self._scope.cancel()

    def _flush(self, until: float) -> None:
        self._put(0, partial(self._format.flush, until))

    def _data(self, direction: Direction, data: bytes) -> None:
        if self._is_finished:
            return
        now = self._now()
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE]
            self._put(len(piece), partial(self._format.data, direction, piece, now))
        if self._format.held:
            self._begun.set()

    def _put(self, size: int, make: Callable[[], bytes]) -> None:
        """Have what *make* makes of *size* bytes, and of those held back, written soon."""
        if self._lost:
            self.tell_loss()
        before, at_line_start = self._format.held + size, self._format.at_line_start
        text = make()
        if self._lost or len(text) > self.background.room:
            self._format.flush()  # for what comes after the loss must not be held before it is told
            self._format.at_line_start = at_line_start
            self._lose(before)
        elif text:
            self.background.put(text)


def format_of(options: BackendOptions, id: str) -> LogFormat | None:
    """Make the format of the log of chardev *id*; None if it is the bytes alone, as QEMU's is."""
    strips = options.log_strip
    match name_of_format(options):
        case "timestamp" if options.log == "both":
            return MarkedTimestamps(strips=strips)
        case "timestamp":
            return Timestamps(strips=strips)
        case "json":
            return JsonLines(id, strips=strips)
        case "hexdump":
            return HexDump(is_marked=options.log == "both")
        case _:
            is_plain = options.log == "out" and not (strips or options.log_events)
            return None if is_plain else LogFormat(strips=strips)
