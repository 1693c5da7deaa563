"""Modified UTF-8 as QEMU reads it.

NUL may be spelt C0 80, so that a C string can hold it. Surrogates, the 66 non-characters, numbers
beyond U+10FFFF and overlong forms are invalid. An invalid sequence is a lead byte with the
continuation bytes that follow it (up to six bytes in all, as in the UTF-8 of 1996), or one byte
that can't begin a sequence.
"""

from __future__ import annotations

import re

_PLANE_ENDS = "".join(chr(plane << 16 | end) for plane in range(17) for end in (0xFFFE, 0xFFFF))
NOT_A_CHARACTER = re.compile(f"[\ud800-\udfff\ufdd0-\ufdef{_PLANE_ENDS}]")
REPLACEMENT = "\ufffd"

# It is matched against text in which bytes that are not UTF-8 are lone surrogates (PEP 383).
_INVALID = re.compile(
    "[\udcc0-\udcdf][\udc80-\udcbf]?|[\udce0-\udcef][\udc80-\udcbf]{0,2}"
    "|[\udcf0-\udcf7][\udc80-\udcbf]{0,3}|[\udcf8-\udcfb][\udc80-\udcbf]{0,4}"
    f"|[\udcfc\udcfd][\udc80-\udcbf]{{0,5}}|{NOT_A_CHARACTER.pattern}"
)

_LENGTHS = {lead: 2 + (lead >= 0xE0) + (lead >= 0xF0) for lead in range(0xC0, 0xF5)}
MAX_LENGTH = 4  # bytes of a character


def decode(raw: bytes) -> str | None:
    """Decode *raw*; return None if a sequence is invalid."""
    try:
        # C0 begins no other sequence, so this can't replace a part of a valid one.
        text = raw.replace(b"\xc0\x80", b"\0").decode()
    except UnicodeDecodeError:
        return None
    return None if not text.isascii() and NOT_A_CHARACTER.search(text) else text


def decode_replacing(raw: bytes) -> str:
    """Decode *raw*, with U+FFFD for each invalid sequence."""
    text = raw.replace(b"\xc0\x80", b"\0").decode(errors="surrogateescape")
    return text if text.isascii() else _INVALID.sub(REPLACEMENT, text)


def decode_c_string(raw: bytes) -> str:
    """Decode as `decode_replacing`, up to the first NUL byte."""
    return decode_replacing(raw.partition(b"\0")[0])


def count_whole(raw: bytes, size: int) -> int:
    """How many bytes of *raw* make text of at most *size* bytes without cutting a character.

    A character is cut only if it is the first one and longer than *size*.
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
