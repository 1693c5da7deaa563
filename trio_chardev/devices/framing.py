"""Which of the bytes that wait at a device are a frame, to be sent on as one piece; without I/O.

A frame ends where the line has been silent for long enough, as those of Modbus RTU do, or with a
delimiter; and what comes before a break, new line settings or the end of the device is a frame, too.
So that nothing waits for ever, so is what has waited MAX_WAIT, and MAX_FRAME bytes.
"""

from __future__ import annotations

import math

import attrs

from trio_chardev.options.escapes import unescape

MAX_FRAME = 1 << 12  # bytes
MAX_WAIT = 10.0  # seconds since the first byte of a frame
SILENCE = 0.1  # seconds, with a delimiter alone: a prompt has none, and should be seen
MAX_DELIMITER = 16  # bytes


@attrs.define(eq=False, repr=False)
class Framer:
    """Tells how many of the bytes that wait are to be sent on now."""

    silence: float
    """Seconds without a byte, after which what waits is a frame."""
    delimiter: bytes = b""
    """What ends a frame as well; empty for nothing."""
    _known: int = 0
    """How many bytes waited at the last look."""
    _due: int = 0
    """How many of them are to be sent on."""
    _first: float = math.inf
    """When the first of them came."""
    _last: float = -math.inf
    """When the last one came."""

    @property
    def deadline(self) -> float:
        """When to look again, if nothing comes before."""
        return min(self._last + self.silence, self._first + MAX_WAIT)

    def find(self, data: bytes, now: float, *, is_whole: bool) -> int:
        """Return how many of the first bytes of *data* are to be sent on now.

        *data* is all that waits, up to MAX_FRAME bytes or an event: then it is the whole of it.
        """
        if len(data) > self._known:
            self._last = now
            self._first = min(self._first, now)
            self._known = len(data)
        if data and not self._due:
            self._due = self._frame(data, now, is_whole=is_whole)
        return min(self._due, len(data))

    def _frame(self, data: bytes, now: float, *, is_whole: bool) -> int:
        if self.delimiter and (at := data.find(self.delimiter)) >= 0:
            return at + len(self.delimiter)
        is_over = is_whole or len(data) >= MAX_FRAME or now >= self.deadline
        return len(data) if is_over else 0

    def sent(self, size: int) -> None:
        """Note that the first *size* bytes wait no more."""
        self._known = max(self._known - size, 0)
        self._due = max(self._due - size, 0)
        if not self._due:
            self._first = self._last if self._known else math.inf


def parse_delimiter(text: str) -> bytes:
    r"""Return the bytes that *text* stands for, with the escapes ``\r \n \t \\`` and ``\xNN``.

    Raises ValueError, which says what is wrong with it.
    """
    delimiter = unescape(text)
    if not 0 < len(delimiter) <= MAX_DELIMITER:
        raise ValueError(f"has {len(delimiter)} bytes, and may have 1 to {MAX_DELIMITER}")
    return delimiter
