"""Waiting until a time: never too early, also where there is no timer."""

from __future__ import annotations

import os

import pytest
import trio
from trio.testing import MockClock

from trio_chardev.core import timer
from trio_chardev.core.timer import open_timer


@pytest.fixture(params=[True, False])
def has_timer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    def fail(function: str, *_: object) -> int:
        raise OSError(24, os.strerror(24))

    if not request.param:
        monkeypatch.setattr(timer, "call", fail)
    return bool(request.param)


async def test_it_is_never_early(has_timer: bool) -> None:
    with open_timer() as made:
        assert (made.fileno() >= 0) is has_timer
        for delay in (0.0001, 0.0015, 0.005):
            deadline = trio.current_time() + delay
            await made.wait_until(deadline)
            assert trio.current_time() >= deadline


async def test_at_the_end_it_is_closed(has_timer: bool) -> None:
    with open_timer() as made:
        fd = made.fileno()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


async def test_a_time_that_is_over_is_not_waited_for(has_timer: bool) -> None:
    with trio.fail_after(5), open_timer() as made:
        await made.wait_until(trio.current_time() - 1000)


async def test_with_a_fake_clock_it_is_exact(has_timer: bool, autojump_clock: MockClock) -> None:
    with open_timer() as made:
        for deadline in (0.0005, 1.0, 3600.0):
            await made.wait_until(deadline)
            assert trio.current_time() == pytest.approx(deadline, abs=1e-9)


async def test_when_cancelled_it_stops_and_can_be_used_again(has_timer: bool) -> None:
    with open_timer() as made:
        with trio.move_on_after(0.01) as scope:
            await made.wait_until(trio.current_time() + 3600)
        assert scope.cancelled_caught
        await made.wait_until(trio.current_time() + 0.001)
