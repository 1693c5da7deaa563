"""All benchmarks, in the order in which they are run and shown."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from bench import (
    changes,
    consoles,
    crowd,
    fanout,
    idle,
    layers,
    lines,
    memory,
    qmp,
    relay,
    startup,
    storms,
)
from bench.model import Benchmark

BENCHMARKS: tuple[Benchmark, ...] = (
    *qmp.BENCHMARKS,
    *changes.BENCHMARKS,
    *relay.BENCHMARKS,
    *layers.BENCHMARKS,
    *fanout.BENCHMARKS,
    *consoles.BENCHMARKS,
    *memory.BENCHMARKS,
    *crowd.BENCHMARKS,
    *idle.BENCHMARKS,
    *lines.BENCHMARKS,
    *storms.BENCHMARKS,
    *startup.BENCHMARKS,
)


def select(patterns: Sequence[str]) -> tuple[Benchmark, ...]:
    """Return the benchmarks whose name matches one of *patterns*, as in a shell; all if none given.

    Raises ValueError for a pattern that matches no name.
    """
    for pattern in patterns:
        if not any(fnmatchcase(each.name, pattern) for each in BENCHMARKS):
            raise ValueError(f"no such benchmark: {pattern}")
    return tuple(
        each
        for each in BENCHMARKS
        if not patterns or any(fnmatchcase(each.name, pattern) for pattern in patterns)
    )
