"""The model of a benchmark: a measurement of contenders in turns, and its target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs

from bench.contenders import OURS, Contender

Statistic = Literal["p50", "p99", "worst"]


class BenchmarkError(Exception):
    """A contender did the wrong thing (bytes lost, an error reply) or did not end in time."""


@attrs.frozen
class Unit:
    """How to show values, which are seconds, bytes or a rate of one."""

    name: str
    scale: float
    more_is_better: bool = False


MICROSECONDS = Unit("us", 1e6)
MILLISECONDS = Unit("ms", 1e3)
KIBIBYTES = Unit("KiB", 1 / 1024)
PER_SECOND = Unit("/s", 1, more_is_better=True)
MEGABYTES_PER_SECOND = Unit("MB/s", 1e-6, more_is_better=True)


@attrs.frozen
class Target:
    """The value is to be at most this, or at least this if more is better."""

    limit: float
    """A ratio to the value of *rival*; without one a value, in the benchmark's unit."""

    rival: Contender | None = None
    statistic: Statistic = "p50"


@attrs.frozen(kw_only=True)
class Benchmark:
    """One row of the table, or one for each rival."""

    name: str
    title: str
    unit: Unit
    measure: Callable[[Contender, int], list[float]]
    """Measures one round of one contender. Returns the values. Raises BenchmarkError."""

    size: int
    """The amount of work in a round: calls, commands, bytes, chardevs."""

    smoke: int
    """The least amount that still shows that it works."""

    smoke_alone: bool = False
    """Does a smoke run leave the rivals that are programs out? Another row shows that they work."""

    most_rounds: int | None = None
    """For what takes long or is only for completeness: it has no more rounds than this."""

    subject: Contender = OURS
    rivals: tuple[Contender, ...] = ()
    targets: tuple[Target, ...] = ()

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """The subject and its rivals."""
        return self.subject, *self.rivals
