"""What the program prints: nothing that a terminal would obey, and no traceback if it can't be.

All that the command line prints goes through `say` or `complain`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn, TextIO

from trio_chardev.errors import strerror


class OutputError(Exception):
    """They: standard output does not take what is printed."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"can't write to standard output: {strerror(cause)}")
        self.is_broken_pipe = isinstance(cause, BrokenPipeError)


def printable(text: str) -> str:
    """*text* on one line, and without what a terminal would obey."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def say(text: str, *, over: bool = False, end: str = "\n") -> None:
    """Print *text*, of one line or several, to standard output. Raises OutputError.

    With *over* it takes the place of what stands in the line of a terminal.
    """
    try:
        _write(sys.stdout, text, "\r\x1b[K" if over else "", end)
    except OSError as exc:
        raise OutputError(exc) from exc


def announce(text: str) -> None:
    """`say`, of a service, which goes on if nobody hears."""
    with contextlib.suppress(OutputError):
        say(text)


def complain(text: str) -> None:
    """Print *text*, of one line or several, to standard error, if that takes it."""
    try:
        _write(sys.stderr, text)
    except OSError:
        _discard(sys.stderr)


def warn(text: str) -> None:
    """Tell of something deprecated."""
    complain(f"trio-chardev: warning: {text}")


def end_by(error: OutputError) -> NoReturn:
    """End the program as others end: without a word by SIGPIPE if nobody reads, else with 1."""
    _discard(sys.stdout)
    if error.is_broken_pipe:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
        sys.exit(128 + signal.SIGPIPE)  # it is blocked
    complain(f"trio-chardev: {error}")
    sys.exit(1)


def _write(stream: TextIO | None, text: str, begin: str = "", end: str = "\n") -> None:
    if stream is None:  # it was closed when the program began
        return
    shown = "\n".join(printable(line) for line in text.split("\n"))
    encoding = getattr(stream, "encoding", None) or "utf-8"  # in which not all of it may be
    shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(f"{begin}{shown}{end}")
    stream.flush()


def _discard(stream: TextIO | None) -> None:
    """Have what *stream* holds back, which Python would write at exit, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        if stream is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
