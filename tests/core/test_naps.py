"""When the thread may sleep for input, and what for."""

from __future__ import annotations

import socket
import time

import pytest

from trio_chardev.core import naps
from trio_chardev.core.naps import IN_A_ROW, NAP, PAUSE, QUICKLY, Naps, nap

SLOW = 1e-3  # seconds


class Clock:
    """Goes on when it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(naps, "perf_counter", clock)
    return clock


def inputs(its: Naps, clock: Clock, count: int, gap: float) -> list[bool]:
    """Is there a burst after each of *count* inputs?"""
    answers = []
    for _ in range(count):
        clock.now += gap
        answers.append(its.input_came())
    return answers


def test_a_burst_may_begin_when_input_has_come_quickly_a_few_times(clock: Clock) -> None:
    its = Naps(SLOW)
    answers = inputs(its, clock, 1 + IN_A_ROW + 2, QUICKLY / 2)
    assert answers == [False] * (1 + IN_A_ROW) + [True, True]


def test_input_that_is_slow_begins_none_and_does_not_count(clock: Clock) -> None:
    its = Naps(SLOW)
    assert not any(inputs(its, clock, 100, 2 * QUICKLY))
    assert not any(inputs(its, clock, IN_A_ROW, QUICKLY / 2))


def test_slow_input_begins_none_though_others_were_quick(clock: Clock) -> None:
    its = Naps(SLOW)
    inputs(its, clock, 100, QUICKLY / 2)
    assert inputs(its, clock, 1, 2 * QUICKLY) == [False]
    assert inputs(its, clock, 1, QUICKLY / 2) == [True]


@pytest.mark.parametrize(
    ("count", "seconds", "in_vain", "pauses"),
    [(10, 9 * SLOW, False, False), (10, 11 * SLOW, False, True), (10, 0, True, True)],
)
def test_after_a_burst_that_was_slow_or_a_nap_in_vain_there_is_none_for_a_while(
    count: int, seconds: float, in_vain: bool, pauses: bool, clock: Clock
) -> None:
    its = Naps(SLOW)
    inputs(its, clock, IN_A_ROW + 1, QUICKLY / 2)
    clock.now += seconds
    its.ended(count, in_vain=in_vain)
    answers = inputs(its, clock, PAUSE + 1, QUICKLY / 2)
    assert answers == ([False] * PAUSE + [True] if pauses else [True] * (PAUSE + 1))


def test_a_nap_ends_when_one_of_the_descriptors_is_ready() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.send(b"x")
        assert nap((other.fileno(), one.fileno())) == ([one.fileno()], [], [])
        assert nap((other.fileno(),), (one.fileno(),)) == ([], [one.fileno()], [])


def test_a_nap_in_vain_ends_by_itself() -> None:
    one, other = socket.socketpair()
    with one, other:
        begin = time.perf_counter()
        assert nap((one.fileno(),)) == ([], [], [])
        assert time.perf_counter() - begin >= NAP


def test_beyond_what_select_can_do_nothing_is_ready() -> None:
    assert nap((5000,)) == ([], [], [])
