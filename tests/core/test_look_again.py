"""When, and for how long, input that may come soon is polled before it is waited for."""

from __future__ import annotations

import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core import look_again
from trio_chardev.core.look_again import (
    BURST,
    IDLE,
    IN_A_ROW,
    LATE,
    MAX_CREDIT,
    PAUSE,
    PRICE,
    QUICKLY,
    Burst,
    Bursts,
    Next,
    Polling,
)
from trio_chardev.testing import FakeDevice, open_chardev

POLL_TIME = 8.0  # here


class Clock:
    """Goes on when it is told, and a little by itself."""

    def __init__(self, step: float = 0) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(look_again, "perf_counter", clock)
    monkeypatch.setattr(look_again, "POLL_TIME", POLL_TIME)
    return clock


def look(its: Polling, *, found: bool) -> Next:
    its.look_begins()
    return its.look_ended(found=found)


def looks(its: Polling, clock: Clock, gap: float) -> int:
    """How often it looks in vain until input comes after *gap* seconds."""
    count = 0
    end = clock.now + gap
    while look(its, found=False) is not Next.WAIT and clock.now < end:
        count += 1
        clock.now += 1
    clock.now = max(clock.now, end)
    look(its, found=True)
    return count


# ---------------------------------------------------------------- a reader


def test_input_that_keeps_coming_at_once_is_looked_for_from_the_ninth_time(clock: Clock) -> None:
    its = Polling()
    assert [looks(its, clock, POLL_TIME / 2) for _ in range(10)] == [0] * PRICE + [4, 4]


def test_input_that_is_slow_is_never_looked_for(clock: Clock) -> None:
    its = Polling()
    assert sum(looks(its, clock, 2 * POLL_TIME) for _ in range(100)) == 0


def test_looking_ends_after_its_time_and_each_that_was_in_vain_costs_credit(clock: Clock) -> None:
    its = Polling()
    for _ in range(1000):
        looks(its, clock, 0)
    in_vain = [looks(its, clock, 100) for _ in range(MAX_CREDIT // PRICE + 2)]
    assert in_vain == [8] * (MAX_CREDIT // PRICE) + [0, 0]


def test_what_is_looked_at_in_vain_is_bounded_for_any_rhythm(clock: Clock) -> None:
    its = Polling()
    rhythm = [POLL_TIME / 2, 2 * POLL_TIME]  # half of the waits are just too long
    vain = sum(looks(its, clock, gap) for _ in range(400) for gap in rhythm if gap > POLL_TIME)
    assert vain <= 800 * POLL_TIME / PRICE


def test_waiting_by_the_clock_without_credit_does_not_make_debts(clock: Clock) -> None:
    its = Polling()
    for _ in range(5):
        looks(its, clock, 100)
        assert look(its, found=False) is Next.WAIT
        clock.now += 100
        assert look(its, found=False) is Next.WAIT  # a wait that was too early
        look(its, found=True)
    assert [looks(its, clock, 0) for _ in range(PRICE)] == [0] * PRICE
    assert looks(its, clock, POLL_TIME / 2) == 4


def test_after_all_that_has_come_was_read_it_is_waited_for_without_a_look_in_vain(
    clock: Clock,
) -> None:
    """Until it keeps coming at once: then it is looked for as ever."""
    its = Polling()
    then = []
    for _ in range(PRICE + 1):
        its.look_begins()
        then.append(its.look_ended(found=True, is_all=True))
        clock.now += POLL_TIME / 2
    assert then == [Next.WAIT] * PRICE + [Next.LOOK]


async def test_a_pump_gives_others_a_turn_then_looks_again_and_again_and_then_waits(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.step = POLL_TIME / 256
    history: list[str] = []
    is_over = trio.Event()

    class Talker(FakeDevice):
        async def wait_fed(self) -> None:
            history.append("wait")
            if history.count("wait") > PRICE:
                is_over.set()
            await super().wait_fed()

    device = Talker("old", is_polled=True)

    def on_receive(data: bytes) -> int:
        history.append("input")
        return len(data)

    async def take_turns() -> None:
        while True:
            history.append("turn")
            await trio.lowlevel.checkpoint()

    def sched_yield() -> None:
        if history.count("input") == PRICE + 2:
            clock.now += POLL_TIME
        elif history[-2:] == ["yield", "yield"]:
            device.feed(b"y")
        history.append("yield")

    monkeypatch.setattr(os, "sched_yield", sched_yield)
    async with open_chardev(device) as chardev, trio.open_nursery() as nursery:
        chardev.attach(on_receive=on_receive)
        for _ in range(PRICE):
            await wait_all_tasks_blocked()
            assert history[-1] == "wait"
            device.feed(b"x")
        nursery.start_soon(take_turns)
        with trio.fail_after(5):
            await is_over.wait()
        nursery.cancel_scope.cancel()
    after_credit = history[2 * PRICE - 1 :]
    inputs = [at for at, item in enumerate(after_credit) if item == "input"]
    looks = [
        [item for item in after_credit[begin:end] if item != "turn"]
        for begin, end in zip(inputs, [*inputs[1:], None], strict=True)
    ]
    assert looks == [["input", *["yield"] * 3]] * 2 + [["input", "yield", "wait"]]
    assert after_credit.count("turn") >= len(inputs) - 1  # who is first in a turn changes


@pytest.fixture
def given_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has an item for each time that the processor was given up."""
    times: list[str] = []
    monkeypatch.setattr(os, "sched_yield", lambda: times.append("once"))
    return times


# ---------------------------------------------------------------- when a burst may begin


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


# ---------------------------------------------------------------- how long a burst goes on


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
