"""Computes the figures of a row from the values of rounds. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import attrs

from bench.contenders import Contender
from bench.model import Benchmark, Statistic, Target, Unit


@attrs.frozen
class Round:
    """The values of one turn of one contender, summarized."""

    count: int
    p50: float
    p99: float
    """The value that 99 of 100 are no worse than."""

    worst: float

    @classmethod
    def of(cls, values: Sequence[float], *, more_is_better: bool) -> Round:
        """Summarize *values*. Raises ValueError if there are none."""
        ordered = sorted(values, reverse=more_is_better)
        return cls(len(ordered), median(ordered), ordered[_rank(len(ordered))], ordered[-1])


def _rank(count: int) -> int:
    """Return the index of the 99th percentile of *count* values, nearest rank."""
    if not count:
        raise ValueError("no values")
    return math.ceil(0.99 * count) - 1


@attrs.frozen
class Spread:
    """The median of the rounds, and the lowest and the highest of them."""

    mid: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize *values*. Raises StatisticsError if there are none."""
        return cls(median(values), min(values), max(values))

    @property
    def width(self) -> float:
        """How far apart the rounds are, as a fraction of the median."""
        return (self.high - self.low) / self.mid if self.mid else 0.0

    def overlaps(self, other: Spread) -> bool:
        """Could both be the same?"""
        return self.low <= other.high and other.low <= self.high


@attrs.frozen
class Verdict:
    """A target, and the value measured for it."""

    target: Target
    measured: Spread
    more_is_better: bool

    @property
    def is_met(self) -> bool:
        """Is the median good enough?"""
        if self.more_is_better:
            return self.measured.mid >= self.target.limit
        return self.measured.mid <= self.target.limit

    @property
    def used(self) -> Spread:
        """The fraction of the target that is used up: 1 is just met, less is better."""
        limit, measured = self.target.limit, self.measured
        if self.more_is_better:
            return Spread(limit / measured.mid, limit / measured.high, limit / measured.low)
        return Spread(measured.mid / limit, measured.low / limit, measured.high / limit)


@attrs.frozen
class Figures:
    """The rounds of one contender, summarized in the benchmark's unit."""

    p50: Spread
    p99: Spread
    worst: float
    """Of all rounds."""
    worst_of_rounds: Spread
    is_single: bool
    """Did each round give one value? Then p99 says nothing more."""

    def get(self, statistic: Statistic) -> Spread:
        """That of the rounds."""
        return {"p50": self.p50, "p99": self.p99, "worst": self.worst_of_rounds}[statistic]

    @classmethod
    def of(cls, rounds: Sequence[Round], unit: Unit) -> Figures:
        """Summarize *rounds*. Raises StatisticsError if there are none."""
        worst = min if unit.more_is_better else max
        return cls(
            p50=Spread.of([each.p50 * unit.scale for each in rounds]),
            p99=Spread.of([each.p99 * unit.scale for each in rounds]),
            worst=worst(each.worst for each in rounds) * unit.scale,
            worst_of_rounds=Spread.of([each.worst * unit.scale for each in rounds]),
            is_single=all(each.count == 1 for each in rounds),
        )


@attrs.frozen
class Row:
    """One row of the table: the subject, compared with one rival or none."""

    benchmark: Benchmark
    subject: Figures
    rival: Contender | None = None
    theirs: Figures | None = None
    ratio: Spread | None = None
    verdicts: tuple[Verdict, ...] = ()


Rounds = dict[str, list[Round]]
"""Name of a contender -> its rounds, in the order in which they were run."""


def rows_of(benchmark: Benchmark, rounds: Rounds) -> list[Row]:
    """Return the rows of a benchmark: one for each rival that was measured, or one."""
    subject = Figures.of(rounds[benchmark.subject.name], benchmark.unit)
    rivals = [rival for rival in benchmark.rivals if rounds.get(rival.name)]
    if not rivals:
        return [Row(benchmark, subject, verdicts=_verdicts(benchmark, rounds, None))]
    rows = []
    for rival in rivals:
        verdicts = _verdicts(benchmark, rounds, rival)
        if rival is rivals[0]:
            verdicts = (*_verdicts(benchmark, rounds, None), *verdicts)
        theirs = Figures.of(rounds[rival.name], benchmark.unit)
        ratio = ratio_of(benchmark, rounds, rival, "p50")
        rows.append(Row(benchmark, subject, rival, theirs, ratio, verdicts))
    return rows


def ratio_of(benchmark: Benchmark, rounds: Rounds, rival: Contender, of: Statistic) -> Spread:
    """Compare subject and rival round by round, so that what slows both cancels out."""
    pairs = zip(rounds[benchmark.subject.name], rounds[rival.name], strict=False)
    return Spread.of([_quotient(getattr(ours, of), getattr(theirs, of)) for ours, theirs in pairs])


def _quotient(ours: float, theirs: float) -> float:
    """Divide, also where idling has cost one of them, or both, nothing at all."""
    return ours / theirs if theirs else (math.inf if ours else 1.0)


def _verdicts(benchmark: Benchmark, rounds: Rounds, rival: Contender | None) -> tuple[Verdict, ...]:
    verdicts = []
    for target in benchmark.targets:
        if target.rival != rival:
            continue
        if rival is None:
            ours = Figures.of(rounds[benchmark.subject.name], benchmark.unit)
            measured = ours.get(target.statistic)
        else:
            measured = ratio_of(benchmark, rounds, rival, target.statistic)
        verdicts.append(Verdict(target, measured, benchmark.unit.more_is_better))
    return tuple(verdicts)
