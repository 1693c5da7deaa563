"""Line ends, however the bytes are cut, and however little of them is taken at once."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, strategies as st

from trio_chardev.devices.translation import Translate, Translation

ALL: tuple[Translate, ...] = get_args(Translate)
TEXT = st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\r\n"]), max_size=12).map(b"".join)
SIZES = st.lists(st.integers(1, 4), max_size=30)


def whole(name: Translate, data: bytes) -> bytes:
    """What *data* becomes, byte by byte as the definition has it."""
    match name:
        case "icrnl":
            return data.replace(b"\r", b"\n")
        case "inlcr":
            return data.replace(b"\n", b"\r")
        case "igncr":
            return data.replace(b"\r", b"")
        case "onlcr":
            return data.replace(b"\n", b"\r\n")
        case "none":
            return data
    ends = {"cr": b"\r", "lf": b"\n", "crlf": b"\r\n"}
    return ends[name].join(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))


@given(st.sampled_from(ALL), TEXT, SIZES, SIZES)
def test_any_cut_of_the_input_and_of_what_is_taken_gives_the_same(
    name: Translate, data: bytes, comes: list[int], takes: list[int]
) -> None:
    """What is not taken stays the next, as in the queue of a chardev."""
    translation = Translation(name)
    sent, waiting, rest = b"", b"", data
    coming, taking = iter(comes), iter(takes)
    while rest or waiting:
        size = next(coming, 100)
        waiting, rest = waiting + rest[:size], rest[size:]
        output = translation.translate(waiting)
        taken = min(next(taking, 100), len(output))
        sent += output[:taken]
        waiting = waiting[translation.took(waiting, taken) :]
    assert sent == whole(name, data)


@pytest.mark.parametrize("name", ["cr", "lf", "crlf"])
def test_the_end_of_a_line_does_not_wait_for_what_follows(name: Translate) -> None:
    translation = Translation(name)
    end = whole(name, b"\n")
    assert translation.translate(b"a\r") == b"a" + end
    assert translation.took(b"a\r", 1 + len(end)) == 2
    assert translation.translate(b"\n") == b""
    assert translation.took(b"\n", 0) == 1
    assert translation.translate(b"\n") == end


def test_what_becomes_nothing_is_taken_with_nothing() -> None:
    translation = Translation("igncr")
    assert translation.translate(b"\r\r") == b""
    assert translation.took(b"\r\r", 0) == 2


def test_half_a_line_end_that_was_taken_is_not_sent_again() -> None:
    translation = Translation("onlcr")
    assert translation.translate(b"\nb") == b"\r\nb"
    assert translation.took(b"\nb", 1) == 0
    assert translation.translate(b"\nb") == b"\nb"
    assert translation.took(b"\nb", 1) == 1
    assert translation.translate(b"b") == b"b"
