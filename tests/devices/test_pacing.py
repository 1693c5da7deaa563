"""Delays between bytes and after lines."""

from __future__ import annotations

import math
import re

from hypothesis import given, strategies as st

from trio_chardev.devices.pacing import Pacer, byte_time
from trio_chardev.events import LineSettings

CHAR, LINE, BYTE = 0.5, 2.0, 0.125  # seconds; exact in floating point
TEXT = st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\r\n"]), max_size=12).map(b"".join)


def times_of(pacer: Pacer, data: bytes, takes: list[int], byte: float) -> list[tuple[float, bytes]]:
    """When which pieces of *data* go, as soon as they may, to a sink that takes so many bytes."""
    now, pieces = 0.0, []
    taking = iter(takes)
    while data:
        now = max(now, pacer.wait_until(data))
        size = min(pacer.piece(data), next(taking, 100))
        pacer.sent(data[:size], now, byte)
        pieces.append((now, data[:size]))
        data = data[size:]
    return pieces


def ends_of(data: bytes) -> set[int]:
    """Where lines end."""
    return {found.end() for found in re.finditer(rb"\r\n|\r|\n", data)}


@given(TEXT, st.sampled_from([0.0, CHAR]), st.sampled_from([0.0, LINE]), st.sampled_from([0, BYTE]))
def test_no_byte_goes_before_its_time_nor_later(
    data: bytes, char: float, line: float, byte: float
) -> None:
    ends = ends_of(data)
    pieces = times_of(Pacer(char, line), data, [], byte)
    assert b"".join(piece for _, piece in pieces) == data
    at, line_time = 0, 0.0  # of what has been sent; when the line is idle again
    for now, piece in pieces:
        expected = 0.0
        if at:
            expected = line_time + char if char else 0.0
            if at in ends:
                expected = max(expected, line_time + line)
        assert now >= expected
        assert now == max(expected, 0.0) or not char
        line_time = max(now, line_time) + len(piece) * byte
        at += len(piece)


@given(TEXT, st.lists(st.integers(1, 3), max_size=20))
def test_a_piece_that_is_taken_in_parts_is_the_same_line(data: bytes, takes: list[int]) -> None:
    """The delay comes once, after its end."""
    pieces = times_of(Pacer(0.0, LINE), data, takes, 0.0)
    assert b"".join(piece for _, piece in pieces) == data
    ends = ends_of(data) - {len(data)}
    last = pieces[-1][0] if pieces else 0.0
    assert last == len(ends) * LINE


def test_the_first_byte_after_a_long_time_waits_for_nothing() -> None:
    pacer = Pacer(CHAR, LINE)
    assert pacer.wait_until(b"a") == -math.inf
    pacer.sent(b"\n", 10.0, 0.0)
    assert pacer.wait_until(b"a") == 10.0 + LINE


def test_a_byte_takes_its_bits() -> None:
    assert byte_time(LineSettings(speed=9600)) == 10 / 9600
    assert byte_time(LineSettings(speed=300, data_bits=7, parity="E", stop_bits=2)) == 11 / 300


def test_the_bytes_of_a_line_wait_for_each_other_only_on_the_line() -> None:
    """The kernel takes them ahead; the delay begins when all are sent."""
    pacer = Pacer(0.0, LINE)
    pacer.sent(b"abc", 0.0, BYTE)
    assert pacer.wait_until(b"\n") == -math.inf
    pacer.sent(b"\n", 0.0, BYTE)
    assert pacer.wait_until(b"x") == 4 * BYTE + LINE
