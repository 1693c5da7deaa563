"""One QMP session, sans-IO: which messages are commands, and which commands are allowed now.

The rules are QEMU's. A session begins with a greeting, in negotiation mode, where only
qmp_capabilities is known. A message is an object of ``execute`` (or ``exec-oob``, once that was
negotiated), ``arguments`` and ``id``. Errors are answered, and never fatal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

import attrs

from trio_chardev.options.qdict import qdict_order
from trio_chardev.qmp.errors import QmpError as QmpError

C = TypeVar("C")
NOTHING: Final = object()  # no id; null is an id

# An id is part of the reply. It may be any value, up to this many values in all ...
MOST_OF_ID: Final = 4096
LONGEST_ID: Final = 64 << 10  # ... and this many characters.


ERROR_CLASSES: Final[Mapping[str, str]] = {
    "GenericError": "Everything else; the text says what.",
    "CommandNotFound": "There is no such command, or not before or after qmp_capabilities.",
    "DeviceNotFound": "There is no such device, or no such instance that `yank` can cut.",
}
"""The classes of errors, which are QEMU's."""


@attrs.frozen
class Request:
    """A command to be run, or the error in its envelope; `reply_id` goes into the reply."""

    name: str
    arguments: dict[str, Any]
    reply_id: Any = NOTHING
    is_oob: bool = False
    error: QmpError | None = None


@attrs.define(repr=False)
class Session:
    """The state of one connection, from greeting to disconnect."""

    is_negotiated: bool = False
    is_oob_enabled: bool = False

    def parse(self, message: object) -> Request:
        """Parse a JSON value; `error` of the request says what is wrong with the envelope."""
        if not isinstance(message, dict):
            return Request("", {}, NOTHING, error=QmpError("QMP input must be a JSON object"))
        reply_id = message.get("id", NOTHING)
        if isinstance(reply_id, (str, list, dict)) and _is_too_long(reply_id):
            return Request("", {}, NOTHING, error=QmpError("QMP input member 'id' is too long"))
        name = message.get("execute")
        arguments = message.get("arguments", {})
        expected = 1 + ("arguments" in message) + ("id" in message)
        if len(message) == expected and isinstance(name, str) and isinstance(arguments, dict):
            return Request(name, arguments, reply_id)
        try:
            return self._parse_with_care(message, reply_id)
        except QmpError as error:
            return Request("", {}, reply_id, error=error)

    def _parse_with_care(self, message: dict[str, Any], reply_id: object) -> Request:
        """Find the error in the envelope that QEMU would report first."""
        name: str | None = None
        is_oob = False
        for member in qdict_order(message):
            value = message[member]
            if member == "execute" or (member == "exec-oob" and self.is_oob_enabled):
                if not isinstance(value, str):
                    raise QmpError(f"QMP input member '{member}' must be a string")
                if name is not None:
                    raise QmpError("QMP input member 'execute' clashes with 'exec-oob'")
                name, is_oob = value, member == "exec-oob"
            elif member == "arguments":
                if not isinstance(value, dict):
                    raise QmpError("QMP input member 'arguments' must be an object")
            elif member != "id":
                raise QmpError(f"QMP input member '{member}' is unexpected")
        if name is None:
            raise QmpError("QMP input lacks member 'execute'")
        return Request(name, message.get("arguments", {}), reply_id, is_oob)

    def check(self, request: Request, known: Mapping[str, C]) -> C:
        """Find the command of *request* in *known*. Raises QmpError if it may not be run now."""
        if request.error is not None:
            raise request.error
        if not self.is_negotiated and request.name != "qmp_capabilities":
            raise QmpError(
                "Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound"
            )
        if request.name not in known:
            raise QmpError(f"The command {request.name} has not been found", "CommandNotFound")
        return known[request.name]

    def negotiate(self, enable: tuple[str, ...]) -> None:
        """Leave negotiation mode (qmp_capabilities). Raises QmpError if it was left before."""
        if self.is_negotiated:
            raise QmpError(
                "Capabilities negotiation is already complete, command ignored", "CommandNotFound"
            )
        self.is_oob_enabled = "oob" in enable
        self.is_negotiated = True


def _is_too_long(id: str | list[Any] | dict[str, Any]) -> bool:
    """Is *id* too large for a reply? Takes a bounded number of steps."""
    values, characters = 0, 0
    to_do: list[Iterable[Any]] = [[id]]
    while to_do and values <= MOST_OF_ID and characters <= LONGEST_ID:
        for value in islice(to_do.pop(), MOST_OF_ID + 1):
            values += 1
            if isinstance(value, str):
                characters += len(value)
            elif isinstance(value, list):
                to_do.append(value)
            elif isinstance(value, dict):
                to_do += value.keys(), value.values()
    return values > MOST_OF_ID or characters > LONGEST_ID
