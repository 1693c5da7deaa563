"""When the thread may look again and again for what is about to come, and for how long."""

from __future__ import annotations

import os

import pytest

from trio_chardev.core import bursts
from trio_chardev.core.bursts import BURST, IDLE, IN_A_ROW, LATE, PAUSE, QUICKLY, Burst, Bursts


class Clock:
    """Goes on when it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bursts, "perf_counter", clock)
    return clock


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has an item for each time that the processor was given up."""
    times: list[str] = []
    monkeypatch.setattr(os, "sched_yield", lambda: times.append("once"))
    return times


# ---------------------------------------------------------------- when one may begin


def inputs(its: Bursts, clock: Clock, count: int, gap: float) -> list[bool]:
    """Is there a burst after each of *count* inputs?"""
    answers = []
    for _ in range(count):
        clock.now += gap
        answers.append(its.input_came())
    return answers


def test_a_burst_may_begin_when_input_has_come_quickly_a_few_times(clock: Clock) -> None:
    answers = inputs(Bursts(), clock, 1 + IN_A_ROW + 2, QUICKLY / 2)
    assert answers == [False] * (1 + IN_A_ROW) + [True, True]


def test_input_that_is_slow_begins_none_and_does_not_count(clock: Clock) -> None:
    its = Bursts()
    assert not any(inputs(its, clock, 100, 2 * QUICKLY))
    assert not any(inputs(its, clock, IN_A_ROW, QUICKLY / 2))


def test_slow_input_begins_none_though_others_were_quick(clock: Clock) -> None:
    its = Bursts()
    inputs(its, clock, 100, QUICKLY / 2)
    assert inputs(its, clock, 1, 2 * QUICKLY) == [False]
    assert inputs(its, clock, 1, QUICKLY / 2) == [True]


@pytest.mark.parametrize("in_vain", [True, False])
def test_after_one_in_vain_there_is_none_for_a_while(in_vain: bool, clock: Clock) -> None:
    its = Bursts()
    inputs(its, clock, IN_A_ROW + 1, QUICKLY / 2)
    clock.now += 10 * QUICKLY
    its.ended(in_vain=in_vain)
    answers = inputs(its, clock, PAUSE + 1, QUICKLY / 2)
    assert answers == ([False] * PAUSE + [True] if in_vain else [True] * (PAUSE + 1))


# ---------------------------------------------------------------- how long one goes on


def test_one_goes_on_for_its_time_while_something_moves(clock: Clock, given_up: list[str]) -> None:
    burst = Burst()
    looks = 0
    while burst.goes_on(moved=True):
        looks += 1
        clock.now += BURST / 15.5
    assert looks == 16
    assert not burst.in_vain
    assert not given_up


def test_one_is_in_vain_when_nothing_has_moved_for_a_while(clock: Clock) -> None:
    burst = Burst()
    assert burst.goes_on(moved=True)
    looks = 0
    while burst.goes_on(moved=False):
        looks += 1
        clock.now += IDLE / 8
    assert looks == 9
    assert burst.in_vain
    assert clock.now - 100 < BURST


def test_what_moves_after_a_while_is_not_in_vain(clock: Clock) -> None:
    burst = Burst()
    clock.now += 1.5 * IDLE
    assert burst.goes_on(moved=True)
    assert not burst.in_vain


def test_what_moves_now_and_then_keeps_one_going(clock: Clock) -> None:
    burst = Burst()
    while burst.goes_on(moved=clock.now - 100 > BURST / 2):
        clock.now += IDLE * 0.9
        burst.goes_on(moved=True)
    assert clock.now - 100 >= BURST
    assert not burst.in_vain


def test_after_a_look_without_success_the_processor_is_given_up(
    clock: Clock, given_up: list[str]
) -> None:
    burst = Burst()
    for moved in (False, True, False):
        assert burst.goes_on(moved=moved)
    assert len(given_up) == 2
    clock.now += BURST
    assert not burst.goes_on(moved=False)
    assert len(given_up) == 2


@pytest.mark.parametrize("moved", [True, False])
def test_one_that_other_programs_kept_from_ending_in_time_was_in_vain(
    moved: bool, clock: Clock
) -> None:
    burst = Burst()
    assert burst.goes_on(moved=False)
    clock.now += BURST + 1.1 * LATE
    assert not burst.goes_on(moved=moved)
    assert burst.in_vain
