"""The service, with a thread that says how much memory is in use, and which steps were long.

Resident memory, which can be seen from outside, says little about that: it includes what malloc(3)
and Python keep for later, in pieces, and grows as long as more comes together than ever before.
What Trio keeps for later is not in use either: see `LeftScopes`.

The thread answers each byte on standard input with a line on the descriptor that the
environment names: `MEMORY` with two numbers, `STALLS` with an object of JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
from functools import partial
from typing import Final

import trio

from tests.stalls import StallWatch
from trio_chardev.cli import main

ANSWERS = "SOAK_ANSWERS"
MEMORY: Final = b"m"
STALLS: Final = b"s"
MANY: Final = 5000  # scopes; more than Trio keeps: 1,000, and twice those that are still entered
FAR: Final = 3600.0  # seconds; Trio keeps what is not due yet


class LeftScopes(trio.abc.Instrument):
    """Makes Trio forget the cancel scopes that were left before their deadlines.

    It keeps them, four blocks each, if somebody still waits for an earlier deadline, until there
    are more than 1,000. So there may be that many at one measurement, and none at the
    other: 4,000 blocks that are no leak.
    """

    def before_run(self) -> None:
        """Do nothing but exist: Trio calls this."""
        self._token = trio.lowlevel.current_trio_token()

    def forget(self) -> None:
        """Leave so many scopes that Trio forgets them all soon; called in another thread."""
        for function in (_leave_many, _do_nothing):  # the second is called after that
            trio.from_thread.run_sync(function, trio_token=self._token)


def _leave_many() -> None:
    for _ in range(MANY):
        with trio.move_on_after(FAR):  # noqa: ASYNC100 - it is left at once
            pass


def _do_nothing() -> None:
    """Do nothing."""


class _Mallinfo2(ctypes.Structure):
    """See mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def measure() -> tuple[int, int]:
    """Return Python's blocks, and malloc's bytes; 0 without mallinfo2 (before glibc 2.33)."""
    gc.collect()
    blocks = sys.getallocatedblocks()
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return blocks, 0
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return blocks, info.uordblks + info.hblkhd


def _answer(fd: int, left: LeftScopes, stalls: StallWatch) -> None:
    while question := os.read(0, 1):
        if question == STALLS:
            longest = [str(stall) for stall in stalls.longest]
            said = {"steps": stalls.steps, "p99.9": stalls.quantile(0.999), "longest": longest}
            os.write(fd, json.dumps(said).encode() + b"\n")
        else:
            stalls.is_on = False  # that takes long
            left.forget()
            os.write(fd, b"%d %d\n" % measure())
            stalls.is_on = True


if __name__ == "__main__":
    answers = int(os.environ.pop(ANSWERS))
    left, stalls = LeftScopes(), StallWatch()
    threading.Thread(target=_answer, args=(answers, left, stalls), daemon=True).start()
    trio.run = partial(trio.run, instruments=[left, stalls])  # type: ignore[assignment]
    main()
