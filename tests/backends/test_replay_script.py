"""What is sent to a replay is compared with the recording as one stream, up to the first difference."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trio_chardev.backends.replay_file import Reader, Recording
from trio_chardev.backends.replay_script import LINES_AT_ONCE, Script

HEADER = {"version": 2, "width": 80, "height": 24}


@contextmanager
def script(tmp_path: Path, *events: tuple[str, str], loop: bool = False) -> Iterator[Script]:
    path = tmp_path / "recording"
    lines = [HEADER, *([number, *event] for number, event in enumerate(events))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recording = Recording(str(path), os.open(path, os.O_RDONLY))
    try:
        yield Script(Reader(recording), loop)
    finally:
        recording.file.close()


@pytest.mark.parametrize("pieces", [[b"abcd"], [b"a", b"bcd"], [b"ab", b"cd"], [b"abc", b"d"]])
def test_it_does_not_matter_how_it_is_cut_or_what_was_received(
    tmp_path: Path, pieces: list[bytes]
) -> None:
    with script(tmp_path, ("i", "ab"), ("o", "output"), ("i", "cd")) as made:
        for piece in pieces:
            assert made.follow(memoryview(piece)) == len(piece)
        assert (made.sent, made.difference) == (4, None)


def test_the_first_difference_says_where_and_what(tmp_path: Path) -> None:
    with script(tmp_path, ("i", "ab"), ("i", "cd")) as made:
        made.follow(memoryview(b"abcX"))
        assert made.difference == "b'X' was sent, but b'd' was recorded, after 3 bytes"


@pytest.mark.parametrize("loop", [False, True])
def test_after_the_end_no_more_is_expected_unless_it_loops(tmp_path: Path, loop: bool) -> None:
    with script(tmp_path, ("i", "ab"), loop=loop) as made:
        taken = made.follow(memoryview(b"ab"))
        for _ in range(LINES_AT_ONCE):
            taken += made.follow(memoryview(b"ab"))
            if taken == 4 or made.difference:
                break
        expected = None if loop else "b'ab' was sent, but no more was recorded"
        assert made.difference == expected


def test_after_many_lines_the_rest_is_for_later(tmp_path: Path) -> None:
    lines = [("o", "x")] * (2 * LINES_AT_ONCE)
    with script(tmp_path, *lines, ("i", "ab")) as made:
        assert made.follow(memoryview(b"ab")) == 0
        assert made.difference is None
        for _ in range(5):
            if made.follow(memoryview(b"ab")):
                break
        assert made.sent == 2
