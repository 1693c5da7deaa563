"""The table that ``trio-chardev list`` prints."""

from __future__ import annotations

from typing import Any

import pytest

from trio_chardev.cli.table import duration, lines, place_of, shorten

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
        ("socket", {"addr": ADDRESS}, "disconnected:unix:/x,server=on", "unix:/x,server=on"),
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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.9, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_how_long(seconds: float, text: str) -> None:
    assert duration(seconds) == text
