"""Tables for people, and the words in them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, Final

from trio_chardev.cli.output import is_terminal, printable, say

Row = Sequence[str]

GAP: Final = "  "
CUT: Final = "..."
LEAST: Final = 8  # characters of a column that is cut
_PIECE: Final = re.compile(r"[^ ,]*(?:[ ,]+|$)")
_PLACES: Final = ("device", "path", "out", "chardev")  # members that say where a backend is


def say_table(rows: Sequence[Row]) -> None:
    """Print *rows*, the header first; on a terminal cut to its width. Raises OutputError."""
    for line in lines(rows, terminal_width()):
        say(line)


def terminal_width() -> int | None:
    """How many columns standard output has, if it is a terminal."""
    if not is_terminal():
        return None
    import shutil  # which imports five ways to compress

    return shutil.get_terminal_size().columns


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
            return filename.removeprefix("disconnected:").removesuffix(",server=on")
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
    widths = [max(map(width_of, column)) for column in zip(*shown, strict=True)]
    while width is not None and sum(widths) + len(GAP) * (len(widths) - 1) > width:
        if (widest := max(widths)) <= LEAST:
            break
        widths[widths.index(widest)] -= 1
    for row in shown:
        cells = [padded(shorten(cell, room), room) for cell, room in zip(row, widths, strict=True)]
        yield GAP.join(cells).rstrip()


def width_of(text: str) -> int:
    """How many columns of a terminal *text* takes, which has no control characters."""
    return len(text) if text.isascii() else sum(map(_width_of_char, text))


def _width_of_char(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def padded(text: str, room: int) -> str:
    """Put spaces behind *text*, up to *room* columns."""
    return text + " " * (room - width_of(text))


def shorten(text: str, room: int) -> str:
    """Cut *text* in the middle if it takes more than *room* columns."""
    if width_of(text) <= room:
        return text
    end = (room - len(CUT)) // 2
    return f"{_beginning(text, room - len(CUT) - end)}{CUT}{_beginning(text[::-1], end)[::-1]}"


def shortened_end(text: str, room: int) -> str:
    """Cut the end of *text* off if it takes more than *room* columns."""
    if width_of(text) <= room:
        return text
    return f"{_beginning(text, room - len(CUT))}{CUT}"


def wrapped(text: str, room: int | None) -> Iterator[str]:
    """Break *text* into lines of *room* columns, behind spaces and commas where it has some."""
    line = ""
    for piece in _PIECE.findall(text):
        if room is not None and width_of(line + piece.rstrip()) > room:
            if line:
                yield line
            line = ""
        line += piece
        while room is not None and width_of(line.rstrip()) > room:
            begin = _beginning(line, room)
            yield begin
            line = line[len(begin) :]
    yield line


def _beginning(text: str, room: int) -> str:
    """As much of *text* as *room* columns hold."""
    taken = 0
    for at, char in enumerate(text):
        taken += _width_of_char(char)
        if taken > room:
            return text[:at]
    return text


def amount(number: float) -> str:
    """*number* in four characters or fewer, such as ``1.2k`` or ``34M``."""
    for unit in ("", "k", "M", "G", "T"):
        if number < 9.95 and unit:
            return f"{number:.1f}{unit}"
        if number < 999.5 or unit == "T":
            return f"{number:.0f}{unit}"
        number /= 1000
    raise AssertionError("the last unit returns")
