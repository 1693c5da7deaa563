"""The members of options classes, in QAPI's terms.

An options class is an attrs class that is read as a QAPI struct. A field ``reconnect_ms`` is the
member ``reconnect-ms``, ``in_`` is ``in``; fields are in the schema's order, those of a base class
first; ``X | None = None`` is an optional member. A field whose metadata has `IN_QMP` is called so in
QMP. Structuring, the command line, help and introspection are all derived from what `describe` gives.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal, Union

import attrs

from trio_chardev.options.documented import field_docs
from trio_chardev.options.lazy import Column, LazyTable

IN_QMP: Final = "trio_chardev.in_qmp"
"""The key of a field's metadata for its name in QMP, where Python has another."""


@attrs.frozen
class Scalar:
    """A value that is no container."""

    name: Literal["str", "bool", "int", "number", "any"]
    """``int`` is a signed 64-bit integer, ``number`` a float; ``any`` is not checked."""


@attrs.frozen
class IntRange:
    """A sized integer: ``Annotated[int, IntRange("uint16_t", 0, 65535)]``."""

    name: str
    low: int
    high: int


@attrs.frozen
class Enum:
    """A ``Literal`` of strings, or of integers."""

    values: tuple[str | int, ...]


@attrs.frozen
class Array:
    """A ``tuple[X, ...]``."""

    item: ValueType


@attrs.frozen
class Object:
    """An attrs class."""

    cls: type


@attrs.frozen(eq=False, repr=False)
class TaggedUnion:
    """QAPI's ``{"type": NAME, "data": {...}}``: one of the attrs classes *variants*.

    A flat one has the variant's members next to the tag: ``{TAG: NAME, ...}``.

    It either annotates a union, ``Annotated[A | B, TaggedUnion("AorB", {"a": A, "b": B})]``, or
    is passed to `structure`. A class may have several names; the first is used for output.
    """

    name: str
    variants: Mapping[str, type]
    tag: str = "type"
    is_flat: bool = False
    no_such_tag: str | None = None
    """The error for an unknown tag ``{}``, if it is not QAPI's."""
    no_such_member: str | None = None
    """The error for an unknown member ``{member}`` of the variant ``{tag}`` of a flat union."""
    absent: Mapping[str, str] = types.MappingProxyType({})
    """Tags that somebody may well try -> why they are missing, which is added to the error."""

    def tag_of(self, cls: type) -> str:
        """The first tag of *cls*. Raises KeyError."""
        variants = self.variants
        rows = (
            variants.imported_first()
            if isinstance(variants, Column | LazyTable)
            else variants.items()
        )
        for tag, variant in rows:
            if variant is cls:
                return tag
        raise KeyError(cls)


ValueType = Scalar | IntRange | Enum | Array | Object | TaggedUnion

_SCALARS: Final[dict[object, Scalar]] = {
    str: Scalar("str"),
    bool: Scalar("bool"),
    int: Scalar("int"),
    float: Scalar("number"),
    Any: Scalar("any"),
}


def type_of(hint: Any) -> ValueType:
    """Find the type of a field from its hint. Raises TypeError if it is none of the above."""
    if isinstance(hint, ValueType):
        return hint
    if hint in _SCALARS:
        return _SCALARS[hint]
    if attrs.has(hint):
        return Object(hint)
    for marker in getattr(hint, "__metadata__", ()):  # the arguments of Annotated
        if isinstance(marker, TaggedUnion | IntRange):
            return marker
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return Enum(arguments)
    if origin is tuple and arguments[1:] == (...,):
        return Array(type_of(arguments[0]))
    if origin in (Union, types.UnionType):
        present = [argument for argument in arguments if argument is not types.NoneType]
        if len(present) == 1:
            return type_of(present[0])
    raise TypeError(f"an option cannot be of type {hint!r}")


@attrs.frozen
class Member:
    """One member of an options class."""

    name: str
    """Its name in QMP."""

    field: str
    """Its name in Python."""

    value_type: ValueType
    is_optional: bool
    default: object
    """The value that an absent optional member has; None leaves that to the kind."""

    owner: type = attrs.field(repr=False)

    @property
    def doc(self) -> str:
        """The string literal below the field, or ``""`` if there is no source code."""
        return field_docs(self.owner).get(self.field, "")


@functools.cache
def describe(cls: type) -> tuple[Member, ...]:
    """The members of the attrs class *cls*, in the schema's order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return tuple(
        Member(
            name=field.metadata.get(IN_QMP) or field.name.removesuffix("_").replace("_", "-"),
            field=field.name,
            value_type=type_of(hints[field.name]),
            is_optional=field.default is not attrs.NOTHING,
            default=None if field.default is attrs.NOTHING else field.default,
            owner=cls,
        )
        for field in attrs.fields(cls)
        if field.init
    )


def flat_json(value: object) -> dict[str, Any]:
    """Do as `unstructure` for a class of scalars, such as an event; it needs no preparation."""
    cls: Any = type(value)
    members = ((member, getattr(value, member.field)) for member in describe(cls))
    return {
        member.name: it for member, it in members if not member.is_optional or it != member.default
    }
