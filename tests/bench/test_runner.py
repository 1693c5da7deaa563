"""Turns, and the handling of a contender that does the wrong thing."""

from __future__ import annotations

import time

import attrs
import pytest

from bench.contenders import OURS, SOCAT, Contender
from bench.figures import Round
from bench.model import BenchmarkError
from bench.processes import deadline
from bench.runner import plan, run
from tests.bench.rounds import LATENCY, RATE


def names(peers: set[Contender], rounds: int) -> list[str]:
    return [turn.contender.name for turn in plan([LATENCY], peers, rounds)]


def test_contenders_alternate_and_so_does_who_begins() -> None:
    ours, socat = OURS.name, SOCAT.name
    assert names({SOCAT}, 3) == [ours, socat, socat, ours, ours, socat]


def test_who_is_no_peer_of_the_run_has_no_turn() -> None:
    assert names(set(), 2) == [OURS.name, OURS.name]


def test_a_rival_that_is_no_program_always_takes_part() -> None:
    bare = Contender("bare")
    turns = plan([attrs.evolve(LATENCY, rivals=(bare,))], set(), 1)
    assert [turn.contender for turn in turns] == [OURS, bare]


def test_who_needs_few_rounds_has_no_more_than_those() -> None:
    few = attrs.evolve(LATENCY, most_rounds=2)
    assert len(plan([few], set(), 5)) == 2
    assert len(plan([few], set(), 1)) == 1


def test_a_smoke_run_leaves_out_programs_that_another_row_tries() -> None:
    bare = Contender("bare")
    alone = attrs.evolve(LATENCY, smoke_alone=True, rivals=(SOCAT, bare))
    turns = plan([alone], {SOCAT}, 1, smoke=True)
    assert [turn.contender for turn in turns] == [OURS, bare]
    assert [turn.contender for turn in plan([alone], {SOCAT}, 1)] == [OURS, SOCAT, bare]


def test_a_run_has_the_rounds_of_each_contender() -> None:
    complaints: list[str] = []
    found = run(plan([LATENCY], {SOCAT}, 2), complain=complaints.append)
    rounds = [Round(3, 1e-6, 1e-6, 1e-6)] * 2
    assert found == {"latency": {OURS.name: rounds, SOCAT.name: rounds}}
    assert complaints == []


def test_a_smoke_run_is_of_the_small_size() -> None:
    found = run(plan([RATE], set(), 1), smoke=True, complain=pytest.fail)
    assert found["rate"][OURS.name][0].count == 1


def test_a_benchmark_that_fails_is_named_and_left_out_and_the_others_go_on() -> None:
    def lose(contender: Contender, _size: int) -> list[float]:
        if contender == SOCAT:
            raise BenchmarkError("3 bytes lost")
        return [1.0]

    complaints: list[str] = []
    bad = attrs.evolve(LATENCY, measure=lose)
    found = run(plan([bad, RATE], {SOCAT}, 2), complain=complaints.append)
    assert list(found) == ["rate"]
    assert complaints == ["latency, socat: 3 bytes lost"]


def test_a_turn_that_does_not_end_is_ended() -> None:
    with pytest.raises(BenchmarkError, match="not over after 0.1 s"), deadline(0.1):
        time.sleep(30)
