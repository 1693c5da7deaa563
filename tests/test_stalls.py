"""The watch for stalls finds them, and tells whose they are."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import trio

from tests import stalls as stalls_module
from tests.stalls import LONG, StallWatch

LENGTH = 0.02  # seconds


def compute() -> None:
    end = time.thread_time() + LENGTH
    while time.thread_time() < end:
        pass


def watch(function: Callable[[], object], times: int = 1) -> StallWatch:
    """Watch a run in which a task calls *function*, once a step."""
    stalls = StallWatch()

    async def culprit() -> None:
        for _ in range(times):
            await trio.lowlevel.checkpoint()
            function()
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(culprit)

    trio.run(main, instruments=[stalls])
    return stalls


@pytest.mark.parametrize("function", [compute, lambda: time.sleep(2 * LENGTH)])
def test_a_long_step_is_told_with_its_task(function: Callable[[], None]) -> None:
    stall, *_ = watch(function).longest
    assert stall.seconds >= LENGTH
    assert "culprit" in stall.task
    assert "culprit" in stall.where
    assert " ms: " in str(stall)


def test_of_many_short_steps_none_is_kept_and_their_length_is_known() -> None:
    stalls = watch(lambda: None, times=1000)
    assert all(stall.seconds >= LONG for stall in stalls.longest)
    assert stalls.steps > 1000
    assert 0 < stalls.quantile(0.5) <= stalls.quantile(0.999)


def test_a_quantile_is_that_of_the_lengths() -> None:
    stalls = StallWatch()
    assert stalls.quantile(0.5) == 0
    for milliseconds in range(1, 101):
        stalls.count(milliseconds / 1e3)
    for share in (0.5, 0.9, 0.99):
        assert stalls.quantile(share) == pytest.approx(share / 10, rel=0.15)


def test_what_others_did_meanwhile_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1000))
    monkeypatch.setattr(stalls_module, "preempted", lambda: next(times))
    stalls = watch(lambda: time.sleep(LENGTH))  # as if another program had run all the time
    assert all(stall.seconds < LENGTH for stall in stalls.longest)
