"""When Python collects garbage, as all tasks wait meanwhile."""

from __future__ import annotations

import gc

# There are next to no cycles to find (tests/test_cycles.py). With Python's default thresholds a full
# collection, which walks all objects, comes every few dozen chardev-adds once thousands of chardevs exist.
# With these it comes after 10 million objects that stayed, and the others take 1.5 ms at most.
THRESHOLDS = (1_000, 10, 1_000)


def collect_in_portions() -> None:
    """Have garbage collected in small portions in this process, for its whole life.

    `trio-chardev serve` does so. It is for programs in which nothing else leaves many cycles; what is
    there already is not looked through any more: see gc.freeze().
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def collect_again() -> None:
    """Have garbage collected again, which was put off while modules were imported."""
    if not gc.isenabled():
        gc.freeze()  # else the first collection looks through all that was imported
        gc.enable()
