"""``trio-chardev history``: what a console has printed, and goes on printing."""

from __future__ import annotations

import base64
from typing import Any

from trio_chardev.cli.asking import Service
from trio_chardev.cli.names import STATS, board_in
from trio_chardev.cli.output import is_terminal, say_bytes, say_json
from trio_chardev.cli.transcript import (
    HISTORY,
    LEAST,
    PIECE,
    WAIT,
    Transcript,
    ask_cursor,
    bounds_in,
    cursor_in,
)
from trio_chardev.protocols.terminal import QueryFilter


def history(
    service: Service,
    name: str,
    *,
    since: str | None,
    most: int | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Print the history of the console *name*, from *since* on, but at most *most* bytes of it.

    With *follow* go on until interrupted. Raises OptionsError, QmpError.
    """
    console = board_in(service.ask_if_known(STATS), name).console_side
    start, end = bounds_in(service.ask(STATS, {"id": console}))
    if since is not None:
        start = cursor_in(service.ask(HISTORY, ask_cursor(console, since)), since)
    if most is not None:
        start = max(start, end - most)
    transcript = Transcript(console, start)
    say_piece = _say_json if as_json else _Printer().say
    while transcript.cursor < end:  # what comes meanwhile is not part of it
        size = min(PIECE, end - transcript.cursor)
        if not say_piece(service, transcript, max_bytes=max(size, LEAST)):
            break
    while follow:
        say_piece(service, transcript, wait=WAIT)


class _Printer:
    """Prints bytes as they are; at a terminal, without what would make it answer."""

    def __init__(self) -> None:
        self._filter = QueryFilter() if is_terminal() else None

    def say(self, service: Service, transcript: Transcript, **how: Any) -> bool:
        """Print the next bytes; were there any?"""
        got = service.execute(HISTORY, transcript.ask("base64", **how))
        data = base64.b64decode(transcript.take(got))
        say_bytes(data if self._filter is None else self._filter.feed(data))
        return bool(data)


def _say_json(service: Service, transcript: Transcript, **how: Any) -> bool:
    """Print the next characters as an object of JSON; were there any?"""
    start, lost = transcript.cursor, transcript.lost
    data = transcript.take(service.execute(HISTORY, transcript.ask("utf8", **how)))
    if data:
        lost = transcript.lost - lost
        shown = {"data": data, "start": start + lost, "next": transcript.cursor, "lost": lost}
        say_json(shown)
    return bool(data)
