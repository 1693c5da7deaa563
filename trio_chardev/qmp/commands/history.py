"""QMP commands about the history of consoles, and the marks in it."""

from __future__ import annotations

import base64
from typing import Any, Literal

import attrs
import trio

from trio_chardev.backends.console.history import MAX_CHARACTER, Excerpt, History
from trio_chardev.errors import OptionsError
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.console import console_at
from trio_chardev.qmp.commands.context import Command, Context, IdArguments
from trio_chardev.qmp.json.utf8 import decode_replacing

MAX_READ = 1 << 20
"""Bytes that one chardev-history returns at most."""
MAX_WAIT = 600.0  # seconds


@attrs.frozen(kw_only=True)
class MarkArguments:
    """Arguments of chardev-mark."""

    id: str
    name: str


@attrs.frozen(kw_only=True)
class HistoryArguments:
    """Arguments of chardev-history."""

    id: str
    start: int | None = None
    """The cursor to begin at; a negative one counts from the end. The default is the oldest byte."""
    since: str | None = None
    """The mark to begin at, instead of `start`."""
    max: int = 65536
    """Bytes to return at most, up to 1048576."""
    format: Literal["utf8", "base64"] = "utf8"
    wait: float = 0.0
    """Seconds to wait for something, if there is nothing yet."""


@attrs.frozen
class HistoryReturn:
    """Some of a history."""

    data: str
    """The bytes, in the format that was asked for."""
    start: int
    """The cursor of the first of them; later than what was asked for, if that is gone."""
    next: int
    """The cursor behind the last of them, where to go on."""
    lost: int
    """How many bytes that were asked for are gone."""


@attrs.frozen
class MarkReturn:
    """A place in a history."""

    cursor: int


@attrs.frozen
class MarkInfo:
    """A mark."""

    name: str
    cursor: int


async def chardev_history(context: Context, arguments: HistoryArguments) -> dict[str, Any]:
    """Read without taking. With *wait*, the client's later commands wait as long."""
    least = MAX_CHARACTER if arguments.format == "utf8" else 1
    if not least <= arguments.max <= MAX_READ:
        raise OptionsError(f"'max' must be from {least} to {MAX_READ}")
    if not (0 <= arguments.wait <= MAX_WAIT):
        raise OptionsError(f"'wait' must be from 0 to {MAX_WAIT:g} seconds")
    console = console_at(context, arguments.id)
    start = _start(console.history, arguments)
    excerpt = _read(console.history, start, arguments)
    with trio.move_on_after(arguments.wait):
        while not excerpt.data and arguments.wait:
            await console.history.wait_grown()
            console = console_at(context, arguments.id)  # it may be another, or gone
            excerpt = _read(console.history, excerpt.next, arguments)
    if arguments.format == "base64":
        text = base64.b64encode(excerpt.data).decode()
    else:
        text = decode_replacing(excerpt.data)
    result: dict[str, Any] = unstructure(
        HistoryReturn(text, excerpt.start, excerpt.next, excerpt.lost)
    )
    return result


def _start(history: History, arguments: HistoryArguments) -> int:
    if arguments.since is not None:
        if arguments.start is not None:
            raise OptionsError("'start' and 'since' are mutually exclusive")
        return history.cursor_of(arguments.since)
    return history.start if arguments.start is None else arguments.start


def _read(history: History, start: int, arguments: HistoryArguments) -> Excerpt:
    return history.read(start, arguments.max, whole=arguments.format == "utf8")


def chardev_mark(context: Context, arguments: MarkArguments) -> dict[str, Any]:
    """Give a place in a console's history a name."""
    return {"cursor": console_at(context, arguments.id).crowd.mark(arguments.name)}


def query_marks(context: Context, arguments: IdArguments) -> list[dict[str, Any]]:
    """List the marks of a console."""
    marks = console_at(context, arguments.id).history.marks
    return [unstructure(MarkInfo(name, cursor)) for name, cursor in marks.items()]


HISTORY_COMMANDS: dict[str, Command] = {
    "chardev-history": Command(HistoryArguments, chardev_history, HistoryReturn),
    "chardev-mark": Command(MarkArguments, chardev_mark, MarkReturn),
    "query-marks": Command(IdArguments, query_marks, tuple[MarkInfo, ...]),
}
"""The rows of this module."""
