from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, strategies as st

from trio_chardev.protocols.log_format import (
    MAX_LINE,
    Direction,
    HexDump,
    JsonLines,
    LogFormat,
    MarkedTimestamps,
    Moment,
    Timestamps,
)

T1, T2, T3 = (Moment(at, f"T{at}") for at in (1, 2, 3))
STRIPPING: dict[str, LogFormat] = {
    "raw": LogFormat(strips=True),
    "timestamp": Timestamps(strips=True),
    "marked": MarkedTimestamps(strips=True),
    "json": JsonLines("board", strips=True),
}


def records(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# ---------------------------------------------------------------- raw, timestamps


def test_raw_is_the_bytes_in_order() -> None:
    raw = LogFormat()
    assert raw.data("out", b"a", T1) + raw.data("in", b"\n\xff", T2) == b"a\n\xff"
    assert (raw.held, raw.due, raw.flush()) == (0, math.inf, b"")


def test_a_time_comes_before_the_first_byte_of_each_line() -> None:
    log = Timestamps()
    assert log.data("out", b"one\n\ntw", T1) == b"T1 one\nT1 \nT1 tw"
    assert log.data("out", b"o\n", T2) == b"o\n"
    assert log.data("out", b"three", T3) == b"T3 three"


def test_a_note_is_a_line_of_its_own() -> None:
    for log in (LogFormat(), Timestamps()):
        begin = log.data("out", b"panic", T1)
        assert log.note("BREAK", T2) == b"\nT2 [trio-chardev: BREAK]\n"
        assert log.note("BREAK", T2) == b"T2 [trio-chardev: BREAK]\n"
        assert log.data("out", b"next", T1) == begin.replace(b"panic", b"next")


# ---------------------------------------------------------------- both directions


def test_both_directions_are_told_apart_and_a_line_is_kept_together() -> None:
    """A terminal echoes what is typed between the typed bytes."""
    log = MarkedTimestamps()
    text = b""
    for key in b"ls":
        text += log.data("in", bytes([key]), T1)
        text += log.data("out", bytes([key]), T1)
    assert not text
    assert log.data("in", b"\n", T2) + log.data("out", b"\r\nboot", T3) == b"T1 < ls\nT1 > ls\r\n"
    assert log.flush(T2.at) == b""
    assert log.flush(T3.at) == b"T3 > boot"


def test_a_line_that_goes_on_after_its_beginning_was_written() -> None:
    """In place, unless the other direction was heard meanwhile."""
    log = MarkedTimestamps()
    log.data("out", b"login: ", T1)
    assert log.flush() == b"T1 > login: "
    log.data("out", b"again: ", T2)
    assert log.flush() == b"again: "
    assert log.data("in", b"root\n", T2) == b"\nT2 < root\n"
    assert log.data("out", b"Password: \n", T3) == b"T3 > Password: \n"


# ---------------------------------------------------------------- json


def test_json_has_an_object_for_each_line() -> None:
    log = JsonLines("board")
    text = log.data("out", b"one\r\ntw", T1) + log.data("out", b"o\n", T2)
    assert records(text) == [
        {"time": "T1", "id": "board", "direction": "out", "text": "one\r\n"},
        {"time": "T1", "id": "board", "direction": "out", "text": "two\n"},
    ]
    assert records(log.note("BREAK", T3)) == [{"time": "T3", "id": "board", "note": "BREAK"}]


def test_a_note_comes_after_what_was_said_before_it() -> None:
    log = JsonLines("board")
    log.data("out", b"panic", T1)
    assert [r.get("text", r.get("note")) for r in records(log.note("BREAK", T2))] == [
        "panic",
        "BREAK",
    ]


def test_json_has_bytes_that_are_no_text_in_both_ways() -> None:
    """So a wrong byte does not hide the line from a search, and is not lost."""
    log = JsonLines("board")
    (record,) = records(log.data("out", b"\xfflogin\n", T1))
    assert record["text"] == "\ufffdlogin\n"
    assert base64.b64decode(record["base64"]) == b"\xfflogin\n"


def test_a_long_line_is_cut_between_characters() -> None:
    log = JsonLines("board")
    text = "€" * MAX_LINE
    got = records(log.data("out", text.encode(), T1) + log.flush())
    assert "".join(record["text"] for record in got) == text
    assert all(len(record["text"].encode()) <= MAX_LINE for record in got)


# ---------------------------------------------------------------- hexdump


def test_a_hex_dump_has_rows_as_xxd_with_the_time() -> None:
    log = HexDump(is_marked=False)
    assert log.data("out", b"U-Boot 2026.01\r\n!", T1) == (
        b"T1 00000000: 552d 426f 6f74 2032 3032 362e 3031 0d0a  U-Boot 2026.01..\n"
    )
    assert log.flush() == b"T1 00000010: 21                                       !\n"
    assert log.data("out", bytes(16), T2).startswith(b"T2 00000011: 0000")


def test_a_hex_dump_of_both_tells_the_direction_and_counts_each() -> None:
    log = HexDump(is_marked=True)
    log.data("out", b"a", T1)
    log.data("in", b"b", T2)
    rows = log.flush().splitlines()
    assert [row[:14] for row in rows] == [b"T1 > 00000000:", b"T2 < 00000000:"]


# ---------------------------------------------------------------- control sequences


@pytest.mark.parametrize("log", STRIPPING.values(), ids=STRIPPING)
def test_control_sequences_are_left_out_of_each_format(log: LogFormat) -> None:
    text = log.data("out", b"\x1b[1mbold\x1b", T1) + log.data("out", b"[0m\n", T2)
    assert b"bold" in text
    assert b"[1m" not in text and b"[0m" not in text  # noqa: PT018


def test_a_sequence_is_due_since_its_own_beginning() -> None:
    log = LogFormat(strips=True)
    log.data("out", b"\x1b", T1)
    assert log.due == T1.at
    assert log.data("out", b"[0mx\x1b", T2) == b"x"
    assert log.due == T2.at
    assert log.data("out", b"[31", T3) == b""
    assert log.due == T2.at
    assert (log.flush(T1.at), log.flush(T2.at)) == (b"", b"[31")
    assert log.due == math.inf


# ---------------------------------------------------------------- any format, any cut

STEPS = st.lists(
    st.tuples(st.sampled_from(["out", "in"]), st.binary(max_size=40) | st.just(b"a\n\xe2\x82"))
    | st.sampled_from(["flush", "note"])
)


def texts(name: str, log: bytes, direction: Direction) -> bytes:
    """The bytes of *direction* in a log, as its reader restores them."""
    if name == "json":
        return b"".join(
            base64.b64decode(r["base64"]) if "base64" in r else r["text"].encode()
            for r in records(log)
            if r.get("direction") == direction
        )
    mark = {"out": ">", "in": "<"}[direction]
    rows = re.findall(rf"^T\d {mark} [0-9a-f]{{8}}: (.{{39}})  ", log.decode(), re.MULTILINE)
    return b"".join(bytes.fromhex(row) for row in rows)


@given(STEPS)
def test_no_byte_is_missing_in_json_or_a_hex_dump(steps: list[Any]) -> None:
    for name, log in (("json", JsonLines("board")), ("hexdump", HexDump(is_marked=True))):
        said: dict[Direction, bytes] = {"out": b"", "in": b""}
        text = b""
        for step in steps:
            if step == "flush":
                text += log.flush()
            elif step == "note":
                text += log.note("x", T2)
            else:
                direction, data = step
                said[direction] += data
                text += log.data(direction, data, T1)
            assert (log.held == 0) == math.isinf(log.due)
        text += log.flush()
        assert log.held == 0
        for direction, data in said.items():
            assert texts(name, text, direction) == data
