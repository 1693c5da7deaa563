"""As soon as a service listens, it has all of its own modules."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from trio_chardev.cli import warm_up


@pytest.fixture(autouse=True)
def unfrozen() -> Iterator[None]:
    yield
    gc.unfreeze()


async def test_the_event_loop_goes_on_sooner_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """And as always afterwards, whatever has happened."""
    during: list[float] = []

    async def fail() -> None:
        during.append(sys.getswitchinterval())
        raise OSError

    before = sys.getswitchinterval()
    monkeypatch.setattr(warm_up, "have_all", fail)
    with pytest.raises(OSError):  # noqa: PT011 - any
        await warm_up.warm_up()
    assert during == [pytest.approx(warm_up.TURN)]
    assert sys.getswitchinterval() == before


async def test_all_is_imported_and_is_no_matter_for_the_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[int] = []

    async def have_all() -> None:
        begun.append(gc.get_freeze_count())

    gc.unfreeze()
    monkeypatch.setattr(warm_up, "have_all", have_all)
    await warm_up.warm_up()
    assert begun == [0]
    assert gc.get_freeze_count() > 0
