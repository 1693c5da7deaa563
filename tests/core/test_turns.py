"""Of many tasks one does what takes long in each pass of the scheduler."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core.turns import take_turn


async def test_in_each_pass_one_task_has_its_turn_and_others_run() -> None:
    history: list[str] = []

    async def newcomer() -> None:
        await take_turn()
        history.append("newcomer")

    async def busy() -> None:
        for _ in range(30):
            history.append("busy")
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(newcomer)
        nursery.start_soon(busy)
    assert history.count("newcomer") == 5
    assert "newcomer newcomer" not in " ".join(history[: len(history) - 20])


async def test_who_is_cancelled_takes_no_turn_from_others() -> None:
    done = []

    async def newcomer(name: int) -> None:
        await take_turn()
        done.append(name)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as first:
                first.start_soon(newcomer, 1)
                first.start_soon(newcomer, 2)
                scope.cancel()
        nursery.start_soon(newcomer, 3)
        await wait_all_tasks_blocked()
    assert done == [3]
