"""Which steps of the scheduler something is cancelled at, by default and in the long run.

The moment after a step is the one before the next. So by default every second step does, if each
is tried before and after it. With the environment variable TRIO_CHARDEV_SEEDS=N it is every step,
for before the first step of a pass of the scheduler is not quite after the last of the one before:
the kernel was asked in between.
"""

from __future__ import annotations

import os

SEEDS = os.environ.get("TRIO_CHARDEV_SEEDS")


def steps(most: int) -> range:
    """Their numbers, *most* at the most; whoever uses it stops when one is not reached."""
    return range(1, most, 1 if SEEDS else 2)
