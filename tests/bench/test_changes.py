"""Lines that are lost, repeated or moved are found."""

from __future__ import annotations

import pytest

from bench.changes import LINE, check_lines
from bench.model import BenchmarkError

LINES = [LINE % number for number in range(4)]


def test_what_was_sent_is_taken() -> None:
    check_lines(b"".join(LINES), 4)
    check_lines(b"", 0)


@pytest.mark.parametrize(
    ("received", "at"),
    [
        (LINES[:3], 192),
        ([*LINES, LINES[3]], 256),
        ([LINES[0], LINES[2], LINES[1], LINES[3]], 126),
        ([LINES[0][:-1], *LINES[1:]], 63),
    ],
    ids=["lost", "repeated", "moved", "a byte lost"],
)
def test_a_difference_is_found_and_placed(received: list[bytes], at: int) -> None:
    with pytest.raises(BenchmarkError, match=rf"256 bytes were sent .* differ from {at} on"):
        check_lines(b"".join(received), 4)
