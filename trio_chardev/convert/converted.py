"""What a conversion gives: consoles and objects, as TOML, and what was left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from trio_chardev.errors import OptionsError

Value: TypeAlias = "str | int | bool | Sequence[str] | Mapping[str, str | int | bool]"

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_NOT_IN_IDS: Final = re.compile(r"[^A-Za-z0-9._-]+")


class MissingError(OptionsError):
    """You: a file that was named, or that another includes, does not exist."""


class UnconvertibleError(Exception):
    """There is nothing like it here; the text says why."""


@attrs.frozen
class Place:
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@attrs.define
class Device:
    """A chardev for a device: its kind and options."""

    kind: str
    options: dict[str, str | int | bool]

    def __str__(self) -> str:
        return as_option(self.kind, self.options)


@attrs.define
class Console:
    """A ``[console.NAME]``."""

    place: Place
    device: Device
    listen: list[str] = attrs.Factory(list)
    values: dict[str, str | int | bool] = attrs.Factory(dict)
    log: dict[str, str | int | bool] = attrs.Factory(dict)

    def rows(self) -> Iterator[tuple[str, Value]]:
        """Its keys and values, without those that would be empty."""
        yield "device", str(self.device)
        if self.listen:
            yield "listen", self.listen
        yield from self.values.items()
        if self.log:
            yield "log", self.log


@attrs.define
class Converted:
    """The configuration that is made, and what could not be converted."""

    consoles: dict[str, Console] = attrs.Factory(dict)
    objects: dict[str, dict[str, str | bool]] = attrs.Factory(dict)
    _left_out: dict[tuple[Place, str], None] = attrs.Factory(dict)

    def leave_out(self, place: Place, text: str) -> None:
        """Note what could not be converted, or not quite, and why."""
        self._left_out[place, text] = None

    @property
    def left_out(self) -> list[str]:
        """A line for each, with file and line number, in the order of lines."""
        files = list(dict.fromkeys(place.file for place, _ in self._left_out))
        found = sorted(self._left_out, key=lambda each: (files.index(each[0].file), each[0].line))
        return [f"{place}: {text}" for place, text in found]

    def new_name(self, wanted: str, place: Place) -> str:
        """An id like *wanted* that no console has."""
        name = _NOT_IN_IDS.sub("-", wanted).strip("-")
        if not name[:1].isalpha():
            name = f"c{name}"
        number, base = 1, name
        while name in self.consoles:
            number += 1
            name = f"{base}-{number}"
        if name != wanted:
            why = "ids are unique, begin with a letter, and have letters, digits, '-', '.', '_'"
            self.leave_out(place, f"'{wanted}' is called '{name}': {why}")
        return name

    def toml(self) -> str:
        """The text of the configuration."""
        blocks = []
        for id, values in self.objects.items():
            blocks.append([f"[object.{_key(id)}]", *_lines(values.items())])
        for name, console in self.consoles.items():
            head = [f"# {_comment(str(console.place))}", f"[console.{_key(name)}]"]
            blocks.append([*head, *_lines(console.rows())])
        return "\n\n".join("\n".join(block) for block in blocks)


def as_banner(text: str) -> str:
    """Write *text* as ``banner`` has it: on one line, and what is in braces is no placeholder."""
    shown = " ".join(text.split())
    # A configuration fills in {name} first, and knows no way to write it.
    return shown.replace("{name}", "(name)").replace("{", "{{").replace("}", "}}")


def as_option(first: str, options: Mapping[str, str | int | bool]) -> str:
    """Write ``FIRST,KEY=VALUE,...`` as the command line has it: a comma in a value is doubled."""
    parts = [first.replace(",", ",,")]
    for key, value in options.items():
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        parts.append(f"{key}={text.replace(',', ',,')}")
    return ",".join(parts)


def _lines(rows: Any) -> Iterator[str]:
    for key, value in rows:
        yield f"{_key(key)} = {_toml(value)}"


def _key(text: str) -> str:
    return text if _BARE.fullmatch(text) else _toml(text)


def _comment(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _toml(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            quoted = json.dumps(value, ensure_ascii=False)
            return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
        case Mapping():
            inner = ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items())
            return f"{{ {inner} }}"
    return "[" + ", ".join(map(_toml, value)) + "]"
