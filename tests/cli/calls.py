"""Calls of the program."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.services import TIMEOUT

Call = Callable[..., tuple[int, str, str]]
"""Runs the program: its exit status, and what it says to standard output and error."""


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
