"""The screen of ``trio-chardev top``: what is shown, and what the keys do; without I/O."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Iterator
from typing import Final

import attrs

from trio_chardev.cli.output import printable
from trio_chardev.cli.table import padded, shorten, shortened_end
from trio_chardev.cli.top_rows import HEADER, SORTS, Row, blocks, in_order, with_rates
from trio_chardev.events import UNKNOWN_SIZE, WindowSize

ENTER: Final = b"\x1b[?1049h\x1b[?25l"  # another screen, without a cursor
LEAVE: Final = b"\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST: Final = "\x1b[J"
_REVERSE: Final = "\x1b[7m"
_PLAIN: Final = "\x1b[0m"
_COLOURS: Final = {"failed": "\x1b[31m", "waiting": "\x1b[33m", "lent": "\x1b[36m"}
KEYS: Final = "q leave, s sort, r reverse, space/b page"
FRAME: Final = 4  # lines that are no rows
USUAL: Final = WindowSize(80, 24)


class Key(enum.Enum):
    """What a key does."""

    LEAVE = b"qQ\x03\x04"
    """ctrl-C and ctrl-D, too."""
    NEXT_SORT = b"s>"
    LAST_SORT = b"S<"
    REVERSE = b"rR"
    NEXT_PAGE = b" n"
    LAST_PAGE = b"bp"


_KEYS: Final = {code: key for key in Key for code in key.value}


@attrs.define(kw_only=True)
class Screen:
    """The screen of one run."""

    where: str
    """The name of the service's address."""
    sort: str = "name"
    is_reversed: bool = False
    size: WindowSize = UNKNOWN_SIZE
    trouble: str | None = None
    """Why nothing new is known."""
    rows: list[Row] = attrs.Factory(list)
    _taken_at: float | None = None
    _first: int = 0
    """The row that is shown first."""
    _end: int = 0
    """Behind the last."""

    def take(self, rows: list[Row], now: float) -> None:
        """Note *rows*, as they are at *now* of some clock."""
        seconds = 0.0 if self._taken_at is None else now - self._taken_at
        self.rows, self._taken_at, self.trouble = with_rates(rows, self.rows, seconds), now, None

    def press(self, code: int) -> Key | None:
        """Do what the key with this *code* does, and return that."""
        key = _KEYS.get(code)
        if key in (Key.NEXT_SORT, Key.LAST_SORT):
            names = list(SORTS)
            step = 1 if key is Key.NEXT_SORT else -1
            self.sort = names[(names.index(self.sort) + step) % len(names)]
            self._first = 0
        elif key is Key.REVERSE:
            self.is_reversed = not self.is_reversed
            self._first = 0
        elif key is Key.NEXT_PAGE and self._end < len(self.rows):
            self._first = self._end
        elif key is Key.LAST_PAGE:
            self._first = max(0, self._first - max(1, self._end - self._first))
        return key

    def draw(self, now: float) -> bytes:
        """What makes a terminal show it; *now* is the time since 1970."""
        size = self.size if self.size.is_known else USUAL
        shown = list(self._lines(now, size))[: size.rows]
        text = f"{_REST_OF_LINE}\r\n".join(shown)
        return f"{_HOME}{text}{_REST_OF_LINE}{_REST}".encode(errors="replace")

    def _lines(self, now: float, size: WindowSize) -> Iterator[str]:
        yield shorten(self._summary(now), size.cols)
        yield shortened_end(printable(self.trouble), size.cols) if self.trouble else ""
        ordered = in_order(self.rows, self.sort, self.is_reversed)
        (head,), *rows = blocks(ordered, HEADER, now, size.cols)
        yield f"{_REVERSE}{padded(shortened_end(head, size.cols), size.cols)}{_PLAIN}"
        self._first = min(self._first, max(0, len(rows) - 1))
        self._end = self._first
        room = size.rows - FRAME
        for row, block in zip(ordered[self._first :], rows[self._first :], strict=True):
            if (room := room - len(block)) < 0:
                break
            self._end += 1
            for line in block:
                yield _coloured(row, shortened_end(line, size.cols))
        yield shortened_end(self._keys(), size.cols)

    def _keys(self) -> str:
        left = len(self.rows) - self._end
        more = f"{left} more below, " if left else ""
        turned = ", reversed" if self.is_reversed else ""
        return f"{more}by {self.sort}{turned} - {KEYS}"

    def _summary(self, now: float) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(now))
        clients = sum(row.clients or 0 for row in self.rows)
        open_ = sum(row.state == "open" for row in self.rows)
        counts = f"{len(self.rows)} shown, {open_} open, {clients} clients"
        return printable(f"{clock}  {counts}  {self.where}")


def _coloured(row: Row, line: str) -> str:
    colour = _COLOURS.get(row.state)
    if colour is None or os.environ.get("NO_COLOR"):
        return line
    return f"{colour}{line}{_PLAIN}"
