"""Standard input, which may be anything: read in a worker thread."""

from __future__ import annotations

import os
import sys
from collections import deque

from trio_chardev.plain_errors import OptionsError, strerror
from trio_chardev.workers import run_in_worker

READ_SIZE = 1 << 16  # bytes


async def read_some() -> bytes:
    """Read some of it; ``b""`` at the end. Raises OptionsError.

    When cancelled, what comes next may be lost.
    """
    if sys.stdin is None:  # the descriptor was closed when the program began
        return b""
    try:
        return await run_in_worker(os.read, sys.stdin.fileno(), READ_SIZE)
    except OSError as exc:
        raise OptionsError(f"can't read from standard input: {strerror(exc)}") from exc


class Lines:
    """Its lines, with their numbers from 1 on, as they come: ``async for number, line in Lines()``."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._begun = b""
        self._is_over = False
        self._number = 0

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> tuple[int, str]:
        """Raises OptionsError."""
        while not self._waiting:
            if self._is_over:
                raise StopAsyncIteration
            data = await read_some()
            self._is_over = not data
            *whole, self._begun = (self._begun + data).split(b"\n")
            if self._is_over and self._begun:
                whole.append(self._begun)
            self._waiting += [line.decode("utf-8", "surrogateescape") for line in whole]
        self._number += 1
        return self._number, self._waiting.popleft()
