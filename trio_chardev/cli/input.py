"""Standard input, which may be anything: read in a worker thread."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator

from trio_chardev.errors import OptionsError, strerror
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


async def lines() -> AsyncIterator[tuple[int, str]]:
    """Yield its lines, with their numbers from 1 on, as they come. Raises OptionsError."""
    number, begun = 0, b""
    while True:
        data = await read_some()
        *whole, begun = (begun + data).split(b"\n")
        if not data and begun:
            whole.append(begun)
        for line in whole:
            number += 1
            yield number, line.decode("utf-8", "surrogateescape")
        if not data:
            return
