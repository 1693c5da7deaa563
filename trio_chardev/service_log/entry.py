"""An entry of the service's log: what a record of Python's logging says, with fields.

A format string names its fields: where it has ``chardev '%s'``, the value is the field ``chardev``, and so
for the other `WORDS`. So text and fields can't differ, and what clients choose can't make a field. A label that
begins the line, ``%s: ``, counts as if it stood there. Other fields are given as
``extra={"fields": {...}}``.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping
from typing import Final

import attrs

from trio_chardev.service_log.areas import area_of

Fields = Mapping[str, str | int]

WORDS: Final = {
    "chardev": "chardev",
    "console": "chardev",
    "device": "device",
    "listener": "device",
    "client": "client",
    "monitor": "monitor",
    "QMP client": "monitor",
    "QMP at": "monitor",
    "QMP": "monitor",
}
"""What a format string calls something -> the field with its id."""

_WORD: Final = "|".join(sorted(WORDS, key=len, reverse=True))
_PLACES: Final = re.compile(rf"(?:\b(?P<word>{_WORD}) '?)?%(?P<kind>[^%\w]*[\w%])")
_LABEL: Final = re.compile(rf"(?P<word>{_WORD}) '(?P<id>.*)'", re.DOTALL)


@attrs.frozen
class Entry:
    """One line of the log."""

    time: float
    """In seconds since 1970."""
    level: int
    area: str
    message: str
    fields: Fields = attrs.field(factory=dict)
    subject: str = ""
    """The beginning of the message, such as ``chardev 'board': ``, if a field says the same."""
    traceback: str = ""


def entry_of(record: logging.LogRecord) -> Entry:
    """Make the entry that *record* is."""
    message = record.getMessage()
    fields: dict[str, str | int] = {}
    subject = ""
    if isinstance(record.args, tuple) and isinstance(record.msg, str):
        for word, index in _named(record.msg):
            if index < len(record.args):
                value = record.args[index]
                fields.setdefault(WORDS[word], value if isinstance(value, int) else str(value))
        label = _LABEL.fullmatch(str(record.args[0])) if record.msg.startswith("%s: ") else None
        if label is not None:
            fields.setdefault(WORDS[label["word"]], label["id"])
            subject = f"{record.args[0]}: "
        elif fields:
            word, index = _named(record.msg)[0]
            subject = f"{word} '{record.args[index]}': "
    fields |= getattr(record, "fields", {})
    return Entry(
        time=record.created,
        level=record.levelno,
        area=area_of(record.name),
        message=message,
        fields=fields,
        subject=subject if message.startswith(subject) else "",
        traceback=_traceback(record),
    )


@functools.lru_cache(1000)  # format strings are literals, but other packages may think otherwise
def _named(template: str) -> tuple[tuple[str, int], ...]:
    """The words of *template* that name fields, and which argument each has."""
    places = [place for place in _PLACES.finditer(template) if place["kind"] != "%"]
    return tuple((place["word"], n) for n, place in enumerate(places) if place["word"])


_FORMATTER: Final = logging.Formatter()


def _traceback(record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[0] is not None:
        return _FORMATTER.formatException(record.exc_info)
    return ""
