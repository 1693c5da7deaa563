"""Somebody at a terminal: what is shown, what is typed, and whether it is raw."""

from __future__ import annotations

import os
import select
import termios
import time
from collections.abc import Callable

import attrs

from tests.services import TIMEOUT

LFLAG = 3  # its place in what tcgetattr gives
RAW_BITS = termios.ECHO | termios.ICANON


def until(condition: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    """Wait for what only another process knows."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.005)


def read_until(fd: int, text: bytes, seen: bytes = b"") -> tuple[bytes, bytes]:
    """Read until *text* has come; return what was before it, and what is behind it."""
    deadline = time.monotonic() + TIMEOUT
    while text not in seen:
        left = deadline - time.monotonic()
        assert left > 0, seen[-1000:]
        if select.select([fd], [], [], left)[0]:
            data = os.read(fd, 65536)
            assert data, seen[-1000:]
            seen += data
    before, _, behind = seen.partition(text)
    return before, behind


@attrs.define
class AtTerminal:
    """Somebody at the terminal *tty*; *user* is its other side."""

    user: int
    tty: int
    seen: bytes = attrs.field(default=b"", kw_only=True)

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.tty)[LFLAG] & RAW_BITS

    def type(self, keys: bytes) -> None:
        os.write(self.user, keys)

    def expect(self, text: bytes) -> bytes:
        """Wait until *text* is shown; return what was shown before."""
        before, self.seen = read_until(self.user, text, self.seen)
        return before
