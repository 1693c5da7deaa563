"""Frames, by silence and by delimiter: any cut of what comes at once gives the same ones."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, strategies as st

from trio_chardev.devices.framing import MAX_FRAME, MAX_WAIT, Framer, parse_delimiter

SILENCE = 0.25  # exact in floating point
PIECES = st.lists(
    st.tuples(st.integers(0, 4), st.lists(st.sampled_from([b"a", b"b", b"\r", b"\n"]), min_size=1)),
    max_size=8,
)
"""What comes, each after so many eighths of a second, and how it is cut."""


@attrs.define
class Line:
    """What waits behind a line, with a clock."""

    framer: Framer
    now: float = 0.0
    waiting: bytes = b""
    frames: list[bytes] = attrs.Factory(list)

    def look(self) -> None:
        while size := self.framer.find(self.waiting[:MAX_FRAME], self.now, is_whole=False):
            self.frames.append(self.waiting[:size])
            self.waiting = self.waiting[size:]
            self.framer.sent(size)

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.waiting and self.framer.deadline <= end:
            self.now = max(self.now, self.framer.deadline)
            self.look()
        self.now = end


def frames_of(
    pieces: list[tuple[int, list[bytes]]], delimiter: bytes, *, is_cut: bool
) -> list[bytes]:
    line = Line(Framer(SILENCE, delimiter))
    for eighths, piece in pieces:
        line.wait(eighths / 8)
        for data in piece if is_cut else [b"".join(piece)]:
            line.waiting += data
            line.look()
    line.wait(SILENCE)
    assert not line.waiting
    return line.frames


@given(PIECES, st.sampled_from([b"", b"\n", b"\r\n"]))
def test_any_cut_of_what_comes_at_once_gives_the_same_frames(
    pieces: list[tuple[int, list[bytes]]], delimiter: bytes
) -> None:
    """They are all of it, and each ends with the delimiter or before a silence."""
    frames = frames_of(pieces, delimiter, is_cut=True)
    assert frames == frames_of(pieces, delimiter, is_cut=False)
    assert b"".join(frames) == b"".join(b"".join(piece) for _, piece in pieces)
    ends, at = set(), 0
    for eighths, piece in pieces:
        if eighths / 8 >= SILENCE:
            ends.add(at)
        at += len(b"".join(piece))
    ends.add(at)
    at = 0
    for frame in frames:
        at += len(frame)
        assert at in ends or (delimiter and frame.endswith(delimiter))
        assert not delimiter or delimiter not in frame[: -len(delimiter)]


def test_what_comes_without_an_end_is_bounded() -> None:
    line = Line(Framer(SILENCE, b"\n"))
    line.waiting = bytes(2 * MAX_FRAME + 1)
    line.look()
    assert [len(frame) for frame in line.frames] == [MAX_FRAME, MAX_FRAME]


def test_what_trickles_without_an_end_waits_for_a_bounded_time() -> None:
    line = Line(Framer(SILENCE))
    while line.now < MAX_WAIT + SILENCE:
        line.waiting += b"a"
        line.look()
        line.wait(SILENCE / 2)
    assert len(line.frames) == 1


def test_before_an_event_a_frame_is_whole() -> None:
    assert Framer(SILENCE, b"\n").find(b"half", 0.0, is_whole=True) == 4


def test_a_frame_that_is_sent_in_parts_does_not_wait_for_silence_again() -> None:
    framer = Framer(SILENCE)
    assert framer.find(b"frame", 0.0, is_whole=False) == 0
    assert framer.find(b"frame", SILENCE, is_whole=False) == 5
    framer.sent(2)
    assert framer.find(b"ame and more", SILENCE, is_whole=False) == 3
    framer.sent(3)
    assert framer.find(b" and more", SILENCE, is_whole=False) == 0
    assert framer.deadline == 2 * SILENCE


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [(r"\r\n", b"\r\n"), ("\n", b"\n"), (r"\x03", b"\x03"), ("end", b"end"), (r"\\", b"\\")],
)
def test_a_delimiter_has_escapes(text: str, delimiter: bytes) -> None:
    assert parse_delimiter(text) == delimiter


@pytest.mark.parametrize("text", ["", "x" * 17, r"\q", "\\", r"\x3", r"\xgg"])
def test_what_is_no_delimiter_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"has '|has \d+ bytes, and may have 1 to 16"):
        parse_delimiter(text)


def test_what_came_behind_a_frame_has_been_silent_since_it_came() -> None:
    framer = Framer(SILENCE, b"\n")
    assert framer.find(b"one", 0.0, is_whole=False) == 0
    assert framer.find(b"one\ntwo", SILENCE / 2, is_whole=False) == 4
    framer.sent(4)
    assert framer.find(b"two", SILENCE, is_whole=False) == 0
    assert framer.deadline == 1.5 * SILENCE
