"""Tables for people, and the words in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from typing import Any, Final

from trio_chardev.cli.output import is_terminal, printable, say

Row = Sequence[str]

GAP: Final = "  "
CUT: Final = "..."
LEAST: Final = 8  # characters of a column that is cut
_PLACES: Final = ("device", "path", "out", "chardev")  # members that say where a backend is


def say_table(rows: Sequence[Row]) -> None:
    """Print *rows*, the header first; on a terminal cut to its width. Raises OutputError."""
    width = shutil.get_terminal_size().columns if is_terminal() else None
    for line in lines(rows, width):
        say(line)


def duration(seconds: float) -> str:
    """*seconds* in the largest unit that fits, such as ``40 s`` or ``3 h``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


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
