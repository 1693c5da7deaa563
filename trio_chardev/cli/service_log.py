"""The service's log: from Python's logging to a terminal, a file, a pipe or the journal.

It is written by the threads of `trio_chardev.cli.log`, and limited by cause. What else is printed to
standard error, such as a warning of Python's, is part of it, so that each line has its form.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from trio_chardev.cli.errors import saying
from trio_chardev.cli.journal import JournalWriter, check_journal, leads_to_journal
from trio_chardev.cli.log import LineStream, LineWriter
from trio_chardev.cli.rate_limit import TELL_INTERVAL, RateLimit
from trio_chardev.errors import OptionsError
from trio_chardev.service_log.areas import AREAS, Levels
from trio_chardev.service_log.entry import entry_of
from trio_chardev.service_log.formats import Form, format_entry
from trio_chardev.service_log.options import AnyForm, LogOptions

OURS = "trio-chardev: "  # the beginning of lines that are printed as other commands print theirs


class LogHandler(logging.Handler):
    """Passes the lines of the log to a writer. Its own failures are ignored."""

    def __init__(self, limit: RateLimit | None = None) -> None:
        super().__init__()
        self._limit = limit or RateLimit()
        self.writer: LineWriter | None = None
        self.form: Form = "text"

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # wrong arguments for the format, or no memory
            had_left_out = self._limit.has_left_out
            self._put(self._limit.filter(record))
            if self._limit.has_left_out and not had_left_out and self.writer is not None:
                self.writer.wake()

    def tell(self, *, at_end: bool = False) -> float | None:
        """Print reports that are due; return the seconds until the next call, or None."""
        with contextlib.suppress(Exception), self.lock or contextlib.nullcontext():
            self._put(self._limit.take_due(at_end=at_end))
        return TELL_INTERVAL / 2 if self._limit.has_left_out else None

    def put_line(self, line: str) -> None:
        """Put *line*, which was printed rather than logged."""
        text = line.rstrip("\n")
        name = "trio_chardev" if text.startswith(OURS) else "stderr"
        if text:
            self.handle(_record(name, text.removeprefix(OURS).removeprefix("warning: ")))

    def note(self, lines: int, form: Form) -> bytes:
        """What tells in *form* that so many lines were not written."""
        what = "line" if lines == 1 else "lines"
        record = _record("trio_chardev", f"{lines} {what} could not be written", dropped=lines)
        return format_entry(entry_of(record), form)

    def _put(self, records: list[logging.LogRecord]) -> None:
        for record in records:
            if self.writer is not None:
                self.writer.put_data(format_entry(entry_of(record), self.form))


def _record(name: str, text: str, **fields: int) -> logging.LogRecord:
    record = logging.LogRecord(name, logging.WARNING, "", 0, text, None, None)
    record.fields = fields
    return record


class ServiceLog:
    """The log, whose levels and form can be changed while it is written."""

    def __init__(self, stderr: int | None) -> None:
        """*stderr* is a descriptor; without one what is logged is dropped."""
        self.levels = Levels()
        self.handler = LogHandler()
        self._stderr = stderr
        self._lines: LineWriter | None = None
        self._journal: JournalWriter | None = None
        if stderr is not None:
            self._lines = LineWriter(stderr, on_idle=self.handler.tell, note=self._note)

    def apply(self, options: LogOptions) -> None:
        """Log as *options* say from now on. Raises OptionsError, and then nothing has changed."""
        self._use_form(options.form or "auto")
        self.set_levels(options.levels or Levels())

    def set_levels(self, levels: Levels) -> None:
        """Log from these levels on."""
        self.levels = levels
        levels.apply()

    def close(self) -> None:
        """Wait a moment until all is written."""
        self.handler.tell(at_end=True)
        for writer in (self._journal, self._lines):
            if writer is not None:
                writer.close()

    def _use_form(self, wanted: AnyForm) -> None:
        form = self._automatic_form() if wanted == "auto" else wanted
        if form == "journal":
            with saying("log format 'journal'"):
                check_journal()
            self._journal = self._journal or JournalWriter(
                on_idle=self.handler.tell, note=lambda lines: self.handler.note(lines, "journal")
            )
        writer = self._journal if form == "journal" else self._lines
        with self.handler.lock or contextlib.nullcontext():
            self.handler.form, self.handler.writer = form, writer

    def _note(self, lines: int) -> bytes:
        form = self.handler.form
        return self.handler.note(lines, "json" if form == "journal" else form)

    def _automatic_form(self) -> Form:
        if self._stderr is None:
            return "json"
        if os.isatty(self._stderr):
            return "text"
        if leads_to_journal(self._stderr):
            with contextlib.suppress(OptionsError):
                check_journal()
                return "journal"
        return "json"


@contextmanager
def printing_in_background(options: LogOptions) -> Iterator[ServiceLog]:
    """Have threads write what is printed and logged in the block; wait a moment at its end.

    A stream without a descriptor of its own stays as it is. Raises OptionsError.
    """
    with contextlib.ExitStack() as stack:
        errors = _descriptor_of(sys.stderr)
        service_log = ServiceLog(errors)
        stack.callback(service_log.close)
        stack.enter_context(_levels_restored())
        service_log.apply(options)
        if errors is not None:
            stream = _stream(LineStream(service_log.handler.put_line))
            stack.enter_context(contextlib.redirect_stderr(stream))
        output = _descriptor_of(sys.stdout)
        if output is not None:
            writer = LineWriter(output)
            stack.callback(writer.close)
            stack.enter_context(contextlib.redirect_stdout(_stream(LineStream(writer.put))))
        logging.getLogger().addHandler(service_log.handler)
        stack.callback(logging.getLogger().removeHandler, service_log.handler)
        yield service_log


@contextmanager
def _levels_restored() -> Iterator[None]:
    loggers = [logging.getLogger(name) for row in AREAS.values() for name in row.loggers]
    levels = [logger.level for logger in loggers]
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _descriptor_of(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):  # in memory, in a test
        return None


def _stream(stream: LineStream) -> TextIO:
    return stream  # type: ignore[return-value] # it has all methods that are used
