"""The log file as QEMU has it: the bytes that are sent to the backend, and nothing else.

It is written in the background, see `trio_chardev.backends.taps.background_file`. What finds no
room in the buffer is dropped and counted; the service's log tells that, and so does the log file
itself, at that place: ``TIME [trio-chardev: LOST n bytes]``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

import trio

from trio_chardev.backends.descriptor import slow_errors
from trio_chardev.backends.taps.background_file import BackgroundFile
from trio_chardev.backends.taps.log_options import kept_by
from trio_chardev.backends.taps.output import Output
from trio_chardev.core.tap import Tap
from trio_chardev.files import in_time
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.log_format import LogFormat, Moment

ROOM_FOR_NOTE = 1 << 17  # bytes; more than a note, and lines that have begun before it, can have


class LogFile(Tap):
    """The tap that writes the log file."""

    times: ClassVar[int] = 1
    """How large its buffer is, see `BackgroundFile`."""

    def __init__(
        self,
        path: str,
        output: Output,
        options: BackendOptions,
        before: LogFile | None = None,
        form: LogFormat | None = None,
    ) -> None:
        """*before* is the log of the replaced backend, if it is the same file."""
        self.path = path
        what = f"log file '{path}'"
        self.background = BackgroundFile(
            what, output, options.log_max, keeps=True, times=self.times
        )
        self.background.on_room = self.tell_loss
        self.background.limit.lost_line = self._lost_line
        self._append = options.logappend
        self._keeps_old = kept_by(options) > 0
        self._is_local = options.log_time == "local"
        self._before = before
        self._lost = 0
        """How many bytes are missing at the end, which the file does not tell yet."""
        self._format = form or LogFormat()

    def activate(self) -> None:
        """Begin a new file, unless the file is to be appended to."""
        if self._before is not None:
            if not (self._append or self._keeps_old):
                self._before.background.pending.clear()
            self.background.follow(self._before.background)
            self.background.reopen_soon()  # it may have been rotated since this was opened
            self._before = None
        if not self._append:
            self.background.empty()

    def sent(self, data: memoryview) -> None:
        """Have *data* written soon."""
        if self._lost:
            self.tell_loss()
        room = 0 if self._lost else self.background.room
        if room:
            self.background.put(data[:room])
        if len(data) > room:
            if not self._lost:
                self._format.at_line_start = self.background.pending.endswith(b"\n")
            self._lose(len(data) - room)

    def refused(self, data: memoryview) -> None:
        """Log *data* as well, though nobody was there to take it, as QEMU does."""
        self.sent(data)

    async def reopen(self) -> bool:
        with slow_errors(f"Could not reopen '{self.path}'"):
            await in_time(self.background.reopen)
        return True

    def tell_loss(self) -> None:
        """Tell in the file how much is missing at this place, if there is room for that."""
        if self._lost and self.background.room >= ROOM_FOR_NOTE:
            lost, self._lost = self._lost, 0
            self._put_note(f"LOST {lost} bytes")

    def _lose(self, count: int) -> None:
        self._lost += count
        self.background.drop(count)

    def _put_note(self, text: str) -> None:
        self.background.put(self._format.note(text, self._now()))

    def _lost_line(self, count: int) -> bytes:
        return self._format.note_line(f"LOST {count} bytes", Moment(0.0, self._time()))

    def _now(self) -> Moment:
        return Moment(trio.current_time(), self._time())

    def _time(self) -> str:
        if self._is_local:
            return datetime.now(UTC).astimezone().isoformat(timespec="microseconds")
        now = datetime.now(UTC).replace(tzinfo=None)  # isoformat() would write it as +00:00
        return now.isoformat(timespec="microseconds") + "Z"
