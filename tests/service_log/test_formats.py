"""The forms of an entry: one line each, bounded, whatever is in it."""

from __future__ import annotations

import json
import logging
import struct

import pytest
from hypothesis import given, strategies as st

from trio_chardev.errors import NOTICE
from trio_chardev.service_log.entry import Entry
from trio_chardev.service_log.formats import MAX_SIZE, Form, format_entry

ENTRY = Entry(
    time=1796055687.25,
    level=NOTICE,
    area="serial",
    message="chardev 'my board': '/dev/ttyUSB0' \"went\" away",
    fields={"chardev": "my board", "client": 3},
    subject="chardev 'my board': ",
)
BUG = Entry(1.0, logging.ERROR, "console", "it failed", {}, "", "Traceback\n  x\x1b\nValueError: é")


def read_journal(data: bytes) -> dict[str, str]:
    """Read a datagram of systemd's native protocol."""
    fields = {}
    while data:
        name, _, data = data.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
        else:
            key, (size,) = name, struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + size], data[8 + size :]
            assert data.startswith(b"\n")
            data = data[1:]
        assert key.decode() not in fields
        fields[key.decode()] = value.decode()
    return fields


def test_as_text() -> None:
    assert format_entry(ENTRY, "text").decode() == (
        'time=2026-11-30T16:21:27.250000Z level=notice area=serial chardev="my board" client=3 '
        'message="\'/dev/ttyUSB0\' \\"went\\" away"\n'
    )


def test_as_json() -> None:
    line = format_entry(ENTRY, "json")
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "time": "2026-11-30T16:21:27.250000Z",
        "level": "notice",
        "area": "serial",
        "chardev": "my board",
        "client": 3,
        "message": "chardev 'my board': '/dev/ttyUSB0' \"went\" away",
    }


def test_for_the_journal() -> None:
    assert read_journal(format_entry(ENTRY, "journal")) == {
        "MESSAGE": "chardev 'my board': '/dev/ttyUSB0' \"went\" away",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "trio-chardev",
        "TRIO_CHARDEV_AREA": "serial",
        "TRIO_CHARDEV_ID": "my board",
        "TRIO_CHARDEV_CLIENT": "3",
    }


def test_a_traceback_is_in_the_same_line() -> None:
    text = format_entry(BUG, "text").decode()
    assert text.endswith('traceback="Traceback\\n  x\\\\x1b\\nValueError: é"\n')
    assert text.count("\n") == 1
    said = "Traceback\n  x\\x1b\nValueError: é"
    assert json.loads(format_entry(BUG, "json"))["traceback"] == said
    fields = read_journal(format_entry(BUG, "journal"))
    assert (fields["TRIO_CHARDEV_TRACEBACK"], fields["PRIORITY"]) == (said, "3")


TEXT = st.text(st.characters(codec=None), max_size=30)


@pytest.mark.parametrize("form", ["text", "json"])
@given(message=TEXT, id=TEXT)
def test_whatever_is_in_it_is_one_line_that_no_terminal_obeys(
    form: Form, message: str, id: str
) -> None:
    entry = Entry(1.0, logging.INFO, "qmp", message, {"monitor": id}, "", message)
    line = format_entry(entry, form).decode()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    if form == "json":
        assert set(json.loads(line)) == {"time", "level", "area", "monitor", "message"} | (
            {"traceback"} if message else set()
        )


@given(message=TEXT, id=TEXT)
def test_nothing_forges_a_field_of_the_journal(message: str, id: str) -> None:
    entry = Entry(1.0, logging.INFO, "qmp", message, {"monitor": id})
    fields = read_journal(format_entry(entry, "journal"))
    assert set(fields) == {
        *("MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"),
        *("TRIO_CHARDEV_AREA", "TRIO_CHARDEV_MONITOR"),
    }


@pytest.mark.parametrize("form", ["text", "json", "journal"])
@pytest.mark.parametrize("char", ["x", "\0", "\U0001f600", '"', "\n", "\ud800"])
def test_it_is_bounded(form: Form, char: str) -> None:
    long = char * 100_000
    entry = Entry(1.0, logging.INFO, "qmp", long, {"chardev": long, "who": long}, long, long)
    data = format_entry(entry, form)
    assert len(data) <= MAX_SIZE
    assert data.endswith(b"\n")
    if form == "json":
        json.loads(data)
