"""Once a service has run for a moment, it has all of its own modules."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import trio

from trio_chardev.cli import warm_up
from trio_chardev.cli.warm_up import DELAY


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


async def test_it_is_done_once_the_service_has_run_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    begun: list[float] = []

    async def have_all() -> None:
        begun.append(trio.current_time())

    monkeypatch.setattr(warm_up, "have_all", have_all)
    start = trio.current_time()
    await warm_up.warm_up()
    assert begun == [start + DELAY]
