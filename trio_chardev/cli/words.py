"""The arguments of a QMP command as words on a command line.

    trio-chardev qmp chardev-add id=x backend.type=file backend.data.out=/var/log/board
    trio-chardev qmp chardev-add '{"id": "x"}' 'backend={"type": "null", "data": {}}'

JSON is read as QMP reads it, so strings may have single quotes. Keys and errors are those of QEMU's
dotted keys (``--blockdev driver=file,...``), values are not: there all values are strings, while
here ``size=5`` is a number, unless the server's schema has a string there, and ``size='"5"'`` is
a string.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from trio_chardev.cli.schema import Bare
from trio_chardev.plain_errors import OptionsError
from trio_chardev.qmp.json.codec import Decoder, Malformed, Message


def parse_arguments(words: Iterable[str]) -> dict[str, Any]:
    """Parse *words*, each ``KEY=VALUE``, ``KEY.KEY=VALUE`` or a JSON object, to arguments.

    A value that is valid JSON other than a bare ``null`` is a `Bare`, for `settle`, unless it is
    a string or an object; one that is not is a string. If a key is repeated, objects are merged;
    otherwise the last value counts. Raises OptionsError.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        _merge(arguments, json_object(word) if word.startswith("{") else _key_value(word))
    return arguments


def _key_value(word: str) -> dict[str, Any]:
    path, equals, text = word.partition("=")
    if not equals:
        raise OptionsError(f"Expected '=' after parameter '{path}'")
    keys = path.split(".")
    if not all(keys):
        raise OptionsError(f"Invalid parameter '{path}'")
    value: Any = _value(text)
    for key in reversed(keys):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def _value(text: str) -> Any:
    if text.startswith("{"):  # else a typing error in it would make it a string
        return json_object(text)
    messages = _read(text)
    # A bare null is the name of a backend: no argument of QMP takes JSON's null.
    if len(messages) != 1 or isinstance(messages[0], Malformed | None):
        return text
    value = messages[0]
    return value if isinstance(value, str | dict) else Bare(text, value)


def parse_line(line: str) -> tuple[str, dict[str, Any]] | None:
    """Parse a line of a script: ``COMMAND KEY=VALUE ...`` as a shell splits it, or QMP's JSON.

    An empty line, or one that begins with ``#``, is None. Raises OptionsError.
    """
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    if line.startswith("{"):
        message = json_object(line)
        name, arguments = message.get("execute"), message.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise OptionsError("expected {'execute': COMMAND, 'arguments': {...}}")
        return name, arguments
    try:
        name, *words = shlex.split(line)
    except ValueError as exc:
        raise OptionsError(str(exc)) from exc
    return name, parse_arguments(words)


def json_object(text: str) -> dict[str, Any]:
    """Parse *text*, one object of JSON. Raises OptionsError."""
    messages = _read(text)
    if len(messages) == 1 and isinstance(messages[0], dict):
        return messages[0]
    for message in messages:
        if isinstance(message, Malformed):
            raise OptionsError(message.desc)
    raise OptionsError("JSON parse error, expected one object")


def _read(text: str) -> list[Message]:
    # The newline is for a number outside of braces, which ends only with the byte after it.
    return Decoder().feed(text.encode("utf-8", "surrogatepass") + b"\n")


def _merge(target: dict[str, Any], source: dict[str, Any]) -> None:
    """Merge *source* into *target*; without recursion, as keys may nest deeply."""
    to_do = [("", target, source)]
    while to_do:
        path, old, new = to_do.pop()
        for key, value in new.items():
            if key in old and isinstance(old[key], dict) != isinstance(value, dict):
                raise OptionsError(f"Parameters '{path}{key}.*' used inconsistently")
            if key in old and isinstance(value, dict):
                to_do.append((f"{path}{key}.", old[key], value))
            else:
                old[key] = value
