"""``trio-chardev expect``: wait for a pattern in what a console prints."""

from __future__ import annotations

import base64
import re
from typing import Any

from trio_chardev.cli.client import Service
from trio_chardev.cli.names import STATS, board_in
from trio_chardev.cli.output import is_terminal, say_bytes, say_json
from trio_chardev.cli.transcript import (
    HISTORY,
    PIECE,
    WAIT,
    Transcript,
    ask_cursor,
    bounds_in,
    cursor_in,
)
from trio_chardev.core.expect import expect
from trio_chardev.errors import BackendError, ExpectError, ExpectTimeoutError
from trio_chardev.protocols.terminal import QueryFilter


async def wait_for(
    service: Service,
    name: str,
    pattern: re.Pattern[bytes],
    *,
    timeout: float,
    since: str | None,
    as_json: bool,
) -> None:
    """Wait until *pattern* has come at the console *name*, from now on or from *since* on.

    Prints what came, up to its end. Raises BackendError if it has not come; then all is printed.
    """
    console = board_in(await service.ask_if_known(STATS), name).console_side
    if since is None:
        _, start = bounds_in(await service.ask(STATS, {"id": console}))
    else:
        start = cursor_in(await service.ask(HISTORY, ask_cursor(console, since)), since)
    transcript = Transcript(console, start)
    came = bytearray()
    rest = bytearray()

    async def receive(max_bytes: int) -> bytes:
        data = b""
        while not data:
            ask = transcript.ask("base64", wait=WAIT, max_bytes=min(max_bytes, PIECE))
            data = base64.b64decode(transcript.take(await service.execute(HISTORY, ask)))
        came.extend(data)
        return data

    failure = found = None
    try:
        found = await expect(pattern, timeout, receive, rest.extend)
    except ExpectTimeoutError:
        failure = f"no {_shown(pattern)} within {timeout:g} seconds"
    except ExpectError:
        failure = f"no {_shown(pattern)} in {len(came)} bytes"
    if found is not None:
        del came[len(came) - len(rest) :]
    if as_json:
        say_json(_result(found and found.match, bytes(came), transcript, len(rest)))
    else:
        _say(bytes(came))
    if failure is not None:
        raise BackendError(failure)


def _result(
    match: re.Match[bytes] | None, came: bytes, transcript: Transcript, rest: int
) -> dict[str, Any]:
    end = transcript.cursor - (0 if match is None else rest)
    result: dict[str, Any] = {"found": match is not None, "data": _text(came), "next": end}
    if match is not None:
        groups = [None if group is None else _text(group) for group in match.groups()]
        result |= {"match": _text(match[0]), "groups": groups}
    return result


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _shown(pattern: re.Pattern[bytes]) -> str:
    return f"'{_text(pattern.pattern)}'"


def _say(came: bytes) -> None:
    """Print what came; at a terminal, without what would make it answer, and in whole lines."""
    if is_terminal():
        came = QueryFilter().feed(came)
        came += b"" if not came or came.endswith(b"\n") else b"\r\n"
    say_bytes(came)
