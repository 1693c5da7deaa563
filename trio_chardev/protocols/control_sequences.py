"""Control sequences, and how to leave them out of a text (ECMA-48; xterm's ctlseqs).

What is left out: CSI, OSC, DCS, SOS, PM and APC, the other escape sequences, DEL, and the control
characters except for tab, newline and carriage return. The C1 controls of one byte (0x80 to 0x9F)
stay: in UTF-8 these are parts of characters.
"""

from __future__ import annotations

import re
from typing import Final

MAX_HELD: Final = 4096  # bytes of a sequence without an end; then they are text

_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NEXT: Final = rb"(?=([^\x20-\x7e]))"
_ESCAPE: Final = rb"(?=(\x1b[^\\]))"
_SEQUENCE: Final = re.compile(
    rb"\x1b(?:"
    rb"\[[\x20-\x3f]*+(?:[\x40-\x7e]|%(next)b)"  # CSI; any other byte breaks it off
    rb"|\][^\x07\x18\x1a\x1b\n]*+(?:[\x07\x18\x1a]|\x1b\\|%(escape)b)"  # OSC; BEL ends it, too
    rb"|[PX^_][^\x18\x1a\x1b]*+(?:[\x18\x1a]|\x1b\\|%(escape)b)"  # DCS, SOS, PM, APC
    rb"|[\x20-\x2f]++(?:[\x30-\x7e]|%(next)b)"  # with intermediate bytes
    rb"|[\x30-\x4f\x51-\x57\x59\x5a\\\x60-\x7e]"  # of two characters
    rb"|%(next)b"  # an ESC that begins nothing
    rb")" % {b"next": _NEXT, b"escape": _ESCAPE}
)
"""A sequence, and as groups what has to follow so that it is known to end."""

_BEGUN: Final = re.compile(  # what more bytes may make a sequence
    rb"\x1b(?:\[[\x20-\x3f]*|\][^\x07\x18\x1a\x1b\n]*\x1b?|[PX^_][^\x18\x1a\x1b]*\x1b?|[\x20-\x2f]*)"
)


class Stripper:
    """Leaves control sequences out of one stream of bytes, however it is cut."""

    def __init__(self) -> None:
        self.held = b""
        """A sequence that has begun. `flush` gives its text, for it may be none."""

    def feed(self, data: bytes) -> bytes:
        """Return what is text in *data*, and in what was held before."""
        data, self.held = self.held + data, b""
        if len(data) <= MAX_HELD:  # the usual case, made fast: all sequences are whole, and short
            text = _SEQUENCE.sub(b"", data)
            if b"\x1b" not in text:
                return _without_controls(text)
        return _without_controls(self._text_of(data))

    def _text_of(self, data: bytes) -> bytes:
        """Do as `feed`, one sequence after the other; control characters are left in."""
        pieces: list[bytes] = []
        at = 0
        while (escape := data.find(b"\x1b", at)) >= 0:
            pieces.append(data[at:escape])
            if (end := _end_of_sequence(data, escape)) is not None:
                at = end
            elif len(data) - escape <= MAX_HELD and _BEGUN.fullmatch(data, escape):
                self.held = data[escape:]
                at = len(data)
            else:  # it is none: a newline breaks an OSC off, or it is too long
                at = escape + 1
        pieces.append(data[at:])
        return b"".join(pieces)

    def flush(self) -> bytes:
        """Return the text of a sequence that has begun; what comes then is no part of it."""
        held, self.held = self.held, b""
        return _without_controls(held)


def _end_of_sequence(data: bytes, begin: int) -> int | None:
    """Where the sequence ends that is whole in *data*; None if there is none, or it is too long."""
    if (found := _SEQUENCE.match(data, begin)) is None:
        return None
    known = found.end(found.lastindex) if found.lastindex else found.end()
    return found.end() if known - begin <= MAX_HELD + 1 else None


def _without_controls(text: bytes) -> bytes:
    return _CONTROLS.sub(b"", text)
