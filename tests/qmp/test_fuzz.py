"""A little of what `tests.fuzz` does; ``just fuzz`` is for more."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st

from tests.fuzz_targets import FRAGMENTS, HUGE, TARGETS, monitor
from trio_chardev.qmp.json.codec import Decoder


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=50, deadline=None)
@given(data=st.binary(max_size=200))
def test_nothing_is_found(name: str, data: bytes) -> None:
    """The docstring of each target says what is looked for."""
    TARGETS[name](data)


@pytest.mark.parametrize("seed", range(60))
def test_no_reply_is_lost(seed: int) -> None:
    """The same with longer inputs than hypothesis likes to make."""
    monitor(random.Random(seed).randbytes(400))


def test_garbage_does_not_fill_the_memory() -> None:
    """Of 4 KiB little can be made, and after a reset nothing is kept of what came before."""
    chance = random.Random(1)
    decoder = Decoder()
    tracemalloc.start()
    try:
        for _ in range(25):
            junk = [chance.choice([*FRAGMENTS, *HUGE]) for _ in range(20)]
            decoder.feed((b"".join(junk) + chance.randbytes(4096))[:4096])
        del junk
        decoder.feed(b"\xff")
        left, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 20_000
    assert most < 1_000_000
