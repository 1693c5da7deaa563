"""The switch of the fast paths; `pytest --plain` runs all other tests without them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trio_chardev.core import fast
from trio_chardev.core.handlers import stateless
from trio_chardev.core.look_again import IN_A_ROW, PRICE, Bursts, Next, Polling
from trio_chardev.testing import FakeDevice
from trio_chardev.testing.frontend import open_chardev


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    ways = fast.ways
    return lambda are_taken: monkeypatch.setattr(ways, "are_taken", are_taken)


@pytest.mark.parametrize("are_taken", [False, True])
def test_there_is_no_burst_without_them(switch: Callable[[bool], None], are_taken: bool) -> None:
    switch(are_taken)
    bursts = Bursts()
    assert any(bursts.input_came() for _ in range(2 * IN_A_ROW)) is are_taken


@pytest.mark.parametrize("are_taken", [False, True])
def test_nothing_is_polled_without_them(switch: Callable[[bool], None], are_taken: bool) -> None:
    switch(are_taken)
    polling = Polling()
    for _ in range(PRICE):
        for found in (False, True):
            polling.look_begins()
            polling.look_ended(found=found)
    polling.look_begins()
    assert polling.look_ended(found=False) is (Next.TURN if are_taken else Next.WAIT)


@pytest.mark.parametrize("are_taken", [False, True])
async def test_nothing_is_spliced_without_them(
    switch: Callable[[bool], None], are_taken: bool
) -> None:
    switch(are_taken)
    async with open_chardev(FakeDevice("old", can_splice=True)) as chardev:
        assert (chardev.attach(be_change=stateless).direct is not None) is are_taken
