"""How errors are printed: on one line, with the option that is to blame.

And the exit status: 1 when something fails, 2 for misuse, 130 after ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import signal
from collections.abc import Iterator
from typing import Final

import click

from trio_chardev.cli.output import OutputError, complain, end_by, printable
from trio_chardev.plain_errors import ChardevError, OptionsError

STATUS_OF_INTERRUPT: Final = 128 + signal.SIGINT
MAX_SHOWN = 200  # characters of an option that are printed


def print_error(error: ChardevError) -> None:
    """Print the text of *error*, and below it its hints."""
    hints = [line for note in getattr(error, "__notes__", ()) for line in note.splitlines()]
    for line in (str(error), *hints):
        complain(f"trio-chardev: {printable(line)}")


def status_of(error: BaseException) -> int:
    """Print what the user should know about *error*, and return the exit status.

    Raises *error* if it is a bug of ours.
    """
    leaves = list(_leaves(error))
    expected = ChardevError | OutputError | click.ClickException | click.Abort | KeyboardInterrupt
    if not all(isinstance(leaf, expected) for leaf in leaves):
        raise error
    for leaf in leaves:
        if isinstance(leaf, OutputError):
            end_by(leaf)
    match leaves[0]:
        case ChardevError() as leaf:
            print_error(leaf)
            return 1
        case click.ClickException() as leaf:
            complain(_usage(leaf))
            return leaf.exit_code
    return STATUS_OF_INTERRUPT


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _usage(error: click.ClickException) -> str:
    """The text that click prints for *error*."""
    shown = io.StringIO()
    error.show(shown)
    return shown.getvalue().rstrip("\n")


@contextlib.contextmanager
def saying(what: str, instead_of: str = "") -> Iterator[None]:
    """Put the option that is to blame, such as ``--chardev TEXT``, in front of errors in the block.

    It replaces *instead_of*, a beginning of the error's text that then says nothing new.
    """
    try:
        yield
    except ChardevError as exc:
        shown = what if len(what) <= MAX_SHOWN else f"{what[:MAX_SHOWN]}..."
        error = OptionsError(f"{shown}: {str(exc).removeprefix(instead_of)}")
        error.__notes__ = getattr(exc, "__notes__", [])
        raise error from exc
