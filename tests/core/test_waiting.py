"""What is waited at does as Trio's Event, ParkingLot and Lock do, and an idle one is small."""

from __future__ import annotations

import sys

import pytest
import trio
import trio.testing

from trio_chardev.core.waiting import Lock, Once, Waiters


async def go_on() -> None:
    """Let all others run until they wait."""
    await trio.testing.wait_all_tasks_blocked()


async def test_who_waits_is_woken_and_who_comes_later_waits() -> None:
    waiters, woken = Waiters(), []

    async def wait(name: str) -> None:
        await waiters.wait()
        woken.append(name)

    async with trio.open_nursery() as nursery:
        waiters.wake()
        for name in "ab":
            nursery.start_soon(wait, name)
        await go_on()
        assert waiters
        assert not woken
        waiters.wake()
        assert not waiters
        nursery.start_soon(wait, "c")
        await go_on()
        assert sorted(woken) == ["a", "b"]
        waiters.wake()
    assert sorted(woken) == ["a", "b", "c"]


async def test_one_who_is_cancelled_waits_no_more_and_the_others_do() -> None:
    waiters = Waiters()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiters.wait)
        with trio.CancelScope() as scope:
            scope.cancel()
            await waiters.wait()
        assert scope.cancelled_caught
        await go_on()
        assert waiters
        waiters.wake()
    with trio.CancelScope() as scope:
        scope.cancel()
        await waiters.wait()
    assert not waiters


async def test_who_was_woken_before_the_cancellation_was_woken() -> None:
    waiters, scope, woken = Waiters(), trio.CancelScope(), []

    async def wait() -> None:
        with scope:
            await waiters.wait()
            woken.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await go_on()
        waiters.wake()
        scope.cancel()
    assert woken == [True]


async def test_what_has_happened_once_is_not_waited_for() -> None:
    once, told = Once(), []

    async def wait() -> None:
        await once.wait()
        told.append(once.is_set())

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(wait)
        await go_on()
        assert not told
        once.set()
    assert told == [True, True]
    once.set()
    with trio.testing.assert_checkpoints():
        await once.wait()
    with trio.CancelScope() as scope:
        scope.cancel()
        await once.wait()
    assert scope.cancelled_caught


async def test_a_lock_is_held_in_the_order_in_which_it_was_asked_for() -> None:
    lock, held = Lock(), []

    async def hold(name: str) -> None:
        async with lock:
            held.append(name)

    async with trio.open_nursery() as nursery:
        lock.acquire_nowait()
        for count, name in enumerate("abc"):
            nursery.start_soon(hold, name)
            await go_on()
            assert lock.waiting == count + 1
        lock.release()
        assert lock.locked(), "it was handed over"
        with pytest.raises(trio.WouldBlock):
            lock.acquire_nowait()
        await lock.acquire()
        assert held == ["a", "b", "c"]
        lock.release()
    assert not lock.locked()
    assert not lock.waiting


async def test_who_is_cancelled_is_not_given_the_lock() -> None:
    lock = Lock()
    with trio.testing.assert_checkpoints():
        await lock.acquire()
    with trio.CancelScope() as scope:
        scope.cancel()
        await lock.acquire()
    assert scope.cancelled_caught
    assert not lock.waiting
    lock.release()
    assert not lock.locked()
    with trio.CancelScope() as scope:
        scope.cancel()
        await lock.acquire()
    assert scope.cancelled_caught
    assert not lock.locked()


def test_while_nobody_waits_they_are_small() -> None:
    assert all(sys.getsizeof(one()) <= 48 for one in (Waiters, Once, Lock))
