"""What a console has printed, read by cursor: each byte once, from whichever program; without I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from trio_chardev.cli.output import complain, printable

HISTORY: Final = "chardev-history"
"""The command that is asked."""
PIECE: Final = 1 << 18  # bytes at once
LEAST: Final = 4  # bytes, of a character
WAIT: Final = 30.0  # seconds for which the service waits for more, before it is asked again
_CURSOR = re.compile(r"-?[0-9]+", re.ASCII)


@attrs.define
class Transcript:
    """The output of a console, from `cursor` on."""

    console: str
    cursor: int
    """Of the byte that is read next."""
    lost: int = 0
    """How many bytes were gone before they could be read."""

    def ask(self, form: str, *, wait: float = 0.0, max_bytes: int = PIECE) -> dict[str, Any]:
        """What to ask for the next bytes; the answer is empty if none come within *wait* seconds.

        *form* is base64 or utf8, which cuts no character in two.
        """
        return {
            "id": self.console,
            "start": self.cursor,
            "max": max_bytes,
            "format": form,
            "wait": wait,
        }

    def take(self, got: Mapping[str, Any]) -> str:
        """Go on behind the answer *got*, and return its data. What is gone is told and counted."""
        self.cursor = got["next"]
        if got["lost"]:
            self.lost += got["lost"]
            complain(printable(f"trio-chardev: {got['lost']} bytes of '{self.console}' are gone"))
        return str(got["data"])


def bounds_in(stats: Mapping[str, Any]) -> tuple[int, int]:
    """The cursors of a console's oldest byte, and behind the newest, in its query-chardev-stats."""
    (row,) = stats["consoles"]
    return row["start"], row["end"]


def ask_cursor(console: str, since: str) -> dict[str, Any]:
    """What to ask for the cursor that *since* says.

    It is a number, one from the end if negative; or a mark's name. The answer is an error if there
    is no such mark, or if nothing was printed so far.
    """
    ask = {"id": console, "max": 1, "format": "base64"}
    return {**ask, "start": int(since)} if _CURSOR.fullmatch(since) else {**ask, "since": since}


def cursor_in(got: Mapping[str, Any], since: str) -> int:
    """The cursor that *since* says, in the answer to that."""
    if not _CURSOR.fullmatch(since):
        return int(got["start"] - got["lost"])
    return int(since) if int(since) >= 0 else int(got["start"])
