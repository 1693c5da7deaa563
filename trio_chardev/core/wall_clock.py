"""Times by the clock on the wall, for people and other programs; nothing waits for them."""

from __future__ import annotations

import time
from typing import overload

import trio

DIGITS = 3  # of times in seconds


@overload
def since_1970(at: float) -> float: ...


@overload
def since_1970(at: float | None) -> float | None: ...


def since_1970(at: float | None) -> float | None:
    """Convert *at*, a time by Trio's clock that is past, to seconds since 1970; None stays None."""
    if at is None:
        return None
    return round(time.time() - (trio.current_time() - at), DIGITS)
