"""What a client of QMP sends and gets, without I/O: also for clients without an event loop."""

from __future__ import annotations

from typing import Any, Final

import attrs

from trio_chardev.plain_errors import OptionsError
from trio_chardev.qmp.errors import QmpConnectionError, QmpError
from trio_chardev.qmp.json.codec import Decoder, Malformed, encode

# QEMU stops reading when eight commands are in its queue, which would block exec-oob too.
MAX_IN_FLIGHT: Final = 7


@attrs.frozen
class QmpEvent:
    """An event: what a server sends unasked."""

    name: str
    data: dict[str, Any]
    timestamp: float
    """Seconds since the epoch, by the server's clock."""


@attrs.frozen
class Reply:
    """What a command has returned, or its error."""

    has_id: bool
    """An error for a command that the server could not parse has none."""
    id: Any
    value: Any = None
    error: QmpError | None = None


def wire_of(id: int, command: str, arguments: dict[str, Any], *, is_oob: bool = False) -> bytes:
    """Return a command as it is sent.

    Raises OptionsError if the server could not read it, TypeError if JSON can't express it.
    """
    message: dict[str, Any] = {"exec-oob" if is_oob else "execute": command, "id": id}
    if arguments:
        message["arguments"] = arguments
    wire = encode(message)
    for read_back in Decoder().feed(wire):  # infinity, for example, is not JSON
        if isinstance(read_back, Malformed):
            raise OptionsError(f"The command can't be sent: {read_back.desc}")
    return wire


def greeting_in(message: object, peer: str) -> dict[str, Any]:
    """Return the greeting that the first *message* of *peer* is. Raises QmpConnectionError."""
    match message:
        case {"QMP": {"capabilities": [*_]} as greeting}:
            return dict(greeting)
    raise QmpConnectionError(f"{peer} sent no greeting: it speaks another protocol")


def meaning_of(message: object, peer: str, *, was_answered: bool) -> QmpEvent | Reply | None:
    """Return what a later *message* of *peer* is; None if it is to be ignored.

    *was_answered* says whether a reply has come. Raises QmpConnectionError if it is not QMP.
    """
    if not isinstance(message, dict):
        what = message.desc if isinstance(message, Malformed) else "it is no JSON object"
        raise QmpConnectionError(f"{peer} sent what is not QMP: {_one_line(what)}")
    match {"data": {}, **message}:
        case {
            "event": str(name),
            "timestamp": {"seconds": int(seconds), "microseconds": int(microseconds)},
            "data": dict(data),
        }:
            return QmpEvent(name, data, seconds + microseconds / 1e6)
        case {"return": value}:
            return Reply("id" in message, message.get("id"), value)
        case {"error": {"class": str(error_class), "desc": str(desc)}}:
            error = QmpError(_one_line(desc), error_class)
            return Reply("id" in message, message.get("id"), None, error)
        case {"QMP": _} if not was_answered:
            return None  # QEMU greets a client twice that connects before its monitor is ready
    raise QmpConnectionError(f"{peer} sent what is not QMP: it is no event and no reply")


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())
