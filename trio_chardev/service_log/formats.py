"""How an entry is written: ``key=value``, JSON, or the fields of systemd's journal.

Each is one line, or one datagram, of a bounded size, and has nothing that a terminal obeys.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final, Literal

from trio_chardev.service_log.areas import LEVELS, level_name
from trio_chardev.service_log.entry import Entry

Form = Literal["text", "json", "journal"]
Format = Callable[[Entry], bytes]

IDENTIFIER: Final = "trio-chardev"
PREFIX: Final = "TRIO_CHARDEV_"
NAMES: Final = {"chardev": "ID"}
"""Fields that the journal has under another name."""
PRIORITIES: Final = dict(zip(LEVELS, (3, 4, 5, 6, 7), strict=True))
"""Those of syslog(3)."""

MAX_SIZE: Final = 1 << 14
"""Bytes of an entry."""
LIMITS: Final = (4096, 512, 64)
"""Characters of a value, or of a traceback the last ones: the first with which the entry is not too large."""


def format_entry(entry: Entry, form: Form) -> bytes:
    """*entry* as *form* has it, with the end of the line."""
    data = b""
    for limit in LIMITS:
        data = FORMATS[form](dict(_members(entry, limit)))
        if len(data) <= MAX_SIZE:
            break
    return data


Members = dict[str, str | int]


def _members(entry: Entry, limit: int) -> Iterator[tuple[str, str | int]]:
    yield "time", _time(entry.time)
    yield "level", level_name(entry.level)
    yield "area", entry.area
    for name, value in entry.fields.items():
        yield name, value if isinstance(value, int) else _shown(value, limit)
    yield "message", _shown(entry.message, limit)
    if entry.subject:
        yield "subject", _shown(entry.subject, limit)
    if entry.traceback:
        yield "traceback", _shown(entry.traceback[-limit:], limit, newlines=True)


def _shown(text: str, limit: int, *, newlines: bool = False) -> str:
    """*text* with what is not printable escaped, and cut."""
    if len(text) > limit:
        text = text[:limit] + "..."
    if text.isprintable():
        return text
    kept = "\n" if newlines else ""
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


def _time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def _text(members: Members) -> bytes:
    """``key=value``, in quotes where that is needed; the message has no subject, and comes last."""
    subject = str(members.pop("subject", ""))
    message = str(members.pop("message")).removeprefix(subject)
    traceback = members.pop("traceback", None)
    words = [f"{name}={_word(value)}" for name, value in members.items()]
    words.append(f"message={json.dumps(message, ensure_ascii=False)}")
    if traceback is not None:
        words.append(f"traceback={json.dumps(traceback, ensure_ascii=False)}")
    return (" ".join(words) + "\n").encode()


def _word(value: str | int) -> str:
    text = str(value)
    is_plain = text and not any(char in " \"'=\\" for char in text)
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _json(members: Members) -> bytes:
    members.pop("subject", None)
    return (json.dumps(members, ensure_ascii=False) + "\n").encode()


def _journal(members: Members) -> bytes:
    """A datagram of systemd's native protocol: ``NAME=value`` lines, or a length and the bytes."""
    del members["time"]  # the journal has one of its own
    members.pop("subject", None)
    fields = {
        "MESSAGE": members.pop("message"),
        "PRIORITY": PRIORITIES[str(members.pop("level"))],
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    for name, value in members.items():
        known = NAMES.get(name, name.upper().replace("-", "_"))  # as the journal wants it
        fields[PREFIX + known] = value
    return b"".join(_field(name, str(value).encode()) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


FORMATS: Final[dict[Form, Callable[[Members], bytes]]] = {
    "text": _text,
    "json": _json,
    "journal": _journal,
}
