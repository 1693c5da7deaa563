"""What is printed of an error: on one line, with the option that is to blame."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import click

from trio_chardev.errors import ChardevError, OptionsError

MAX_SHOWN = 200  # characters of an option


def print_error(error: ChardevError) -> None:
    """Print what it says, and below it the hints that it has."""
    hints = [line for note in getattr(error, "__notes__", ()) for line in note.splitlines()]
    for line in (str(error), *hints):
        click.echo(f"trio-chardev: {printable(line)}", err=True)


def printable(text: str) -> str:
    """*text* on one line, and without what a terminal would obey."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class LineFormatter(logging.Formatter):
    """Of a log whose messages are one line each, whatever ids and paths clients choose."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return printable(super().formatMessage(record))


@contextlib.contextmanager
def saying(what: str, instead_of: str = "") -> Iterator[None]:
    """Begin the error's line with the option that is to blame, such as ``--chardev TEXT``.

    *instead_of* is a beginning that then has no more to say.
    """
    try:
        yield
    except ChardevError as exc:
        shown = what if len(what) <= MAX_SHOWN else f"{what[:MAX_SHOWN]}..."
        error = OptionsError(f"{shown}: {str(exc).removeprefix(instead_of)}")
        error.__notes__ = getattr(exc, "__notes__", [])
        raise error from exc
