"""The service, with a thread that says how much memory is in use.

What is resident, which can be seen from outside, says little of that: it has what malloc(3) and
Python keep for later, in pieces, and grows for as long as more comes together than ever before.

The thread answers each byte that comes on standard input, by a line on the descriptor that
the environment names.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading

from trio_chardev.cli import main

ANSWERS = "SOAK_ANSWERS"


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
    """Python's blocks, and malloc's bytes; 0 where malloc does not tell (before glibc 2.33)."""
    gc.collect()
    blocks = sys.getallocatedblocks()
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return blocks, 0
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return blocks, info.uordblks + info.hblkhd


def _answer(fd: int) -> None:
    while os.read(0, 1):
        os.write(fd, b"%d %d\n" % measure())


if __name__ == "__main__":
    answers = int(os.environ.pop(ANSWERS))
    threading.Thread(target=_answer, args=(answers,), daemon=True).start()
    main()
