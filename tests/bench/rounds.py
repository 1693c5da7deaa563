"""Invented benchmarks and rounds."""

from __future__ import annotations

from bench.contenders import SOCAT
from bench.figures import Round, Rounds, Row, rows_of
from bench.model import MEGABYTES_PER_SECOND, MICROSECONDS, Benchmark, Target

LATENCY = Benchmark(
    name="latency",
    title="a round trip",
    unit=MICROSECONDS,
    measure=lambda _contender, size: [1e-6] * size,
    size=3,
    smoke=1,
    rivals=(SOCAT,),
    targets=(Target(0.5, SOCAT), Target(40, statistic="p99")),
)
RATE = Benchmark(
    name="rate",
    title="bulk <both ways>",
    unit=MEGABYTES_PER_SECOND,
    measure=lambda _contender, size: [1e6] * size,
    size=3,
    smoke=1,
    rivals=(SOCAT,),
    targets=(Target(1.5, SOCAT),),
)


def round_of(*values: float, more_is_better: bool = False) -> Round:
    return Round.of(values, more_is_better=more_is_better)


def rounds(ours: list[float], theirs: list[float] | None = None) -> Rounds:
    """Return rounds of one value each."""
    found = {"trio-chardev": [round_of(value) for value in ours]}
    if theirs is not None:
        found["socat"] = [round_of(value) for value in theirs]
    return found


def latency_row(ours: list[float], theirs: list[float]) -> Row:
    return rows_of(LATENCY, rounds(ours, theirs))[0]


def rate_row(ours: list[float], theirs: list[float]) -> Row:
    return rows_of(RATE, rounds(ours, theirs))[0]
