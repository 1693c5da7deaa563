"""The size that a file that is written in the background may have."""

from __future__ import annotations

import logging
from collections.abc import Callable

from trio_chardev.backends.taps.output import Output

log = logging.getLogger("trio_chardev.log")


class SizeLimit:
    """Leaves out what would exceed the size, until somebody truncates the file."""

    def __init__(self, what: str, unit: str, max_size: int | None) -> None:
        """*what* names the file in log lines, *unit* is `Output.unit`; no size is no limit."""
        self.lost_line: Callable[[int], bytes] = lambda count: b""
        """Makes, in a thread, what tells in the file that *count* are missing at that place."""
        self._what = what
        self._unit = unit
        self._max_size = max_size
        self._full_at: int | None = None
        """The size at which it was full; nothing is written until somebody truncates it."""
        self._left_out = 0  # since it is full, in `Output.unit`

    @property
    def is_full(self) -> bool:
        """Is something left out at the end of the file?"""
        return self._full_at is not None

    def write(self, output: Output, data: bytearray) -> bytearray:
        """Write what there is room for, and return the rest. In a thread. Raises OSError."""
        left = bytearray()
        if self._max_size is not None:
            size = output.size()
            if self._full_at is not None and size >= self._full_at:
                return data
            if self._full_at is not None:
                self._tell_left_out(data, self._max_size - size)
            room = max(0, self._max_size - size)
            end = len(data) if len(data) <= room else output.fitting(data, room)
            left = data[end:]
            del data[end:]
            self._full_at = size + end if left else None
        try:
            output.write(data)
        except BaseException:
            data += left
            raise
        return left

    def _tell_left_out(self, data: bytearray, room: int) -> None:
        """Have the file tell what was left out, unless there is too little *room*."""
        line = self.lost_line(self._left_out)
        if len(line) <= room // 2:
            data[:0] = line

    def note(self, count: int, dropped: int, *, was_full: bool) -> None:
        """Account for *count* that were left out now, *dropped* by now; log what has changed."""
        self._left_out = count + (self._left_out if was_full else 0)
        if self.is_full and not was_full:
            text = "%s has reached its size of %d bytes: what comes is left out"
            log.warning(text, self._what, self._max_size)
        elif was_full and not self.is_full:
            log.warning("%s has room again; it lacks %d %s by now", self._what, dropped, self._unit)
