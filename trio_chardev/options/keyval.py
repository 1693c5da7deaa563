"""The ``key=value,...`` grammar of QEMU's command line.

A comma in a value is doubled. The first item may be a bare value, for the implied key. Any other
bare word is a boolean: on, or off after ``no``. Dots in keys nest: ``chardevs.0=a``,
``addr.type=unix``. All values are strings until `typed` converts them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar, overload

import attrs

from trio_chardev.options.members import (
    Array,
    Enum,
    IntRange,
    Object,
    Scalar,
    TaggedUnion,
    ValueType,
    describe,
    type_of,
)
from trio_chardev.options.structure import INT64, structure
from trio_chardev.plain_errors import OptionsError

T = TypeVar("T")
Warn = Callable[[str], object]

HELP_WORDS: Final = ("help", "?")


def ignore(warning: str) -> None:
    """Ignore a warning."""


class HelpRequested(Exception):  # noqa: N818 - not an error
    """The user asks for help, about *subject* if that is not None."""

    def __init__(self, subject: str | None = None, option: str = "chardev") -> None:
        self.subject = subject
        self.option = option
        """The command line's option that the help is about."""


@attrs.frozen
class Item:
    """A ``key=value``."""

    key: str
    value: str
    word: str | None = None
    """The bare word, if the item is one."""

    @property
    def is_help(self) -> bool:
        return self.word in HELP_WORDS

    @property
    def deprecation(self) -> str:
        """The warning about a bare word, in two lines like QEMU's."""
        key, value = self.key, self.value
        if key == "delay":
            key, value = "nodelay", "off" if value == "on" else "on"
        return (
            f"short-form boolean option '{self.word}' deprecated\nPlease use {key}={value} instead"
        )


_KEY: Final = re.compile("[^=,]*")
_VALUE: Final = re.compile("(?:[^,]|,,)*")


def split_items(text: str, implied_key: str | None = None) -> Iterator[Item]:
    """Yield the items of *text* in order, unchecked."""
    position = 0
    while position < len(text):
        key = _KEY.match(text, position)
        assert key is not None  # it matches ""
        word = key[0]
        position = key.end()
        if text[position : position + 1] == "=":
            position, value = _value_at(text, position + 1)
            yield Item(word, value)
        elif implied_key is not None:
            position, value = _value_at(text, key.start())
            yield Item(implied_key, value)
        elif word.startswith("no"):
            yield Item(word.removeprefix("no"), "off", word)
        else:
            yield Item(word, "on", word)
        implied_key = None
        position += 1  # over the comma


def _value_at(text: str, position: int) -> tuple[int, str]:
    value = _VALUE.match(text, position)
    assert value is not None  # it matches ""
    return value.end(), value[0].replace(",,", ",")


MAX_STEPS: Final = 100  # of a dotted key; no option is nested as deeply
_NESTED_KEY: Final = re.compile(r"[A-Za-z][\w-]*(\.([A-Za-z][\w-]*|[0-9]+))*", re.ASCII)


def parse_keyval(text: str, implied_key: str | None = None, warn: Warn = ignore) -> dict[str, Any]:
    """Parse *text* to a tree of dicts, lists and strings.

    If a key is repeated the last value counts; for ``id`` the first does. Raises OptionsError, and
    HelpRequested (about the implied key's value) for a bare ``help`` or ``?``.
    """
    tree: dict[str, Any] = {}
    subject = None
    for item in split_items(text, implied_key):
        if item.is_help:
            raise HelpRequested(subject)
        if item.key == implied_key:
            if item.value in HELP_WORDS:
                raise HelpRequested
            subject = item.value
        if item.word is not None:
            warn(item.deprecation)
        if not _NESTED_KEY.fullmatch(item.key):
            raise OptionsError(f"Invalid parameter '{item.key}'")
        if item.key.count(".") >= MAX_STEPS:
            raise OptionsError(f"Parameter '{item.key}' is too long")
        if item.key != "id" or "id" not in tree:
            put_nested(tree, item.key, item.value)
    return {key: listify(value, key) for key, value in tree.items()}


def put_nested(tree: dict[str, Any], key: str, value: object) -> None:
    """Store *value* at the dotted *key*. Raises OptionsError if a part of it is a leaf already."""
    *parents, last = key.split(".")
    node = tree
    for depth, name in enumerate(parents, 1):
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise OptionsError(f"Parameters '{'.'.join(parents[:depth])}.*' used inconsistently")
    if isinstance(node.get(last), dict):
        raise OptionsError(f"Parameters '{key}.*' used inconsistently")
    node[last] = value


def listify(node: Any, path: str) -> Any:
    """Turn each dict in *node* whose keys are all numbers into a list. Raises OptionsError."""
    if not isinstance(node, dict):
        return node
    node = {key: listify(value, f"{path}.{key}") for key, value in node.items()}
    by_index = {_number(key): value for key, value in node.items() if key.isdecimal()}
    if not by_index:
        return node
    if len(by_index) < len(node):
        raise OptionsError(f"Parameters '{path}.*' used inconsistently")
    for index in range(len(by_index)):
        if index not in by_index:
            raise OptionsError(f"Parameter '{path}.{index}' missing")
    return [by_index[index] for index in range(len(by_index))]


def _number(digits: str) -> int:
    """Convert decimal digits; any number of more than 20 digits stands for one that is too large.

    Python refuses to convert more than 4300 digits.
    """
    return int(digits.lstrip("0")[:21] or "0")


# ---------------------------------------------------------------- from strings to values

_BOOLS: Final = {
    **dict.fromkeys(("on", "yes", "true", "y"), True),
    **dict.fromkeys(("off", "no", "false", "n"), False),
}
_NUMBER: Final = re.compile(r"\s*([+-]?)(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))", re.ASCII)
_HEX_SIZE: Final = re.compile(r"\s*\+?0[xX]([0-9a-fA-F]+)", re.ASCII)
_SIZE: Final = re.compile(
    # Python refuses to convert more than 4300 digits.
    r"\s*\+?([0-9]{1,1000}\.?[0-9]{0,1000}|\.[0-9]{1,1000})([bkmgtpe]?)",
    re.ASCII | re.IGNORECASE,
)
_SUFFIXES: Final = "bkmgtpe"


def parse_bool(name: str, text: str) -> bool:
    """Parse a boolean in one of QEMU's spellings. Raises OptionsError."""
    try:
        return _BOOLS[text]
    except KeyError:
        raise OptionsError(f"Parameter '{name}' expects 'on' or 'off'") from None


def parse_number(name: str, text: str) -> int:
    """Parse an integer as C does: decimal, 0x hexadecimal or 0 octal. Raises OptionsError."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise OptionsError(f"Parameter '{name}' expects a number")
    sign, hexadecimal, octal, decimal = match.groups()
    if hexadecimal:
        number = int(hexadecimal, 16)
    else:
        number = _number(decimal) if decimal else int(octal or "0", 8)
    if number >= 1 << 64:
        raise OptionsError(f"Value '{text}' is too large for parameter '{name}'")
    return -number if sign == "-" else number


def parse_size(name: str, text: str) -> int:
    """Parse a number of bytes, perhaps with a fraction and a suffix. Raises OptionsError."""
    from fractions import Fraction  # and decimal with it

    if match := _HEX_SIZE.fullmatch(text):
        exact = Fraction(int(match[1], 16))
    elif (match := _SIZE.fullmatch(text)) and (match[2] or Fraction(match[1]).denominator == 1):
        exact = Fraction(match[1]) * 1024 ** _SUFFIXES.index(match[2].lower() or "b")
    else:
        error = OptionsError(f"Parameter '{name}' expects a non-negative number below 2^64")
        error.add_note(
            "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
            "and exabytes, respectively."
        )
        raise error
    size = int(exact + Fraction(1, 2))
    if size >= 1 << 64:
        raise OptionsError(f"Value '{text}' is out of range for parameter '{name}'")
    return size


def typed(value_type: ValueType, value: Any, path: str = "") -> Any:
    """Convert *value*, a tree of strings, to JSON for structuring a *value_type*.

    Raises OptionsError for a string that is no such value. Any other mismatch is left for
    `structure` to report.
    """
    match value_type:
        case Array(item):
            if isinstance(value, list):
                return [typed(item, element, path) for element in value]
        case Object(cls):
            if isinstance(value, dict):
                types = {member.name: member.value_type for member in describe(cls)}
                return {
                    name: typed(types[name], inner, f"{path}.{name}" if path else name)
                    if name in types
                    else inner
                    for name, inner in value.items()
                }
        case TaggedUnion(variants=variants, tag=tag, is_flat=True):
            if isinstance(value, dict) and value.get(tag) in variants:
                rest = {key: inner for key, inner in value.items() if key != tag}
                return {tag: value[tag], **typed(Object(variants[value[tag]]), rest, path)}
        case TaggedUnion(variants=variants):
            match value:
                case {"type": str(tag), "data": data} if tag in variants:
                    return {**value, "data": typed(Object(variants[tag]), data, f"{path}.data")}
        case Scalar() | IntRange() | Enum():
            if not isinstance(value, str):
                raise OptionsError(f"Parameters '{path}.*' are unexpected")
            return _scalar(value_type, value, path)
    return value


def _scalar(value_type: Scalar | IntRange | Enum, text: str, path: str) -> Any:
    match value_type:
        case Scalar("bool"):
            return parse_bool(path, text)
        case Scalar("int"):
            if (number := parse_number(path, text)) not in INT64:
                raise OptionsError(f"Value '{text}' is out of range for parameter '{path}'")
            return number
        case IntRange():
            return parse_number(path, text)
        case Enum(values) if isinstance(values[0], int):
            return parse_number(path, text)
        case Scalar("number"):
            try:
                return float(text)
            except ValueError:
                raise OptionsError(
                    f"Invalid parameter type for '{path}', expected: number"
                ) from None
    return text


# ---------------------------------------------------------------- a whole option


def parse_json(text: str) -> Any:
    """Parse JSON. Raises OptionsError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"JSON parse error, {error}") from None


@overload
def structure_text(
    cls: type[T], text: str, implied_key: str | None = None, warn: Warn = ignore
) -> T: ...
@overload
def structure_text(
    cls: TaggedUnion, text: str, implied_key: str | None = None, warn: Warn = ignore
) -> Any: ...
def structure_text(cls: Any, text: str, implied_key: str | None = None, warn: Warn = ignore) -> Any:
    """Make a *cls* from a whole option, ``key=value,...`` or one JSON object.

    Raises what `parse_keyval` and `structure` raise.
    """
    if text.startswith("{"):
        return structure(cls, parse_json(text))
    value = typed(type_of(cls), parse_keyval(text, implied_key, warn))
    return structure(cls, value, index=".{}")
