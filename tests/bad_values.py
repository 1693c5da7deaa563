"""Bad values for options, made from the options classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from trio_chardev.options.members import (
    Array,
    Enum,
    IntRange,
    Member,
    Object,
    Scalar,
    TaggedUnion,
    ValueType,
    describe,
)

LONG: Final = "x" * 5000
DEEP: Final = "/y" * 3000

Name = Literal["str", "bool", "int", "number", "any"]  # of a scalar

BAD_JSON: Final[dict[Name, list[Any]]] = {
    "str": [None, 5, True, [], {}, "", "\0", "a\0b", "a\nb", LONG, f"/{LONG}", DEEP, "\u00ff\U0001f600"],
    "int": [None, "5", 1.5, True, [], {}, -1, 0, 3, 1 << 31, 1 << 62, -1 << 63, 1 << 63, 1 << 64, 10**400],
    "bool": [None, 0, 1, "on", [], {}],
    "number": [None, "1", [], True, -1, float("inf"), -float("inf"), float("nan"), 10**400],
    "any": [],
}  # fmt: skip
BAD_TEXT: Final[dict[Name, list[str]]] = {
    "str": ["", LONG, DEEP, "a\nb", "\u00ff", "\udcff", ",,"],
    "int": ["", "x", "-1", "1.5", "8E", "1e3", "9" * 30, "-" + "9" * 30, "9223372036854775808", "0x"],
    "bool": ["", "x", "1", "ON"],
    "number": ["", "x", "1e999", "nan", "-1"],
    "any": [],
}  # fmt: skip


def bad_values(value_type: ValueType) -> Iterator[Any]:
    """Give JSON that is not of *value_type*, though as text or number it may be by chance."""
    match value_type:
        case Scalar():
            yield from BAD_JSON[value_type.name]
        case IntRange():
            yield from BAD_JSON["int"]
        case Enum():
            yield from [None, 5, -1, 1 << 64, "", "x", [], {}, LONG, "a\0b"]
        case Array(item):
            yield from [None, {}, "x", 5, [], ["x"] * 100]
            yield from ([bad] for bad in bad_values(item))
        case Object(cls):
            yield from [None, [], "x", 5]
            yield from (value for _, value in walk(cls, base_of(cls)))
        case TaggedUnion() as union:
            yield from [None, [], "x", {}, {"type": "nope", "data": {}}, {"type": 5}, {"data": {}}]
            for name, cls in union.variants.items():
                yield from [{"type": name}, {"type": name, "data": 5}, {"type": name, "data": {}}]
                for _, data in walk(cls, base_of(cls)):
                    yield {"type": name, "data": data}
                yield {"type": name, "data": base_of(cls), "more": 1}


def base_of(cls: type) -> dict[str, Any]:
    """Return what a *cls* needs, of the right types."""
    return {member.name: _some(member.value_type) for member in _required(cls)}


def _required(cls: type) -> list[Member]:
    return [member for member in describe(cls) if not member.is_optional]


def _some(value_type: ValueType) -> Any:
    match value_type:
        case Scalar("str"):
            return "x"
        case Enum(values):
            return values[0]
        case Array():
            return []
        case Object(cls):
            return base_of(cls)
    return 1


def walk(cls: type, base: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give members of *cls*, and *base* made bad there: by a value, one too many, or a lack."""
    for member in describe(cls):
        for bad in bad_values(member.value_type):
            yield member.name, {**base, member.name: bad}
    for member in _required(cls):
        yield member.name, {name: value for name, value in base.items() if name != member.name}
    for name in ("nope", "", "a\nb", LONG):
        yield name, {**base, name: 1}


def bad_texts(value_type: ValueType) -> list[str]:
    """Return bad values for the command line."""
    match value_type:
        case Scalar():
            return BAD_TEXT[value_type.name]
        case Enum(values) if isinstance(values[0], str):
            return ["", "x", LONG]
    return BAD_TEXT["int"]
