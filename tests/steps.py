"""The steps of the scheduler at which something is cancelled, by default and in the long run.

The moment after a step is the one before the next. So by default every second step suffices, if
each is tried before and after it. With the environment variable TRIO_CHARDEV_SEEDS=N it is every
step, as the moment before the first step of a scheduler pass is not quite that after the last one
of the pass before: the kernel was asked in between.
"""

from __future__ import annotations

import os

SEEDS = os.environ.get("TRIO_CHARDEV_SEEDS")


def steps(most: int, share: int = 0, shares: int = 1) -> range:
    """Return the steps' numbers, at most *most*; the caller stops when one is not reached.

    Where runs differ by little, each of them can have its *share* of *shares* by default.
    """
    return range(1, most) if SEEDS else range(1 + 2 * (share % shares), most, 2 * shares)
