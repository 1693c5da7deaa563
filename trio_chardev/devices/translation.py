"""Line ends on their way over a bridge, without I/O: CR and LF become what the other side expects.

The names are termios(3)'s for what it does to single bytes: ``icrnl`` makes each CR an LF, ``inlcr``
each LF a CR, ``igncr`` drops each CR, ``onlcr`` makes each LF CR LF. ``cr``, ``lf`` and ``crlf`` make
that of each line end, whether it comes as CR, as LF or as CR LF, also if a read has cut that in two.

No byte is kept back for its successor: the end of a line is there with the CR, and an LF right after
it is nothing.
"""

from __future__ import annotations

from typing import Literal

import attrs

CR, LF = 0x0D, 0x0A

Translate = Literal["none", "icrnl", "inlcr", "igncr", "onlcr", "cr", "lf", "crlf"]

_BYTES: dict[Translate, tuple[bytes, bytes]] = {
    "icrnl": (b"\r", b"\n"),
    "inlcr": (b"\n", b"\r"),
    "igncr": (b"\r", b""),
    "onlcr": (b"\n", b"\r\n"),
}
"""What becomes what, whatever is beside it."""

_ENDS: dict[Translate, bytes] = {"cr": b"\r", "lf": b"\n", "crlf": b"\r\n"}
"""What the end of a line becomes."""


@attrs.define(eq=False, repr=False)
class Translation:
    """Translates the bytes of one direction; it knows what has been taken, and keeps no byte."""

    name: Translate
    _is_after_cr: bool = False
    """Was a CR the last byte that was taken?"""
    _part: int = 0
    """How many bytes of what the first byte becomes were taken already: that is CR, of CR LF."""

    def translate(self, data: bytes) -> bytes:
        """Return what *data*, the next bytes, become, without what was taken of it already."""
        if self.name in _BYTES:
            return data.replace(*_BYTES[self.name])[self._part :]
        if (end := _ENDS.get(self.name)) is None:
            return data
        if self._is_after_cr and data.startswith(b"\n"):
            data = data[1:]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", end)[self._part :]

    def took(self, data: bytes, size: int) -> int:
        """Note that *size* bytes of what *data* becomes were taken; return how many of *data* are.

        Those that become nothing are taken with what is before them.
        """
        left = self._part + size
        for index, byte in enumerate(data):
            if (width := self._width(byte)) > left:
                self._part = left
                return index
            left -= width
            self._is_after_cr = byte == CR
        self._part = 0
        return len(data)

    def _width(self, byte: int) -> int:
        """How many bytes *byte* becomes, as the next one."""
        if self.name in _BYTES:
            old, new = _BYTES[self.name]
            return len(new) if byte == old[0] else 1
        if (end := _ENDS.get(self.name)) is None or byte not in (CR, LF):
            return 1
        return 0 if byte == LF and self._is_after_cr else len(end)
