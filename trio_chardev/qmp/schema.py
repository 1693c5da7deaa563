"""query-qmp-schema: what commands take and give, and what events tell, as QAPI introspection.

All of it follows from the classes that structure the arguments, see `trio_chardev.options.members`.

The order is QEMU's: commands and events, then every type that they reach, by first use. As in
QEMU, objects and enums go by numbers, because their names are no interface. What QAPI has no
word for is told as the wider type: an integer of any size, or one of a few, is ``int``.
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
    """What the schema says of a command."""

    @property
    def arguments(self) -> Any:
        """The attrs class of its arguments, or a union of such."""

    @property
    def returns(self) -> Any:
        """The type of what it returns; None: nothing."""

    @property
    def allow_oob(self) -> bool:
        """May it be sent out of band?"""


Entity = dict[str, Any]
"""QAPI's SchemaInfo."""

_JSON_TYPES: Final = {
    "str": "string",
    "bool": "boolean",
    "int": "int",
    "number": "number",
    "any": "value",
}


def qmp_schema(commands: Mapping[str, Described], events: Mapping[str, type]) -> list[Entity]:
    """The schema of *commands* and of *events*, which maps names to the classes of their data.

    Raises TypeError if a class has a member that QMP could not tell.
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
    """What is without members."""


_NOTHING: Final = Object(_Nothing)

_Type = Scalar | Enum | Array | Object | TaggedUnion | _Wrapper


class _Types:
    """The types in use, and their names."""

    def __init__(self) -> None:
        self._names: dict[_Type, str] = {}
        self._used: list[_Type] = []
        self._numbers = itertools.count()

    def use(self, value_type: ValueType | _Wrapper) -> str:
        """The name of a type, which `entities` will tell from now on."""
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
        """All types in use. To tell one may bring others into use: they follow."""
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
        # null means optional; the default itself is never told.
        return entity | {"default": None} if member.is_optional else entity


def _widened(value_type: ValueType | _Wrapper) -> _Type:
    match value_type:
        case IntRange() | Enum((int(), *_)):
            return Scalar("int")
        case Object(cls) if not describe(cls):
            return _NOTHING
    return value_type


def _enum(values: tuple[str | int, ...]) -> Entity:
    # QEMU before 6.2 had only "values"; it is deprecated since.
    return {
        "meta-type": "enum",
        "members": [{"name": value} for value in values],
        "values": list(values),
    }
