"""The table that ``trio-chardev list`` prints."""

from __future__ import annotations

from typing import Any

import pytest

from trio_chardev.cli.table import amount, duration, lines, place_of, shorten, width_of, wrapped

ADDRESS = {"type": "unix", "data": {"path": "/x"}}


@pytest.mark.parametrize(
    ("kind", "data", "filename", "place"),
    [
        ("serial", {"device": "/dev/ttyUSB0"}, "serial", "/dev/ttyUSB0"),
        ("pipe", {"device": "/x"}, "pipe", "/x"),
        ("file", {"out": "/log"}, "file", "/log"),
        ("file", {"out": "/log", "in": "/x"}, "file", "/log, input /x"),
        ("pty", {}, "pty:/dev/pts/3", "/dev/pts/3"),
        ("pty", {"path": "/c"}, "pty:/dev/pts/3", "/c -> /dev/pts/3"),
        ("ringbuf", {"path": "/ring"}, "ringbuf", "/ring"),
        ("ringbuf", {"size": 64}, "ringbuf", "-"),
        ("replay", {"path": "/r.cast"}, "replay", "/r.cast"),
        ("mux", {"chardev": "base"}, "mux", "base"),
        ("hub", {"chardevs": ["a", "b"]}, "hub", "a,b"),
        ("udp", {"remote": {"type": "inet", "data": {"host": "h", "port": "5"}}}, "udp", "h:5"),
        ("socket", {"addr": ADDRESS}, "disconnected:unix:/x,server=on", "unix:/x"),
        ("null", {}, "null", "-"),
        ("strange", {}, "strange:7", "strange:7"),
    ],
)
def test_where_a_backend_is(kind: str, data: dict[str, Any], filename: str, place: str) -> None:
    assert place_of(kind, data, filename) == place


def test_it_fits_and_keeps_both_ends() -> None:
    rows = [("ID", "AT", "USER"), ("a", "/begin" + "x" * 200 + "/end", "b0"), ("c" * 70, "-", "-")]
    table = list(lines(rows, 80))
    assert max(map(len, table)) <= 80
    assert table[1].split()[1].startswith("/begin")
    assert table[1].split()[1].endswith("/end")
    assert "..." in table[2]
    assert max(map(len, lines(rows, None))) > 200


def test_a_terminal_that_is_too_narrow_for_all_gets_a_table_all_the_same() -> None:
    assert [len(line) for line in lines([("a" * 20, "b" * 20)], 5)] == [18]


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [("abc", 3, "abc"), ("abcdefghij", 8, "abc...ij"), ("abcdefghij", 9, "abc...hij")],
)
def test_what_is_cut(text: str, room: int, shown: str) -> None:
    assert shorten(text, room) == shown


def test_what_is_wide_counts_as_what_it_takes() -> None:
    table = list(lines([("日本語" * 20, "e\u0301" * 5), ("b", "c")], 60))
    assert [width_of(line) for line in table] == [60, 60 - 4]
    assert "..." in table[0]
    assert width_of(shorten("日本語日本語", 8)) == 7


@pytest.mark.parametrize(
    ("text", "room", "shown"),
    [
        ("a, b c", None, ["a, b c"]),
        ("a, b c", 4, ["a, b", "c"]),
        ("abc,def", 4, ["abc,", "def"]),
        ("abcdefgh,i", 3, ["abc", "def", "gh,", "i"]),
        ("日本語", 5, ["日本", "語"]),
        ("", 5, [""]),
    ],
)
def test_what_is_wrapped(text: str, room: int | None, shown: list[str]) -> None:
    assert [line.rstrip() for line in wrapped(text, room)] == shown


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (12345, "12k"), (99.95, "100"), (2.5e6, "2.5M")],
)
def test_an_amount(number: float, text: str) -> None:
    assert amount(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.9, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_how_long(seconds: float, text: str) -> None:
    assert duration(seconds) == text
