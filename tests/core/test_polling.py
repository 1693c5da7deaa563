"""When input is looked for again before it is waited for."""

from __future__ import annotations

import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core import polling
from trio_chardev.core.polling import MAX_CREDIT, PRICE, Polling
from trio_chardev.testing import FakeDevice, open_chardev

POLL_TIME = 8.0  # here


class Clock:
    """Goes on when it is told, and a little by itself."""

    def __init__(self, step: float = 0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(polling, "perf_counter", clock)
    monkeypatch.setattr(polling, "POLL_TIME", POLL_TIME)
    return clock


def looks(its: Polling, clock: Clock, gap: float) -> int:
    """How often it looks in vain until input comes after *gap* seconds."""
    count = 0
    end = clock.now + gap
    while its.looks_again() and clock.now < end:
        count += 1
        clock.now += 1
    clock.now = max(clock.now, end)
    its.input_came()
    return count


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
        assert not its.looks_again()
        clock.now += 100
        assert not its.looks_again()  # a wait that was too early
        its.input_came()
    assert [looks(its, clock, 0) for _ in range(PRICE)] == [0] * PRICE
    assert looks(its, clock, POLL_TIME / 2) == 4


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
