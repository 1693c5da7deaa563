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

_SEQUENCE = re.compile(
    rb"[\xc0-\xdf][\x80-\xbf]?|[\xe0-\xef][\x80-\xbf]{0,2}|[\xf0-\xf7][\x80-\xbf]{0,3}"
    rb"|[\xf8-\xfb][\x80-\xbf]{0,4}|[\xfc\xfd][\x80-\xbf]{0,5}|[\x80-\xbf\xfe\xff]"
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
    text = decode(raw)
    if text is not None:
        return text
    return _SEQUENCE.sub(_valid_or_replacement, raw).decode()


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


def _valid_or_replacement(match: re.Match[bytes]) -> bytes:
    text = decode(match[0])
    return (REPLACEMENT if text is None else text).encode()
