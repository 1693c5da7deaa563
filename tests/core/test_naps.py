"""When the thread may sleep for input, and what for."""

from __future__ import annotations

import socket
import time

import pytest

from trio_chardev.core import naps
from trio_chardev.core.naps import MAX_CREDIT, NAP, PAUSE, PRICE, QUICKLY, Naps, nap


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
    its = Naps()
    assert inputs(its, clock, PRICE + 2, QUICKLY / 2) == [False] * PRICE + [True, True]


def test_input_that_is_slow_begins_none_and_earns_nothing(clock: Clock) -> None:
    its = Naps()
    assert not any(inputs(its, clock, 100, 2 * QUICKLY))
    assert not any(inputs(its, clock, PRICE - 1, QUICKLY / 2))


def test_slow_input_begins_none_whatever_the_credit(clock: Clock) -> None:
    its = Naps()
    inputs(its, clock, 100, QUICKLY / 2)
    assert inputs(its, clock, 1, 2 * QUICKLY) == [False]
    assert inputs(its, clock, 1, QUICKLY / 2) == [True]


def test_a_nap_in_vain_costs_what_some_quick_inputs_earn(clock: Clock) -> None:
    its = Naps()
    inputs(its, clock, 100, QUICKLY / 2)
    for _ in range(MAX_CREDIT // PRICE):
        its.ended(0, in_vain=True)
    assert inputs(its, clock, PRICE, QUICKLY / 2) == [False] * (PRICE - 1) + [True]


def test_what_comes_in_a_burst_earns_credit_too(clock: Clock) -> None:
    its = Naps()
    inputs(its, clock, PRICE + 1, QUICKLY / 2)
    its.ended(3 * PRICE, in_vain=True)
    its.ended(0, in_vain=True)
    assert inputs(its, clock, 1, QUICKLY / 2) == [True]


def test_after_a_pause_there_is_one_again(clock: Clock) -> None:
    its = Naps()
    inputs(its, clock, 100, QUICKLY / 2)
    its.pause()
    assert inputs(its, clock, PAUSE, QUICKLY / 2) == [False] * (PAUSE - 1) + [True]


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
