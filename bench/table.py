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


GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Consoles", ("consoles-*", "console-*", "storm-*", "bridges-idle")),
    ("Bridges", ("relay-*", "cpu-per-gb")),
    ("Changes", ("change-*", "changes-*")),
    ("QMP", ("qmp-*", "add-*", "remove-*", "query-*")),
    ("Start", ("start", "start-*")),
    ("Memory", ("memory-*",)),
    ("In a program", ("send-*", "mux-*", "hub-*", "crowd")),
)
"""The subjects, in the order of the page, and the names of their benchmarks, as in a shell."""


def is_in(name: str, patterns: Sequence[str]) -> bool:
    """Does one of *patterns* match the name of a benchmark?"""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def select(patterns: Sequence[str]) -> tuple[Benchmark, ...]:
    """Return the benchmarks whose name matches one of *patterns*, as in a shell; all if none given.

    Raises ValueError for a pattern that matches no name.
    """
    for pattern in patterns:
        if not any(fnmatchcase(each.name, pattern) for each in BENCHMARKS):
            raise ValueError(f"no such benchmark: {pattern}")
    return tuple(each for each in BENCHMARKS if not patterns or is_in(each.name, patterns))
