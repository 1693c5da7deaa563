"""The lines of a recording, and the bytes that come back from them."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from trio_chardev.protocols.asciicast import (
    ESCAPE,
    MAX_LINE,
    Decoder,
    Encoder,
    Entry,
    FormatError,
    header,
)

HEADER = b'{"version": 2, "width": 80, "height": 24}\n'


def read(file: bytes, size: int = 1 << 16) -> list[Entry]:
    """All entries of *file*, which is given *size* bytes at a time."""
    decoder = Decoder()
    entries = []
    for start in range(0, len(file) + size, size):
        decoder.receive_data(file[start : start + size])
        while entry := decoder.next_entry():
            entries.append(entry)
    return entries


def texts(lines: bytes) -> list[list[object]]:
    return [json.loads(line) for line in lines.splitlines()]


# ---------------------------------------------------------------- writing


def test_the_lines_are_those_of_asciinema() -> None:
    encoder = Encoder()
    assert header("chardev x", 1504467315) == (
        b'{"version": 2, "width": 80, "height": 24, '
        b'"timestamp": 1504467315, "title": "chardev x"}\n'
    )
    assert encoder.data(1.5, "o", b"\x1b[1mok\r\n") == b'[1.5, "o", "\\u001b[1mok\\r\\n"]\n'
    assert encoder.data(2.0000004, "i", "é".encode()) == '[2.0, "i", "é"]\n'.encode()
    assert encoder.marker(3, "OPENED") == b'[3, "m", "OPENED"]\n'


def test_a_character_in_two_pieces_is_written_as_one() -> None:
    encoder = Encoder()
    euro = "€".encode()
    assert texts(encoder.data(1, "o", b"a" + euro[:1])) == [[1, "o", "a"]]
    assert encoder.data(2, "o", euro[1:2]) == b""
    assert texts(encoder.data(3, "o", euro[2:] + b"b")) == [[3, "o", "€b"]]
    assert encoder.flush() == b""


def test_what_comes_between_parts_a_character_and_keeps_its_place() -> None:
    encoder = Encoder()
    half = chr(ESCAPE + 0xC3)
    encoder.data(1, "o", b"\xc3")
    assert texts(encoder.data(2, "i", b"x")) == [[1, "o", half], [2, "i", "x"]]
    encoder.data(3, "i", b"\xc3")
    assert texts(encoder.flush()) == [[3, "i", half]]
    encoder.data(5, "o", b"\xc3")
    assert texts(encoder.flush()) == [[5, "o", half]]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a\xffb\x80", "a\U0010feffb\U0010fe80"),
        ("\U0010feff".encode(), "\U0010fef4\U0010fe8f\U0010febb\U0010febf"),
        (b"\xed\xb2\x80", "\U0010feed\U0010feb2\U0010fe80"),  # a surrogate is no character
        (b"\xc0\xaf", "\U0010fec0\U0010feaf"),  # too long a form of one
        ("\U0010fe7f\U0010ff00\x85\u2028".encode(), "\U0010fe7f\U0010ff00\x85\u2028"),
    ],
)
def test_bytes_that_are_no_text_are_private_characters(data: bytes, text: str) -> None:
    lines = Encoder().data(0, "o", data)
    assert texts(lines) == [[0, "o", text]]
    assert read(HEADER + lines)[0].data == data


def test_a_label_may_hold_any_file_name() -> None:
    lines = Encoder().marker(0, "CHANGED file\udcff\ud800 pty")
    assert texts(lines) == [[0, "m", "CHANGED file\U0010feff\ud800 pty"]]
    assert b"\\ud800" in header("\ud800", 0)


pieces = st.lists(st.tuples(st.sampled_from(["o", "i"]), st.binary(max_size=12)))
tricky = st.lists(
    st.sampled_from(["é".encode(), "€".encode(), b"\xf4\x8f\xbb\xbf", b"\xff", b"\n", b"a", b'"'])
).map(b"".join)


@given(data=st.binary() | tricky, cuts=st.lists(st.integers(0, 30)))
def test_any_bytes_cut_anyhow_come_back(data: bytes, cuts: list[int]) -> None:
    encoder, lines = Encoder(), HEADER
    places = sorted({0, *cuts, len(data)})
    for start, end in pairwise(places):
        lines += encoder.data(0, "o", data[start:end])
    entries = read(lines + encoder.flush())
    assert b"".join(entry.data for entry in entries) == data[places[0] :]
    assert {entry.code for entry in entries} <= {"o"}


@given(pieces=pieces, size=st.integers(1, 40))
def test_both_ways_come_back_in_their_order(pieces: list[tuple[str, bytes]], size: int) -> None:
    """Also when the file is read in pieces of any size."""
    encoder, lines = Encoder(), HEADER
    for time, (code, data) in enumerate(pieces):
        lines += encoder.data(time, "o" if code == "o" else "i", data)
    got = [(entry.code, entry.data) for entry in read(lines + encoder.flush(), size)]
    assert joined(got) == joined(pieces)


def joined(pieces: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """With neighbours of one direction made one."""
    runs: list[tuple[str, bytes]] = []
    for code, data in pieces:
        if runs and runs[-1][0] == code:
            runs[-1] = code, runs[-1][1] + data
        elif data:
            runs.append((code, data))
    return runs


# ---------------------------------------------------------------- reading


def test_reading() -> None:
    file = HEADER + b'[0.5, "o", "a"]\n\n[1, "r", "80x24"]\n[0.7, "m", "late"]\r\n'
    assert read(file) == [
        Entry(0.5, "o", "a"),
        Entry(1.0, "r", "80x24"),
        Entry(1.0, "m", "late"),  # time does not go back
    ]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_torn_last_line_is_skipped_wherever_it_is_torn(size: int) -> None:
    line = '[1.25, "o", "grüße"]\n'.encode()
    for cut in range(len(line)):
        decoder = Decoder()
        entries = []
        file = HEADER + line + line[:cut]
        for start in range(0, len(file) + size, size):
            decoder.receive_data(file[start : start + size])
            while entry := decoder.next_entry():
                entries.append(entry)
        whole = cut == len(line) - 1  # only the end of the line is missing
        assert len(entries) == 1 + whole
        assert decoder.is_torn == (0 < cut < len(line) - 1)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "it is empty"),
        (b"\n", "it is not in the format asciicast v2 or v3"),
        (b'{"version": 2', "it is not in the format asciicast v2 or v3"),
        (b'{"version": 4}\n', "it is not in the format asciicast v2 or v3"),
        (b"[2]\n", "it is not in the format asciicast v2 or v3"),
        (b"\xff\xfe\n", "it is not in the format asciicast v2 or v3"),
        (b"[" * 100_000, "it is not in the format asciicast v2 or v3"),
        (HEADER + b"x\n[0, \"o\", \"\"]\n", "line 2 is damaged"),
        (HEADER + b"\n[0, \"o\"]\n", "line 3 is damaged"),
        (HEADER + b"[0, \"o\", \"\", 1]\n", "line 2 is damaged"),
        (HEADER + b"[-1, \"o\", \"\"]\n", "line 2 is damaged"),
        (HEADER + b"[NaN, \"o\", \"\"]\n", "line 2 is damaged"),
        (HEADER + b"[1e999, \"o\", \"\"]\n", "line 2 is damaged"),
        (HEADER + b"[\"0\", \"o\", \"\"]\n", "line 2 is damaged"),
        (HEADER + b"[0, 1, \"\"]\n", "line 2 is damaged"),
        (HEADER + b"[0, \"o\", 2]\n", "line 2 is damaged"),
        (HEADER + b'[0, "o", "\\ud800"]\n', "line 2 has half a character"),
    ],
)  # fmt: skip
def test_what_is_no_recording_is_told_in_one_line(file: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=f"^{words}$"):
        read(file)


def test_a_line_without_end_is_not_gathered_for_ever() -> None:
    decoder = Decoder()
    decoder.receive_data(HEADER)
    assert decoder.next_entry() is None
    for _ in range(4):
        decoder.receive_data(b"x" * (1 << 18))
    with pytest.raises(FormatError, match="^line 2 is too long$"):
        decoder.receive_data(b"x")


@pytest.mark.parametrize("text", ["\\u0000", "\U0010feff", "a", "\\ud83d\\ude00"])
def test_the_longest_line_takes_a_bounded_multiple_of_its_size(text: str) -> None:
    size = MAX_LINE // len(text.encode())
    line = b'[0, "o", "' + text.encode() * (size - 5) + b'"]\n'
    tracemalloc.start()
    try:
        (entry,) = read(HEADER + line)
        assert entry.data
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * MAX_LINE


def test_pythons_way_to_hold_bytes_in_text_is_read_too() -> None:
    assert read(HEADER + b'[0, "o", "\\udcffa"]\n')[0].data == b"\xffa"


@given(st.binary(max_size=200))
def test_anything_at_all_is_read_or_refused(file: bytes) -> None:
    with suppress(FormatError):
        read(HEADER + file)


# ---------------------------------------------------------------- v3

# As asciinema 3 writes it.
V3 = (
    b'{"version":3,"term":{"cols":80,"rows":24,"type":"xterm-256color"},"timestamp":1504467315,'
    b'"command":"sh","env":{"SHELL":"/bin/sh"}}\n'
)


def test_in_v3_times_are_since_the_event_before() -> None:
    file = (
        V3 + b'[0.248, "o", "a"]\n# a comment [1, "o", "x"]\n#\n\n[1.5, "i", "b"]\n'
        b'[3.5, "m", ""]\n[0, "r", "90x30"]\n[0.002, "o", "c"]\r\n[0.75, "x", "0"]\n'
    )
    entries = read(file)
    assert [(entry.code, entry.text) for entry in entries] == [
        *(("o", "a"), ("i", "b"), ("m", ""), ("r", "90x30"), ("o", "c"), ("x", "0")),
    ]
    assert [entry.time for entry in entries] == pytest.approx([0.248, 1.748, 5.248, 5.248, 5.25, 6])


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"# first\n" + V3, "it is not in the format asciicast v2 or v3"),
        (HEADER + b"# only in v3\n", "line 2 is damaged"),
        (V3 + b" # not at the beginning\n", "line 2 is damaged"),
        (V3 + b'[1, "o", "a"]\n[-0.5, "o", "b"]\n', "line 3 is damaged"),
        (V3 + b'[9e8, "o", "a"]\n[9e8, "o", "b"]\n', "line 3 is damaged"),
    ],
)
def test_what_is_no_recording_in_v3(file: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=f"^{words}$"):
        read(file)


def test_a_torn_comment_is_no_torn_event() -> None:
    decoder = Decoder()
    decoder.receive_data(V3 + b"# half a comm")
    decoder.receive_data(b"")
    assert decoder.next_entry() is None
    assert not decoder.is_torn


def test_writing_v3() -> None:
    encoder = Encoder(3)
    assert header("x", 1, 3) == (
        b'{"version": 3, "term": {"cols": 80, "rows": 24}, "timestamp": 1, "title": "x"}\n'
    )
    assert encoder.data(1.5, "o", b"a") == b'[1.5, "o", "a"]\n'
    assert encoder.data(2, "o", b"b\xc3") == b'[0.5, "o", "b"]\n'
    assert texts(encoder.data(4, "i", b"c")) == [[0, "o", chr(ESCAPE + 0xC3)], [2, "i", "c"]]
    assert encoder.marker(4.25, "BREAK") == b'[0.25, "m", "BREAK"]\n'


def test_in_v3_what_is_rounded_off_does_not_add_up() -> None:
    encoder, file = Encoder(3), header("x", 1, 3)
    for number in range(1, 10_001):
        file += encoder.data(number * 1.0000004e-3, "o", b"a")
    assert read(file)[-1].time == pytest.approx(10.000004, abs=1e-6)


@given(pieces=pieces, lost=st.lists(st.booleans(), min_size=40, max_size=40))
def test_in_v3_what_is_lost_changes_no_other_times(
    pieces: list[tuple[str, bytes]], lost: list[bool]
) -> None:
    encoder, file = Encoder(3), header("x", 1, 3)
    times = []
    for time, ((code, data), is_lost) in enumerate(zip(pieces, lost, strict=False)):
        line = encoder.data(time, "o" if code == "o" else "i", data.replace(b"\xc3", b"")[:3])
        line += encoder.flush()
        if is_lost:
            encoder.lose(line)
        else:
            file += line
            times += [time] * line.count(b"\n")
    assert [entry.time for entry in read(file)] == pytest.approx(times)
