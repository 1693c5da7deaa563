from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_chardev.protocols.control_sequences import MAX_HELD, Stripper


def strip(*pieces: bytes) -> bytes:
    stripper = Stripper()
    return b"".join(map(stripper.feed, pieces)) + stripper.flush()


LEFT_OUT = [
    b"\x1b[0m",
    b"\x1b[1;31m",
    b"\x1b[?2004h",
    b"\x1b[6n",
    b"\x1b[>c",
    b"\x1b[ q",
    b"\x1b]0;title\x07",
    b"\x1b]11;?\x1b\\",
    b"\x1bP$qm\x1b\\",
    b"\x1bPq\nsixel\x1b\\",
    b"\x1b_Gi=31;AAAA\x1b\\",
    b"\x1b^pm\x1b\\",
    b"\x1bXsos\x1b\\",
    b"\x1b(B",
    b"\x1b#8",
    b"\x1bc",
    b"\x1b7",
    b"\x1b\\",
    b"\x1b[12\x18",
    b"\x1b]0;ti\x1a",
    b"\x1b\x1b[m",
    b"\x00\x07\x08\x0b\x0c\x0e\x7f",
]
STAYS = [b"", b"plain\r\n\ttext", "Grüße €".encode(), b"\xff\x9b\x80", b"[31m"]


@pytest.mark.parametrize("sequence", LEFT_OUT)
def test_a_sequence_is_left_out_at_any_cut(sequence: bytes) -> None:
    data = b"<" + sequence + b">"
    for cut in range(len(data) + 1):
        assert strip(data[:cut], data[cut:]) == b"<>"


@pytest.mark.parametrize("text", STAYS)
def test_text_stays_as_it_is(text: bytes) -> None:
    assert strip(text) == text


def test_what_breaks_a_sequence_off_is_text() -> None:
    assert strip(b"\x1b[31\nnext") == b"\nnext"
    assert strip(b"\x1b]0;half\nnext\n") == b"]0;half\nnext\n"
    assert strip(b"\x1b]0;half\x1b[0mnext") == b"next"
    assert strip("\x1bé".encode()) == "é".encode()


@pytest.mark.parametrize("begun", [b"\x1b[12", b"\x1b]12", b"\x1bP12", b"\x1b(", b"\x1b"])
def test_the_text_of_an_unfinished_sequence_comes_in_the_end(begun: bytes) -> None:
    stripper = Stripper()
    assert stripper.feed(b"<" + begun) == b"<"
    assert stripper.flush() == begun[1:]
    assert stripper.feed(b"after") == b"after"


def test_a_sequence_without_an_end_holds_no_more_than_so_much() -> None:
    text = bytes(range(65, 91)) * MAX_HELD
    stripper = Stripper()
    given = b""
    for at in range(0, len(text), 100):
        given += stripper.feed((b"\x1b]" if not at else b"") + text[at : at + 100])
        assert len(stripper.held) <= MAX_HELD
    assert given + stripper.flush() == b"]" + text


BYTES = st.one_of(
    st.sampled_from(LEFT_OUT + STAYS + [b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\\", b"\n", b"m"]),
    st.binary(max_size=4),
)


@given(st.lists(st.lists(BYTES).map(b"".join)))
def test_the_cut_makes_no_difference(pieces: list[bytes]) -> None:
    assert strip(*pieces) == strip(b"".join(pieces))


@pytest.mark.parametrize("end", [b"\x07", b"\x1b\\", b"\n", b"\x1b[m", b""])
@pytest.mark.parametrize("size", range(MAX_HELD - 4, MAX_HELD + 4))
def test_the_cut_makes_no_difference_at_the_limit(size: int, end: bytes) -> None:
    data = b"\x1b]".ljust(size, b"x") + end + b"after"
    whole = strip(data)
    assert strip(*(data[i : i + 1] for i in range(len(data)))) == whole
    assert strip(data[:100], data[100:]) == whole
