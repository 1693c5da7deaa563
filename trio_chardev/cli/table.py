"""``trio-chardev list``: the chardevs as a table."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from trio_chardev.backends.socket.addresses import SocketAddress
from trio_chardev.cli.output import printable, say
from trio_chardev.cli.qmp import ask, connected
from trio_chardev.qmp.client.client import QmpError

Row = Sequence[str]

GAP: Final = "  "
CUT: Final = "..."
LEAST: Final = 8  # characters of a column that is cut
_PLACES: Final = ("device", "path", "out", "chardev")  # members that say where a backend is


async def list_chardevs(address: SocketAddress) -> None:
    """Print a table of the chardevs; a smaller one for QEMU, which tells less."""
    async with connected(address) as qmp:
        try:
            chardevs = await ask(qmp, "query-chardev-details", address)
            stats = await ask(qmp, "query-chardev-stats", address)
            by_id = {row["id"]: row for row in stats["chardevs"]}
            rows = [row_of(chardev, by_id.get(chardev["label"])) for chardev in chardevs]
            rows.insert(0, ("ID", "KIND", "AT", "PEER", "USER"))
        except QmpError:
            chardevs = await ask(qmp, "query-chardev", address)
            rows = [(row["label"], row["filename"], is_open(row)) for row in chardevs]
            rows.insert(0, ("ID", "FILENAME", "FRONTEND"))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines(rows, width):
        say(line)


def is_open(row: dict[str, Any]) -> str:
    """The state in a row of query-chardev."""
    return "open" if row["frontend-open"] else "closed"


def row_of(chardev: dict[str, Any], stats: dict[str, Any] | None = None) -> Row:
    """Make a row of the table from one of query-chardev-details and one of query-chardev-stats."""
    kind, data = chardev["backend"]["type"], chardev["backend"]["data"]
    words = [kind]
    if "tls-creds" in data:
        words.append("tls")
    words += [word for word in ("websocket", "telnet", "tn3270") if data.get(word)]
    peer = ("open" if chardev["open"] else "closed") if stats is None else stats["state"]
    if stats is not None and "next-try" in stats:
        peer += f" {math.ceil(stats['next-try'])} s"
    if chardev["others-wait"]:
        peer += ", more wait"
    user = ",".join(chardev["users"]) or ("yes" if chardev["is-used"] else "-")
    return chardev["label"], "+".join(words), place_of(kind, data, chardev["filename"]), peer, user


def place_of(kind: str, data: dict[str, Any], filename: str) -> str:
    """Return where the backend is: a device, a path, an address."""
    match kind:
        case "socket":
            return filename.removeprefix("disconnected:")
        case "pty":
            terminal = filename.removeprefix("pty:")
            return f"{data['path']} -> {terminal}" if "path" in data else terminal
        case "udp":
            return "{host}:{port}".format(**data["remote"]["data"])
        case "hub":
            return ",".join(data["chardevs"])
        case "file" if "in" in data:
            return f"{data['out']}, input {data['in']}"
    place = next((str(data[name]) for name in _PLACES if name in data), None)
    if place is not None:
        return place
    return filename if filename != kind else "-"


def lines(rows: Sequence[Row], width: int | None) -> Iterator[str]:
    """Format the table; no line is longer than *width*, if possible."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    while width is not None and sum(widths) + len(GAP) * (len(widths) - 1) > width:
        if (widest := max(widths)) <= LEAST:
            break
        widths[widths.index(widest)] -= 1
    for row in shown:
        cells = [f"{shorten(cell, room):{room}}" for cell, room in zip(row, widths, strict=True)]
        yield GAP.join(cells).rstrip()


def shorten(text: str, room: int) -> str:
    """Cut *text* in the middle if it is longer than *room*."""
    if len(text) <= room:
        return text
    end = (room - len(CUT)) // 2
    return f"{text[: room - len(CUT) - end]}{CUT}{text[len(text) - end :]}"
