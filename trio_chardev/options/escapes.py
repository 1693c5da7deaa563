r"""Bytes written as text: ``\r``, ``\n``, ``\t``, ``\\`` and ``\xNN``."""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.?)", re.DOTALL)
_ESCAPED = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}


def unescape(text: str) -> bytes:
    """Return the bytes that *text* stands for, as UTF-8.

    Raises ValueError, which says what is wrong with it.
    """
    return _ESCAPE.sub(_unescape, text.encode("utf-8", "surrogateescape"))


def _unescape(found: re.Match[bytes]) -> bytes:
    name = found[1]
    if name in _ESCAPED:
        return _ESCAPED[name]
    if len(name) == 3:
        return bytes.fromhex(name[1:].decode())
    raise ValueError(f"has '{found[0].decode(errors='replace')}', which is no escape")
