"""query-qmp-schema: the types of commands, results and events, as QAPI introspection.

All of it is derived from the attrs classes that parse the arguments, see
`trio_chardev.options.members`.

The order is QEMU's: commands and events, then each type that they refer to, by first use. As in
QEMU, objects and enums have numbers for names, because their real names are no interface. What
QAPI can't express is given as the wider type: an integer of any range, or an enum of integers, is
``int``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

import attrs

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
    type_of,
)


class Described(Protocol):
    """What the schema needs to know of a command."""

    @property
    def arguments(self) -> Any:
        """The attrs class of the command's arguments, or a union of such classes."""

    @property
    def returns(self) -> Any:
        """The type of what the command returns; None if it returns nothing."""

    @property
    def allow_oob(self) -> bool:
        """May the command be sent out of band?"""


Entity = dict[str, Any]
"""A SchemaInfo of QAPI."""

_JSON_TYPES: Final = {
    "str": "string",
    "bool": "boolean",
    "int": "int",
    "number": "number",
    "any": "value",
}


def qmp_schema(commands: Mapping[str, Described], events: Mapping[str, type]) -> list[Entity]:
    """Make the schema of *commands* and of *events*, which maps names to their data classes.

    Raises TypeError if a class has a member that QMP can't express.
    """
    types = _Types()
    entities = [_command(name, command, types) for name, command in commands.items()]
    entities += [
        {"name": name, "meta-type": "event", "arg-type": types.use(Object(cls))}
        for name, cls in events.items()
    ]
    entities += types.entities()
    return entities


def _command(name: str, command: Described, types: _Types) -> Entity:
    returns = _NOTHING if command.returns is None else type_of(command.returns)
    entity = {
        "name": name,
        "meta-type": "command",
        "arg-type": types.use(type_of(command.arguments)),
        "ret-type": types.use(returns),
    }
    return entity | {"allow-oob": True} if command.allow_oob else entity


@attrs.frozen
class _Wrapper:
    """The ``{"data": {...}}`` by which a variant extends its tagged union."""

    cls: type


@attrs.frozen
class _Nothing:
    """An object without members."""


_NOTHING: Final = Object(_Nothing)

_Type = Scalar | Enum | Array | Object | TaggedUnion | _Wrapper


class _Types:
    """The types in use, and their names."""

    def __init__(self) -> None:
        self._names: dict[_Type, str] = {}
        self._used: list[_Type] = []
        self._numbers = itertools.count()

    def use(self, value_type: ValueType | _Wrapper) -> str:
        """Name a type, which `entities` then describes as well."""
        used = _widened(value_type)
        if used not in self._names:
            self._used.append(used)
            self._names[used] = self._new_name(used)
        return self._names[used]

    def _new_name(self, used: _Type) -> str:
        match used:
            case Scalar(name):
                return name
            case Array(item):
                return f"[{self.use(item)}]"
        return str(next(self._numbers))

    def entities(self) -> Iterator[Entity]:
        """Describe all types in use. Types that come into use by that are appended, and follow."""
        for used in self._used:
            yield {"name": self._names[used], **self._describe(used)}

    def _describe(self, used: _Type) -> Entity:
        match used:
            case Scalar(name):
                return {"meta-type": "builtin", "json-type": _JSON_TYPES[name]}
            case Enum(values):
                return _enum(values)
            case Array(item):
                return {"meta-type": "array", "element-type": self.use(item)}
            case Object(cls):
                members = [self._member(member) for member in describe(cls)]
                return {"meta-type": "object", "members": members}
            case _Wrapper(cls):
                members = [{"name": "data", "type": self.use(Object(cls))}]
                return {"meta-type": "object", "members": members}
            case TaggedUnion(variants=variants, tag=tag, is_flat=is_flat):
                kind = Object if is_flat else _Wrapper
                return {
                    "meta-type": "object",
                    "members": [{"name": tag, "type": self.use(Enum(tuple(variants)))}],
                    "tag": tag,
                    "variants": [
                        {"case": name, "type": self.use(kind(cls))}
                        for name, cls in variants.items()
                    ],
                }

    def _member(self, member: Member) -> Entity:
        entity: Entity = {"name": member.name, "type": self.use(member.value_type)}
        # A null default means optional; introspection never gives the default itself.
        return entity | {"default": None} if member.is_optional else entity


def _widened(value_type: ValueType | _Wrapper) -> _Type:
    match value_type:
        case IntRange() | Enum((int(), *_)):
            return Scalar("int")
        case Object(cls) if not describe(cls):
            return _NOTHING
    return value_type


def _enum(values: tuple[str | int, ...]) -> Entity:
    # "values" is for clients that expect QEMU before 6.2; it is deprecated since.
    return {
        "meta-type": "enum",
        "members": [{"name": value} for value in values],
        "values": list(values),
    }
