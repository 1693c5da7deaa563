"""Running benchmarks: rounds in turns, each under a deadline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import attrs

from bench.contenders import Contender
from bench.figures import Round, Rounds
from bench.model import Benchmark, BenchmarkError
from bench.processes import deadline

ROUND_TIMEOUT = 180  # seconds that one turn of one contender may take


@attrs.frozen
class Turn:
    """One round of one contender."""

    benchmark: Benchmark
    contender: Contender
    number: int


def plan(
    benchmarks: Iterable[Benchmark],
    peers: Collection[Contender],
    rounds: int,
    *,
    smoke: bool = False,
) -> list[Turn]:
    """Return all turns: the contenders alternate, and every other round the last one begins.

    A rival that is a program takes part if it is one of *peers*.
    """
    turns = []
    for benchmark in benchmarks:
        programs = frozenset() if smoke and benchmark.smoke_alone else peers
        contenders = [
            each for each in benchmark.contenders if each.program is None or each in programs
        ]
        for number in range(min(rounds, benchmark.most_rounds or rounds)):
            order = contenders if number % 2 == 0 else contenders[::-1]
            turns += [Turn(benchmark, contender, number) for contender in order]
    return turns


def run_turn(turn: Turn, *, smoke: bool = False) -> Round:
    """Run one turn. Raises BenchmarkError if the contender did the wrong thing or did not end."""
    benchmark, contender = turn.benchmark, turn.contender
    size = benchmark.smoke if smoke else benchmark.size
    try:
        with deadline(ROUND_TIMEOUT):
            values = benchmark.measure(contender, size)
    except (BenchmarkError, OSError, EOFError) as exc:
        raise BenchmarkError(f"{benchmark.name}, {contender.name}: {exc}") from exc
    return Round.of(values, more_is_better=benchmark.unit.more_is_better)


def run(
    turns: Iterable[Turn], *, smoke: bool = False, complain: Callable[[str], object]
) -> dict[str, Rounds]:
    """Run *turns*. A benchmark that fails is reported, and left out."""
    found: dict[str, Rounds] = {}
    failed: set[str] = set()
    for turn in turns:
        name = turn.benchmark.name
        if name in failed:
            continue
        try:
            round_ = run_turn(turn, smoke=smoke)
        except BenchmarkError as exc:
            complain(str(exc))
            failed.add(name)
            found.pop(name, None)
        else:
            found.setdefault(name, {}).setdefault(turn.contender.name, []).append(round_)
    return found
