"""What a console has printed, read by cursors, and its marks."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from trio_chardev.backends.console.history import MAX_MARKS, Excerpt, History
from trio_chardev.backends.ringbuf.ring import Ring, open_ring
from trio_chardev.core.environment import open_path
from trio_chardev.errors import OptionsError


def history(size: int = 16, *pieces: bytes) -> History:
    made = History(Ring(size))
    for piece in pieces:
        made.write(piece)
    return made


async def test_reading_takes_nothing_and_next_goes_on() -> None:
    it = history(16, b"0123456789")
    assert it.read(0) == it.read(0) == Excerpt(b"0123456789", 0, 10, 0)
    assert it.read(0, 4) == Excerpt(b"0123", 0, 4, 0)
    it.write(b"ab")
    assert it.read(10) == Excerpt(b"ab", 10, 12, 0)
    assert it.read(12) == Excerpt(b"", 12, 12, 0)


async def test_a_start_that_is_gone_is_moved_and_that_is_said() -> None:
    it = history(16, b"x" * 10, b"y" * 10)
    assert it.read(0) == Excerpt(b"x" * 6 + b"y" * 10, 4, 20, 4)


async def test_a_negative_start_counts_from_the_end() -> None:
    it = history(16, b"0123456789")
    assert it.read(-3) == Excerpt(b"789", 7, 10, 0)
    assert it.read(-100) == Excerpt(b"0123456789", 0, 10, 0)


async def test_nothing_was_printed_behind_the_end() -> None:
    with pytest.raises(OptionsError, match="'start' is 11, and nothing was printed behind 10"):
        history(16, b"0123456789").read(11)


@given(st.integers(4, 40), st.integers(1, 64))
def test_no_character_is_cut_in_reads_of_any_size(size: int, ring: int) -> None:
    """The joined text has no replacement character, wherever the ring's edge has cut."""
    it = History.__new__(History)
    it.ring = Ring(ring + 8)
    it._marks = {}
    text = "aé€😀" * 12
    it.ring.write(text.encode())
    joined, at, lost = b"", 0, 0
    while (got := it.read(at, size, whole=True)).data:
        joined += got.data
        lost += got.lost
        at = got.next
    assert "\ufffd" not in joined.decode(errors="replace")
    assert text.endswith(joined.decode())
    assert len(joined) + lost == len(text.encode())


async def test_the_beginning_of_a_character_waits_for_its_rest() -> None:
    it = history(16, "é".encode()[:1])
    assert it.read(0, whole=True) == Excerpt(b"", 0, 0, 0)
    assert it.read(0) == Excerpt(b"\xc3", 0, 1, 0)
    it.write("é".encode()[1:])
    assert it.read(0, whole=True).data == "é".encode()


@pytest.mark.parametrize(
    ("text", "count", "seen"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\nb\nc\n", 0, b""),
        (b"", 3, b""),
        (b"\n\n\n", 1, b"\n"),
    ],
)
async def test_the_last_lines(text: bytes, count: int, seen: bytes) -> None:
    it = history(64, text)
    assert it.read(it.line_start(count)).data == seen


async def test_what_begins_in_a_line_that_was_cut_begins_with_the_next() -> None:
    it = history(16, b"first line\nsecond\nthird\n")
    assert it.read(it.safe_start(it.start)).data == b"second\nthird\n"[-13:]
    assert it.line_start(9) == it.safe_start(it.start)


async def test_marks_are_names_of_places_and_the_last_counts() -> None:
    it = history(64, b"abc")
    assert it.mark("here") == 3
    it.write(b"de")
    assert it.mark("here") == 5
    assert it.cursor_of("here") == 5
    with pytest.raises(OptionsError, match="there is no mark 'there'; there are: 'here'"):
        it.cursor_of("there")


@pytest.mark.parametrize("name", ["", "x" * 49, "a\nb", "on", "off", "12", "-3"])
async def test_names_that_mean_something_else_are_no_marks(name: str) -> None:
    it = history(64)
    with pytest.raises(OptionsError):
        it.mark(name)
    assert it.marks == {}


async def test_the_oldest_mark_gives_way() -> None:
    it = history(64)
    for number in range(MAX_MARKS + 1):
        it.mark(f"m{number}")
    assert len(it.marks) == MAX_MARKS
    assert "m0" not in it.marks


async def test_cursors_and_marks_are_the_same_after_a_crash(tmp_path: Path) -> None:
    path = str(tmp_path / "ring")
    ring = open_ring(path, 4096, open_path, None)
    it = History(ring)
    for number in range(1000):
        it.write(b"%07d\n" % number)
    it.mark("here")
    it.mark('o"dd\\ name é')
    it.write(b"and more\n")
    await ring.kept()
    assert ring._keeper is not None
    ring._keeper.file.close()  # as a crash does
    again = History(open_ring(path, 4096, open_path, None))
    assert (again.start, again.end) == (it.start, it.end) == (8009 - 4096, 8009)
    assert again.marks == it.marks == {"here": 8000, 'o"dd\\ name é': 8000}
    assert again.read(8000).data == b"and more\n"
    again.ring.close_unused()


async def test_a_damaged_note_is_no_mark(tmp_path: Path) -> None:
    ring = Ring(64)
    for note in (b"{", b"[1]", b'{"a": "b", "c": -1, "d": true}', b"\xff"):
        ring.note = note
        assert History(ring).marks == {}


async def test_one_that_takes_over_has_the_same_cursors() -> None:
    old, new = history(64, b"x" * 100), History(Ring(32))
    old.mark("here")
    new.go_on_from(old)
    assert (new.start, new.end) == (68, 100)
    assert new.marks == {"here": 100}
    new.write(b"y")
    assert new.read(99).data == b"xy"


async def test_one_with_the_same_ring_has_the_marks_that_were_made_meanwhile() -> None:
    old = history(64, b"x")
    new = History(old.ring)
    old.mark("here")
    new.go_on_from(old)
    assert new.marks == {"here": 1}


async def test_lines_are_found_across_pieces_of_the_search() -> None:
    lines = [b"%d %s\n" % (number, b"x" * (number % 977)) for number in range(200)]
    it = history(1 << 17, *lines)
    for count in (1, 2, 30, 31, 32, 33, 34, 35, 100, 199, 200):
        assert it.read(it.line_start(count)).data == b"".join(lines[-count:])
