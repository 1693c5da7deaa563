"""What ``trio-chardev top`` shows of each console."""

from __future__ import annotations

from typing import Any

import pytest

from trio_chardev.cli.top_rows import (
    HEADER,
    SORTS,
    Row,
    as_json,
    blocks,
    cells,
    in_order,
    rows_of,
    with_rates,
)
from trio_chardev.errors import OptionsError

BRIDGE = {
    "driver": "bridge",
    "id": "board-bridge",
    "chardev": "board",
    "peer": "board-console",
    "to-peer": {"bytes": 9, "dropped": 0},
    "to-chardev": {"bytes": 9, "dropped": 30},
}


def client(console: str, queued: int, skipped: int = 0, received: int = 0) -> dict[str, Any]:
    return {"id": console, "queued": queued, "skipped": skipped, "received": received}


STATS: dict[str, Any] = {
    "chardevs": [
        {"id": "board", "kind": "serial", "state": "open", "received": 1000, "sent": 5},
        {"id": "board-console", "kind": "console", "state": "open"},
        {"id": "alone", "kind": "console", "state": "open"},
        {
            "id": "far",
            "kind": "socket",
            "state": "waiting",
            "next-try": 3.2,
            "last-error": "Connection refused",
        },
    ],
    "devices": [BRIDGE],
    "consoles": [
        {"id": "board-console", "end": 1000, "last-output": 100.0},
        {"id": "alone", "end": 70},
    ],
    "clients": [
        client("board-console", 7, skipped=12),
        client("board-console", 2000),
        client("alone", 0, received=4),
    ],
}


def test_a_device_and_its_console_are_one_row() -> None:
    board, alone, far = rows_of(STATS)
    assert cells(board, 103.5) == (
        *("board", "open", "2", "-", "-", "2.0k", "3 s ago", "42 bytes lost"),
    )
    assert cells(far, 0.0) == (
        *("far", "waiting  4 s", "-", "-", "-", "-", "-", "Connection refused"),
    )
    assert (alone.received, alone.sent, alone.clients) == (70, 4, 1)
    assert [row.name for row in rows_of(STATS, "board-bridge")] == ["board"]
    with pytest.raises(OptionsError, match="there is no 'nope'"):
        rows_of(STATS, "nope")


def row(name: str, **more: Any) -> Row:
    known: dict[str, Any] = dict.fromkeys(
        ("next_try", "clients", "received", "sent", "behind", "last_output", "last_error")
    )
    return Row(name=name, **{"state": "open", "lost": 0, **known, **more})


def test_rates_are_the_difference_and_there_is_none_where_a_count_has_begun_again() -> None:
    before = [row("a", received=100, sent=50), row("b", received=900, sent=0)]
    now = [row("a", received=300, sent=50), row("b", received=10, sent=10), row("c", received=5)]
    rated = with_rates(now, before, 2.0)
    assert [(one.received_rate, one.sent_rate) for one in rated] == [
        (100.0, 0.0),
        (None, 5.0),
        (None, None),
    ]
    assert with_rates(now, before, 0.0)[0].received_rate is None


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("name", "abcd"),
        ("state", "cabd"),
        ("clients", "bacd"),
        ("from", "dabc"),
        ("to", "abcd"),
        ("behind", "cabd"),
        ("output", "bacd"),
        ("error", "cabd"),
    ],
)
def test_each_column_can_say_the_order(column: str, names: str) -> None:
    rows = [
        row("d", received_rate=1.0),
        row("c", state="failed", behind=1, last_error="no"),
        row("a", clients=0, last_output=1.0),
        row("b", clients=3, last_output=2.0),
    ]
    assert "".join(one.name for one in in_order(rows, column, False)) == names
    assert sorted(one.name for one in in_order(rows, column, True)) == list("abcd")
    assert len(SORTS) == len(HEADER)


def test_an_error_is_a_line_of_its_own_where_there_is_no_room() -> None:
    rows = [row("a" * 100), row("b", last_error="why " * 50)]
    (head,), (first,), (second, error) = blocks(rows, HEADER, 0.0, 80)
    assert head.split() == list(HEADER[:-1])
    assert "..." in first
    assert second.startswith("b ")
    assert error.startswith("  why why")
    assert error.endswith("...")
    assert max(map(len, (head, first, second, error))) <= 80


def test_json_has_what_there_is() -> None:
    (board,) = rows_of(STATS, "board")
    (rated,) = with_rates([board], [board], 1.0)
    assert as_json(rated) == {
        "name": "board",
        "state": "open",
        "clients": 2,
        "received": 1000,
        "sent": 5,
        "behind": 2000,
        "last-output": 100.0,
        "lost": 42,
        "received-rate": 0.0,
        "sent-rate": 0.0,
    }
