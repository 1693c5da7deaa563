"""How the soak test measures, and that its checkers find what they are there for."""

from __future__ import annotations

from random import Random

import pytest
import trio

from tests.soak.console import LostOrRepeatedError
from tests.soak.served import LeftScopes, measure
from tests.soak.watching import LINE, Typed, View, text
from trio_chardev.backends.console.client import in_band

LEFT = 900  # as many as Trio keeps


def test_scopes_that_were_left_are_kept_by_trio_and_not_measured() -> None:
    left = LeftScopes()

    async def blocks() -> int:
        return (await trio.to_thread.run_sync(measure))[0]

    async def main() -> tuple[int, int, int]:
        with trio.fail_after(60):  # earlier than theirs
            await trio.to_thread.run_sync(left.forget)
            before = await blocks()
            for _ in range(LEFT):
                with trio.move_on_after(600):  # noqa: ASYNC100 - it is left at once
                    pass
            kept = await blocks()
            await trio.to_thread.run_sync(left.forget)
            return before, kept, await blocks()

    before, kept, after = trio.run(main, instruments=[left])
    assert kept > before + 3 * LEFT  # else `LeftScopes` is no longer needed
    assert after < before + LEFT // 10


def seen(*pieces: bytes, is_told: bool, may_skip: bool = True) -> View:
    """Feed a view, byte by byte."""
    view = View("a view", is_told, may_skip)
    for byte in b"".join(pieces):
        view.feed(bytes([byte]))
    return view


@pytest.mark.parametrize("cut", [0, 1, 5, 10, 11, 40, LINE - 1])
def test_a_view_knows_what_it_was_told_or_has_seen_to_be_skipped(cut: int) -> None:
    before, after = text(3 * LINE, 2 * LINE + cut), text(1234 * LINE, 2 * LINE)
    skipped = 1234 * LINE - (5 * LINE + cut)
    words = in_band("uid 0 attached") + in_band(f"skipped {skipped} bytes")
    told = seen(b"rest\n", before, words, after, is_told=True)
    untold = seen(b"rest\n", before, after, is_told=False)
    for view in (told, untold):
        assert (view.position, view.skipped) == (1236 * LINE, skipped)
        assert view.seen == 4 * LINE + cut


@pytest.mark.parametrize(
    ("pieces", "is_told", "may_skip"),
    [
        ((text(0, 100), text(99, 100)), False, True),  # repeated
        ((text(0, 160), text(80, 80)), False, True),  # a line repeated
        ((text(0, 100), text(101, 100)), False, True),  # lost within a line
        ((text(0, 160), text(240, 80)), True, True),  # a line lost, without a word
        ((text(0, 160), text(240, 80)), False, False),  # a line lost, to one who counts
        ((text(0, 160), in_band("skipped 81 bytes"), text(240, 80)), True, True),
        ((text(0, 160), in_band("skipped 80 bytes"), text(240, 80)), False, True),
    ],
)
def test_a_view_finds_what_is_lost_or_repeated(
    pieces: tuple[bytes, ...], is_told: bool, may_skip: bool
) -> None:
    with pytest.raises(LostOrRepeatedError):
        seen(*pieces, is_told=is_told, may_skip=may_skip)


def test_what_several_type_may_come_mixed_but_each_ones_in_order_and_once() -> None:
    typed = Typed("typed", b"")
    first, second = typed.begin(Random(1)), typed.begin(Random(2))
    assert first is not None
    assert second is not None
    a, b = typed.take_of(first, 100), typed.take_of(second, 100)
    typed.check(a[:50] + b[:20] + a[50:60])
    for wrong in (a[59:90], b[21:], bytes([0x31])):
        with pytest.raises(LostOrRepeatedError):
            typed.check(wrong)
    typed.cut(first)
    assert (typed.sent, typed.received) == (100, 20)
    typed.check(b[20:])
    assert (typed.sent, typed.received) == (100, 100)
