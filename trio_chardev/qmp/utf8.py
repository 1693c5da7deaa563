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


def decode(raw: bytes) -> str | None:
    """The text of *raw*, which holds no NUL byte; None if a sequence is invalid."""
    try:
        # C0 begins nothing else, so what is replaced cannot be part of a valid sequence.
        text = raw.replace(b"\xc0\x80", b"\0").decode()
    except UnicodeDecodeError:
        return None
    return None if not text.isascii() and NOT_A_CHARACTER.search(text) else text


def decode_replacing(raw: bytes) -> str:
    """The text of *raw* with U+FFFD for each invalid sequence; it ends at a NUL byte."""
    raw = raw.partition(b"\0")[0]
    text = decode(raw)
    if text is not None:
        return text
    return _SEQUENCE.sub(_valid_or_replacement, raw).decode()


def _valid_or_replacement(match: re.Match[bytes]) -> bytes:
    text = decode(match[0])
    return (REPLACEMENT if text is None else text).encode()
