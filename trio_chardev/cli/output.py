"""Printing: no control characters for the terminal, and no traceback if it fails.

All output of the command line goes through `say` or `complain`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any, NoReturn, TextIO

from trio_chardev.plain_errors import strerror


class OutputError(Exception):
    """They: standard output can't be written to."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"can't write to standard output: {strerror(cause)}")
        self.is_broken_pipe = isinstance(cause, BrokenPipeError)


def printable(text: str) -> str:
    """*text* on one line, with control characters escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def say(text: str, *, over: bool = False, end: str = "\n") -> None:
    """Print *text*, of one line or several, to standard output. Raises OutputError.

    With *over* it replaces the current line of a terminal.
    """
    try:
        _write(sys.stdout, text, "\r\x1b[K" if over else "", end)
    except OSError as exc:
        raise OutputError(exc) from exc


def say_json(value: Any) -> None:
    """Print *value* as JSON: indented on a terminal, else in one line. Raises OutputError."""
    text = json.dumps(value, indent=4 if is_terminal() else None)
    say(text.replace("\x7f", r"\u007f"))  # JSON need not escape DEL, but terminals obey it


def is_terminal() -> bool:
    """Is standard output a terminal?"""
    return sys.stdout is not None and sys.stdout.isatty()


def say_bytes(data: bytes) -> None:
    """Write *data*, which a device has sent, as it is to standard output. Raises OutputError."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as exc:
        raise OutputError(exc) from exc


def announce(text: str) -> None:
    """Do as `say`, for a service, which goes on if printing fails."""
    with contextlib.suppress(OutputError):
        say(text)


def complain(text: str) -> None:
    """Print *text*, of one line or several, to standard error, ignoring failure."""
    try:
        _write(sys.stderr, text)
    except OSError:
        _discard(sys.stderr)


def warn(text: str) -> None:
    """Print a warning, about something deprecated."""
    complain(f"trio-chardev: warning: {text}")


def end_by(error: OutputError) -> NoReturn:
    """End the program as others end: silently by SIGPIPE if nobody reads, else with status 1."""
    _discard(sys.stdout)
    if error.is_broken_pipe:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        sys.exit(128 + signal.SIGPIPE)  # the signal is blocked
    complain(f"trio-chardev: {error}")
    sys.exit(1)


def _write(stream: TextIO | None, text: str, begin: str = "", end: str = "\n") -> None:
    if stream is None:  # the descriptor was closed when the program began
        return
    shown = "\n".join(printable(line) for line in text.split("\n"))
    encoding = getattr(stream, "encoding", None) or "utf-8"  # which may lack some characters
    shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(f"{begin}{shown}{end}")
    stream.flush()


def _discard(stream: TextIO | None) -> None:
    """Discard what *stream* has buffered: Python would try to write it at exit."""
    with contextlib.suppress(OSError, ValueError):
        if stream is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
