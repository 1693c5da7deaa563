"""``trio-chardev history``: what a console has printed, and goes on printing."""

from __future__ import annotations

from typing import Any

from trio_chardev.cli.client import Service
from trio_chardev.cli.names import board_of
from trio_chardev.cli.output import is_terminal, say_bytes, say_json
from trio_chardev.cli.transcript import LEAST, PIECE, WAIT, Transcript, bounds_of, cursor_of
from trio_chardev.protocols.terminal import QueryFilter


async def history(
    service: Service,
    name: str,
    *,
    since: str | None,
    most: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print the history of the console *name*, from *since* on, but at most *most* bytes of it.

    With *follow* go on until cancelled. Raises OptionsError, QmpError.
    """
    console = (await board_of(service, name)).console_side
    first, end = await bounds_of(service, console)
    start = first if since is None else await cursor_of(service, console, since)
    if most is not None:
        start = max(start, end - most)
    transcript = Transcript(service, console, start)
    say_piece = _say_json if as_json else _Printer().say
    while transcript.cursor < end:  # what comes meanwhile is not part of it
        size = min(PIECE, end - transcript.cursor)
        if not await say_piece(transcript, max_bytes=max(size, LEAST)):
            break
    while follow:
        await say_piece(transcript, wait=WAIT)


class _Printer:
    """Prints bytes as they are; at a terminal, without what would make it answer."""

    def __init__(self) -> None:
        self._filter = QueryFilter() if is_terminal() else None

    async def say(self, transcript: Transcript, **how: Any) -> bool:
        """Print the next bytes; were there any?"""
        data = await transcript.read(**how)
        say_bytes(data if self._filter is None else self._filter.feed(data))
        return bool(data)


async def _say_json(transcript: Transcript, **how: Any) -> bool:
    """Print the next characters as an object of JSON; were there any?"""
    start, lost = transcript.cursor, transcript.lost
    data = await transcript.read_characters(**how)
    if data:
        lost = transcript.lost - lost
        shown = {"data": data, "start": start + lost, "next": transcript.cursor, "lost": lost}
        say_json(shown)
    return bool(data)
