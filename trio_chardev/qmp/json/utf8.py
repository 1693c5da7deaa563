"""Modified UTF-8 as QEMU reads it.

NUL may be spelt C0 80, so that a C string can hold it. Surrogates, the 66 non-characters
and what lies beyond U+10FFFF count as invalid, as do overlong forms. An invalid sequence
is a lead byte with the continuation bytes that it has (up to six bytes in all, as in the
UTF-8 of 1996), or one byte that cannot begin a sequence.
"""

from __future__ import annotations

import re

_PLANE_ENDS = "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF))
NOT_A_CHARACTER = re.compile(f"[\ud800-\udfff\ufdd0-\ufdef{_PLANE_ENDS}]")
REPLACEMENT = "\ufffd"

# Of text in which bytes that are no UTF-8 are lone surrogates (PEP 383).
_INVALID = re.compile(
    "[\udcc0-\udcdf][\udc80-\udcbf]?|[\udce0-\udcef][\udc80-\udcbf]{0,2}"
    "|[\udcf0-\udcf7][\udc80-\udcbf]{0,3}|[\udcf8-\udcfb][\udc80-\udcbf]{0,4}"
    f"|[\udcfc\udcfd][\udc80-\udcbf]{{0,5}}|{NOT_A_CHARACTER.pattern}"
)

_LENGTHS = {lead: 2 + (lead >= 0xE0) + (lead >= 0xF0) for lead in range(0xC0, 0xF5)}
MAX_LENGTH = 4  # bytes of a character


def decode(raw: bytes) -> str | None:
    """The text of *raw*; None if a sequence is invalid."""
    try:
        # C0 begins nothing else, so what is replaced cannot be part of a valid sequence.
        text = raw.replace(b"\xc0\x80", b"\0").decode()
    except UnicodeDecodeError:
        return None
    return None if not text.isascii() and NOT_A_CHARACTER.search(text) else text


def decode_replacing(raw: bytes) -> str:
    """The text of *raw* with U+FFFD for each invalid sequence."""
    text = raw.replace(b"\xc0\x80", b"\0").decode(errors="surrogateescape")
    return text if text.isascii() else _INVALID.sub(REPLACEMENT, text)


def decode_c_string(raw: bytes) -> str:
    """As `decode_replacing`, but it ends at a NUL byte."""
    return decode_replacing(raw.partition(b"\0")[0])


def count_whole(raw: bytes, size: int) -> int:
    """How many bytes of *raw* to take for text of up to *size* bytes: no character is cut.

    If it has to be, because no other is before it and it is longer than *size*, that is *size*.
    """
    if size >= len(raw):
        return len(raw)
    for begin in range(size - 1, max(size - MAX_LENGTH, -1), -1):
        length = _LENGTHS.get(raw[begin], 0)
        if begin + length > size and decode(raw[begin : begin + length]) is not None:
            fits_later = length <= size
            return begin if fits_later or _has_character(raw[:begin]) else size
    return size


def _has_character(raw: bytes) -> bool:
    return decode_replacing(raw).strip(REPLACEMENT) != ""
