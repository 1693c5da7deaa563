"""When the next byte may be sent to a device that is slow to take what it is sent; without I/O.

A delay begins when a byte is on the line, as far as its speed tells that. It may be longer than asked
for, never shorter.
"""

from __future__ import annotations

import math
import re

import attrs

from trio_chardev.events import LineSettings

CR, LF = b"\r", b"\n"
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)?")


@attrs.define(eq=False, repr=False)
class Pacer:
    """Tells how much may be sent at once, and when."""

    char: float
    """Seconds between two bytes."""
    line: float
    """Seconds after each line, which ends with CR, LF or CR LF; then there are none for its bytes."""
    _is_after_cr: bool = False
    _next_char: float = -math.inf
    _next_line: float = -math.inf

    def wait_until(self, data: bytes) -> float:
        """When the first byte of *data* may be sent."""
        next_char = self._next_char if self.char else -math.inf
        if self._is_after_cr and data.startswith(LF):
            return next_char  # it is still the same line
        return max(next_char, self._next_line)

    def piece(self, data: bytes) -> int:
        """Return how many of the first bytes of *data* may then be sent at once."""
        if self.char:
            return 1
        found = _LINE.match(data)
        return found.end() if found else len(data)

    def sent(self, data: bytes, now: float, byte_time: float) -> None:
        """Note that *data* was sent; each byte takes the line *byte_time* seconds."""
        if not data:
            return
        done = max(now, self._next_char - self.char) + len(data) * byte_time
        self._next_char = done + self.char
        self._is_after_cr = data.endswith(CR)
        if data.endswith((CR, LF)):
            self._next_line = done + self.line


def byte_time(settings: LineSettings) -> float:
    """Return the seconds that a byte takes a line."""
    bits = 1 + settings.data_bits + (settings.parity != "N") + settings.stop_bits
    return bits / settings.speed
