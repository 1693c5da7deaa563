"""A serial line of this machine for tests: a PTY's slave, whose master is the board."""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs

CFLAG, OSPEED = 2, 5  # their places in what tcgetattr gives


@attrs.frozen
class Wire:
    """Both ends, as descriptors."""

    board: int
    line: int

    @property
    def path(self) -> str:
        """The device of the line."""
        return os.ttyname(self.line)

    @property
    def speed(self) -> Any:
        """The line's rate, as termios has it, such as B9600."""
        return termios.tcgetattr(self.line)[OSPEED]

    @property
    def has_two_stop_bits(self) -> bool:
        return bool(termios.tcgetattr(self.line)[CFLAG] & termios.CSTOPB)

    def echo_back(self, size: int) -> None:
        """Send back *size* bytes, as the board."""
        left = size
        while left:
            data = os.read(self.board, left)
            left -= len(data)
            while data:
                data = data[os.write(self.board, data) :]


@contextmanager
def wire() -> Iterator[Wire]:
    """Make a line, which is raw."""
    board, line = os.openpty()
    tty.setraw(line)
    try:
        yield Wire(board, line)
    finally:
        os.close(line)
        os.close(board)
