"""Breaks are decoded, wherever reads cut PARMRK's sequences."""

from __future__ import annotations

from hypothesis import given, strategies as st

from tests.users import Seen, join
from trio_chardev.backends.serial.breaks import BreakDecoder
from trio_chardev.events import Event

BREAK = Event.BREAK


def mark(items: Seen) -> bytes:
    """What the kernel makes of *items* with PARMRK."""
    return b"".join(
        item.replace(b"\xff", b"\xff\xff") if isinstance(item, bytes) else b"\xff\x00\x00"
        for item in items
    )


@given(
    st.lists(st.one_of(st.just(BREAK), st.text("a\xff\x00").map(lambda s: s.encode("latin-1")))),
    st.lists(st.integers(1, 5), min_size=1),
    st.integers(1, 4),
)
def test_marks_are_decoded_however_they_are_split(
    items: Seen, sizes: list[int], max_bytes: int
) -> None:
    raw = mark(items)
    decoder = BreakDecoder()
    got: Seen = []
    while raw:
        for size in sizes:
            piece, raw = raw[:size], raw[size:]
            if not decoder.tail and b"\xff" not in piece:
                got.append(piece)
            else:
                decoder.feed(piece)
            while (item := decoder.take(max_bytes)) is not None:
                assert isinstance(item, Event) or len(item) <= max_bytes
                got.append(item)
    assert join(got) == join(items)


def test_a_single_ff_is_itself() -> None:
    """With a framing error the kernel passes a 0xff on undoubled, unless INPCK is on."""
    decoder = BreakDecoder()
    decoder.feed(b"a\xffb\xff\x00c")
    assert list(decoder.items) == [b"a\xffb\xff\x00c"]
