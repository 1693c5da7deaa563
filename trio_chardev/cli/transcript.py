"""What a console has printed, read by cursor: each byte once, from whichever program."""

from __future__ import annotations

import base64
import re
from typing import Any, Final

import attrs

from trio_chardev.cli.client import Service
from trio_chardev.cli.output import complain, printable

PIECE: Final = 1 << 18  # bytes at once
LEAST: Final = 4  # bytes, of a character
WAIT: Final = 30.0  # seconds for which the service waits for more, before it is asked again
_CURSOR = re.compile(r"-?[0-9]+", re.ASCII)


@attrs.define
class Transcript:
    """The output of a console, from `cursor` on."""

    service: Service
    console: str
    cursor: int
    """Of the byte that is read next."""
    lost: int = 0
    """How many bytes were gone before they could be read."""

    async def read(self, *, wait: float = 0.0, max_bytes: int = PIECE) -> bytes:
        """Read some; ``b""`` if there is nothing, within *wait* seconds.

        What is gone is skipped, and counted. Raises QmpError, QmpConnectionError. When cancelled,
        nothing is taken.
        """
        return base64.b64decode(await self._read("base64", wait, max_bytes))

    async def read_characters(self, *, wait: float = 0.0, max_bytes: int = PIECE) -> str:
        """Do as `read`, without cutting a character in two."""
        return await self._read("utf8", wait, max_bytes)

    async def _read(self, form: str, wait: float, max_bytes: int) -> str:
        arguments = {
            "id": self.console,
            "start": self.cursor,
            "max": max_bytes,
            "format": form,
            "wait": wait,
        }
        got = await self.service.execute("chardev-history", arguments)
        self.cursor = got["next"]
        if got["lost"]:
            self.lost += got["lost"]
            complain(printable(f"trio-chardev: {got['lost']} bytes of '{self.console}' are gone"))
        return str(got["data"])


async def bounds_of(service: Service, console: str) -> tuple[int, int]:
    """The cursors of the oldest byte, and behind the newest. Raises QmpError."""
    stats = await service.ask("query-chardev-stats", {"id": console})
    (row,) = stats["consoles"]
    return row["start"], row["end"]


async def cursor_of(service: Service, console: str, since: str) -> int:
    """The cursor that *since* says: a number, one from the end if negative; or a mark's name.

    Raises QmpError if there is no such mark, or if nothing was printed so far.
    """
    ask: dict[str, Any] = {"id": console, "max": 1, "format": "base64"}
    if not _CURSOR.fullmatch(since):
        got = await service.ask("chardev-history", {**ask, "since": since})
        return int(got["start"] - got["lost"])
    start = int(since)
    got = await service.ask("chardev-history", {**ask, "start": start})
    return start if start >= 0 else int(got["start"])
