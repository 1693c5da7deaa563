"""What ``trio-chardev top`` shows of each console and other chardev; without I/O.

A row is what one answer of query-chardev-stats says; the rates are the difference to an earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from trio_chardev.cli.names import Board, boards_of, find
from trio_chardev.cli.output import printable
from trio_chardev.cli.table import amount, duration, lines, shortened_end

Stats = Mapping[str, Any]
"""What query-chardev-stats returns."""
FLOWS: Final = ("to-peer", "to-chardev")
_LATE: Final = "\x7f"  # what is not there comes last


@attrs.frozen(kw_only=True)
class Row:
    """A board, or another chardev."""

    name: str
    state: str
    next_try: float | None
    """In how many seconds it is tried again."""
    clients: int | None
    """None if there is no console."""
    received: int | None
    """Bytes that have come from the device, if somebody counts them."""
    sent: int | None
    """Bytes that it was sent."""
    behind: int | None
    """Bytes that the slowest client has yet to get."""
    last_output: float | None
    lost: int
    """Bytes that the bridge has dropped, and the clients that are there have not got."""
    last_error: str | None
    received_rate: float | None = None
    """In bytes per second."""
    sent_rate: float | None = None

    @property
    def error(self) -> str | None:
        """What has gone wrong."""
        lost = f"{amount(self.lost)} bytes lost" if self.lost else None
        return "; ".join(filter(None, (self.last_error, lost))) or None

    @property
    def state_text(self) -> str:
        """The state, and when it is tried again."""
        # Two digits, so that columns stay where they are while it counts down.
        return (
            self.state if self.next_try is None else f"{self.state} {math.ceil(self.next_try):2} s"
        )


def rows_of(stats: Stats, name: str | None = None) -> list[Row]:
    """Make the rows of a service, in its order, or only that of *name*. Raises OptionsError."""
    chardevs = {row["id"]: row for row in stats["chardevs"]}
    kinds = {id: row["kind"] for id, row in chardevs.items()}
    boards = list(boards_of(kinds, stats["devices"]))
    if name is not None:
        boards = [find(boards, name)]
    return [_row(board, stats, chardevs) for board in boards]


def _row(board: Board, stats: Stats, chardevs: Mapping[str, Stats]) -> Row:
    row = chardevs[board.device_side]
    console = next((one for one in stats["consoles"] if one["id"] == board.console), None)
    clients = [client for client in stats["clients"] if client["id"] == board.console]
    received, sent = row.get("received"), row.get("sent")
    if board.device is None and console is not None:  # what its user prints is no device's
        received, sent = console["end"], sum(client["received"] for client in clients)
    bridge = next((one for one in stats["devices"] if one["id"] == board.bridge), None)
    flows = () if bridge is None else [bridge[name] for name in FLOWS if name in bridge]
    dropped = sum(flow.get("dropped", 0) for flow in flows)
    return Row(
        name=board.name,
        state=row["state"],
        next_try=row.get("next-try"),
        clients=None if console is None else len(clients),
        received=received,
        sent=sent,
        behind=max((client["queued"] for client in clients), default=None),
        last_output=None if console is None else console.get("last-output"),
        lost=dropped + sum(client["skipped"] for client in clients),
        last_error=row.get("last-error"),
    )


def with_rates(rows: Sequence[Row], before: Sequence[Row], seconds: float) -> list[Row]:
    """Add the rates since *before*, *seconds* ago; a count that was begun again has none."""
    old = {row.name: row for row in before}
    made = []
    for row in rows:
        if (was := old.get(row.name)) is not None:
            row = attrs.evolve(
                row,
                received_rate=_rate(was.received, row.received, seconds),
                sent_rate=_rate(was.sent, row.sent, seconds),
            )
        made.append(row)
    return made


def _rate(before: int | None, now: int | None, seconds: float) -> float | None:
    if before is None or now is None or now < before or seconds <= 0:
        return None
    return (now - before) / seconds


# ---------------------------------------------------------------- order

_Key = Callable[[Row], Any]


def _or_least(value: float | None) -> float:
    """What is not known counts as the least."""
    return -math.inf if value is None else value


SORTS: Final[Mapping[str, _Key]] = {
    "name": lambda row: row.name,
    "state": lambda row: (row.state == "open", row.state),
    "clients": lambda row: -_or_least(row.clients),
    "from": lambda row: -_or_least(row.received_rate),
    "to": lambda row: -_or_least(row.sent_rate),
    "behind": lambda row: -_or_least(row.behind),
    "output": lambda row: -_or_least(row.last_output),
    "error": lambda row: row.error or _LATE,
}
"""The column by which rows are in order -> its key; of numbers the largest comes first."""


def in_order(rows: Iterable[Row], column: str, is_reversed: bool) -> list[Row]:
    """Sort *rows*; those that are alike are by name."""
    by_name = sorted(rows, key=SORTS["name"])
    return sorted(by_name, key=SORTS[column], reverse=is_reversed)


# ---------------------------------------------------------------- as text

HEADER: Final = ("CONSOLE", "STATE", "CLIENTS", "FROM/s", "TO/s", "BEHIND", "OUTPUT", "ERROR")
"""The columns, in the order of `SORTS`."""


def blocks(rows: Sequence[Row], header: Sequence[str], now: float, width: int) -> list[list[str]]:
    """Lay *rows* out in a table of *width*: of each its lines, the second of which says its error.

    The first are the lines of *header*. *now* is the time since 1970.
    """
    head, *table = lines([header[:-1], *(cells(row, now)[:-1] for row in rows)], width)
    made = [[head]]
    for row, line in zip(rows, table, strict=True):
        error = f"  {printable(row.error)}" if row.error else ""
        made.append([line, *([shortened_end(error, width)] if error else [])])
    return made


def cells(row: Row, now: float) -> tuple[str, ...]:
    """The cells of *row*; *now* is the time since 1970."""
    here = None if row.last_output is None else f"{duration(now - row.last_output)} ago"
    return (
        row.name,
        row.state_text,
        "-" if row.clients is None else str(row.clients),
        _amount(row.received_rate),
        _amount(row.sent_rate),
        _amount(row.behind),
        here or "-",
        row.error or "-",
    )


def _amount(number: float | None) -> str:
    return "-" if number is None else amount(number)


def as_json(row: Row) -> dict[str, Any]:
    """Make what ``--json`` prints of *row*; what there is not is left out."""
    found = attrs.asdict(row)
    for name in ("received_rate", "sent_rate"):
        if found[name] is not None:
            found[name] = round(found[name], 1)
    return {name.replace("_", "-"): value for name, value in found.items() if value is not None}
