"""Every kind of backend keeps the contract of `trio_chardev.core.backend`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.places import MAKERS, place_for
from trio_chardev.backends import KINDS
from trio_chardev.testing_contract import Pair, check_backend


@pytest.mark.parametrize("name", MAKERS)
async def test_contract(name: str, tmp_path: Path) -> None:
    @asynccontextmanager
    async def open_pair() -> AsyncIterator[Pair]:
        with place_for(name, tmp_path) as place:
            yield Pair(
                open=place.open,
                join=place.join,
                blocks=place.blocks,
                closes=place.closes,
                folder=place.folder,
            )

    await check_backend(open_pair)


def test_every_kind_has_a_place() -> None:
    assert {name.partition("-")[0] for name in MAKERS} == set(KINDS)
