"""Calls of the C library that Python's os module does not have."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *args: int | bytes | None) -> int:
    """Call *function*, and return its result. Raises OSError."""
    result: int = getattr(_libc, function)(*args)
    if result < 0:
        raise OSError(code := ctypes.get_errno(), os.strerror(code))
    return result
