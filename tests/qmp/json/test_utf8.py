"""What QEMU accepts as a character."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_chardev.qmp.json.utf8 import (
    MAX_LENGTH,
    NOT_A_CHARACTER,
    count_whole,
    decode,
    decode_c_string,
    decode_replacing,
)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"plain \x7f", "plain \x7f"),
        (b"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\u00e9\u20ac\U0001f600"),
        (b"a\xc0\x80b", "a\0b"),
    ],
)
def test_valid(raw: bytes, text: str) -> None:
    assert decode(raw) == decode_replacing(raw) == text


@pytest.mark.parametrize(
    "raw",
    [
        *(b"\x80", b"\xbf", b"\xfe", b"\xff"),  # begins nothing
        *(b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xf8\x80\x80", b"\xfc\x80"),  # too short
        *(b"\xc1\x81", b"\xc0\x81", b"\xe0\x80\x80", b"\xf0\x80\x80\x80"),  # overlong
        *(b"\xed\xa0\x80", b"\xed\xbf\xbf"),  # surrogates
        *(b"\xef\xb7\x90", b"\xef\xbf\xbe", b"\xf0\x9f\xbf\xbf", b"\xf4\x8f\xbf\xbe"),
        *(b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf"),  # beyond U+10FFFF
        *(b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"),
    ],
)
def test_an_invalid_sequence_is_one_replacement(raw: bytes) -> None:
    assert decode(raw) is None
    assert decode_replacing(b"a" + raw + b"b\xc3\xa9") == "a\ufffdb\u00e9"


def test_invalid_sequences_one_after_another() -> None:
    assert (
        decode_replacing(b"\x80\xbf\xc3\xc3\xa9\xff\xc0\x80") == "\ufffd\ufffd\ufffd\u00e9\ufffd\0"
    )


def test_a_nul_byte_is_a_character_but_ends_a_c_string() -> None:
    assert decode_replacing(b"a\0b") == "a\0b"
    assert decode_replacing(b"\xff\0b") == "\ufffd\0b"
    assert decode_c_string(b"a\0b") == "a"


@pytest.mark.parametrize(
    ("raw", "size", "whole"),
    [
        (b"abc", 2, 2),
        (b"abc", 3, 3),
        (b"a\xc3\xa9", 2, 1),
        (b"a\xc3\xa9", 3, 3),
        (b"ab\xf0\x9f\x98\x80", 3, 2),
        (b"ab\xf0\x9f\x98\x80", 5, 2),
        (b"a\xc0\x80", 2, 1),  # a NUL as QEMU keeps it
        (b"\xff\xff\xff\xe2\x82\xac", 4, 3),  # it fits the next time
        (b"\xe2\x82\xac", 2, 2),  # it never fits
        (b"\xac\xe2\x82\xac", 2, 2),  # nor here, and nothing else does
        (b"a\xe2\x82\xac", 2, 1),  # here something does
        (b"\xef\xbf\xbd\xc3\xa9", 4, 3),
        (b"a\xe2\x82", 2, 2),  # what is not valid is not waited for
        (b"a\xe2\x82z", 2, 2),
        (b"a\xc1\x81", 2, 2),
        (b"a\xed\xa0\x80", 3, 3),
        (b"a\xf4\x90\x80\x80", 3, 3),
        (b"a\xf8\x88\x80\x80\x80", 3, 3),
        (b"\x80\x80\x80\x80\x80", 3, 3),
    ],
)
def test_a_character_that_the_size_cuts_is_left(raw: bytes, size: int, whole: int) -> None:
    assert count_whole(raw, size) == whole


@given(st.text(), st.integers(4, 12))
def test_text_that_is_taken_in_pieces_is_whole(text: str, size: int) -> None:
    text = NOT_A_CHARACTER.sub("", text)
    raw, pieces = text.encode(), []
    while raw:
        count = count_whole(raw[: size + MAX_LENGTH], size)
        assert 0 < count <= size
        pieces.append(decode_replacing(raw[:count]))
        raw = raw[count:]
    assert "".join(pieces) == text


@given(st.binary(max_size=12), st.integers(1, 12))
def test_something_is_taken_of_any_bytes(raw: bytes, size: int) -> None:
    count = count_whole(raw, size)
    assert count <= size
    assert count > 0 or not raw
