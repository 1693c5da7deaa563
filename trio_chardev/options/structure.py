"""Chardevs' options as strict attrs classes, and structuring them from QMP's JSON.

An options class is the only definition of a kind's options: it is what the Python API takes, what
QMP's arguments and ``--chardev`` are structured into, and what help and introspection are derived
from. This module has only what all kinds share; see ``backends/``. `trio_chardev.options.members`
explains how to write such a class.

Structuring uses a hook for each type, which checks what QAPI's visitors check, in the same order, so
that the first error is the one that QEMU reports. The other way is in `unstructure`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

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
from trio_chardev.options.qdict import first_unexpected
from trio_chardev.plain_errors import OptionsError

T = TypeVar("T")


@overload
def structure(cls: type[T], value: object, path: str = "", index: str = "[{}]") -> T: ...
@overload
def structure(cls: ValueType, value: object, path: str = "", index: str = "[{}]") -> Any: ...
def structure(cls: Any, value: object, path: str = "", index: str = "[{}]") -> Any:
    """Make a *cls* from *value*, which is JSON as Python parses it.

    *path* is where *value* is in what the user wrote, such as ``backend``; *index* is the format of
    an array index in a path. Raises OptionsError for the defect that QEMU would report, in its
    words.
    """
    try:
        return _hook_of(cls)(value, None)
    except _DefectError as defect:
        error = OptionsError(defect.text(path, index))
        if defect.hint is not None:
            error.add_note(defect.hint)
        try:
            raise error from None
        finally:
            del error  # else this frame, its traceback and it are a cycle


class _DefectError(Exception):
    """A defect. Its path grows, from the inside out, while the hooks unwind."""

    def __init__(
        self, template: str, *path: str | int, is_short: bool = False, hint: str | None = None
    ) -> None:
        self.template = template
        self.path = list(path)
        self.is_short = is_short  # for some defects QEMU gives only the last name of the path
        self.hint = hint  # for people; the text itself is QEMU's

    def text(self, path: str, index: str) -> str:
        if self.is_short:
            last = self.path[0] if self.path else path.rpartition(".")[2]
            return self.template.format(last if isinstance(last, str) else "null")
        elements = [path] if path else []
        for element in reversed(self.path):
            if isinstance(element, int):
                elements.append(index.format(element))
            else:
                elements.append(f".{element}" if elements else element)
        return self.template.format("".join(elements) if elements else "<anonymous>")


_Hook = Callable[[Any, Any], Any]
_ABSENT: Final = object()
_MISSING: Final = "Parameter '{}' is missing"
_UNEXPECTED: Final = "Parameter '{}' is unexpected"
BOOLEAN_HINT: Final = "A boolean is true or false in JSON, without quotes."
INT64: Final = range(-(1 << 63), 1 << 63)
_INT64_OR_UINT64: Final = range(-(1 << 63), 1 << 64)


def _wrong_type(expected: str, hint: str | None = None) -> _DefectError:
    return _DefectError(f"Invalid parameter type for '{{}}', expected: {expected}", hint=hint)


def _not_accepted(value: str | int) -> _DefectError:
    shown = _quoted(str(value))
    return _DefectError(f"Parameter '{{}}' does not accept value '{shown}'", is_short=True)


def _quoted(text: str) -> str:
    """Escape *text* for a template."""
    return text.replace("{", "{{").replace("}", "}}")


def _str(value: Any, _: Any) -> str:
    if isinstance(value, str):
        return value
    raise _wrong_type("string")


def _bool(value: Any, _: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong_type("boolean", BOOLEAN_HINT)


def _int(value: Any, _: Any) -> int:
    if type(value) is int and value in INT64:
        return value
    raise _wrong_type("integer")


def _number(value: Any, _: Any) -> float:
    if type(value) is int or isinstance(value, float):
        try:
            return float(value)
        except OverflowError:  # the lexer, too, gives infinity for it
            return math.inf if value > 0 else -math.inf
    raise _wrong_type("number")


def _any(value: Any, _: Any) -> Any:
    return value


_SCALAR_HOOKS: Final[dict[str, _Hook]] = {
    "str": _str,
    "bool": _bool,
    "int": _int,
    "number": _number,
    "any": _any,
}


def _int_range_hook(limits: IntRange) -> _Hook:
    def structure_sized_int(value: Any, _: Any) -> int:
        if limits.low < 0:
            value = _int(value, None)
        elif type(value) is int and value in _INT64_OR_UINT64:
            value %= 1 << 64  # as QAPI does
        else:
            raise _DefectError("Parameter '{}' expects uint64")
        if limits.low <= value <= limits.high:
            return int(value)
        raise _DefectError(f"Parameter '{{}}' expects {limits.name}", is_short=True)

    return structure_sized_int


def _enum_hook(enum: Enum) -> _Hook:
    check = _int if isinstance(enum.values[0], int) else _str

    def structure_enum(value: Any, _: Any) -> str | int:
        checked: str | int = check(value, None)
        if checked in enum.values:
            return checked
        raise _not_accepted(checked)

    return structure_enum


def _array_hook(array: Array) -> _Hook:
    hook = _hook_of(array.item)

    def structure_array(value: Any, _: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong_type("array")
        items = []
        for index, item in enumerate(value):
            try:
                items.append(hook(item, None))
            except _DefectError as defect:
                defect.path.append(index)
                raise
        return tuple(items)

    return structure_array


def _object_hook(of: Object) -> _Hook:
    members = [
        (member.name, member.field, _hook_of(member.value_type), member.is_optional)
        for member in describe(of.cls)
    ]
    names = frozenset(name for name, *_ in members)

    def structure_object(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong_type("object")
        arguments: dict[str, Any] = {}
        for name, field, hook, is_optional in members:
            item = value.get(name, _ABSENT)
            if item is not _ABSENT:
                try:
                    arguments[field] = hook(item, None)
                except _DefectError as defect:
                    defect.path.append(name)
                    raise
            elif not is_optional:
                raise _DefectError(_MISSING, name)
        if len(arguments) < len(value):
            raise _DefectError(_UNEXPECTED, first_unexpected(value, names))
        return of.cls(**arguments)

    return structure_object


def _union_hook(union: TaggedUnion) -> _Hook:
    def variant_of(value: dict[str, Any]) -> _Hook:
        if union.tag not in value:
            raise _DefectError(_MISSING, union.tag)
        try:
            name = _str(value[union.tag], None)
            if name not in union.variants:
                raise _no_such_tag(union, name)
        except _DefectError as defect:
            defect.path.append(union.tag)
            raise
        return _hook_of(Object(union.variants[name]))

    def structure_flat(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong_type("object")
        hook = variant_of(value)
        members = {name: item for name, item in value.items() if name != union.tag}
        if union.no_such_member is not None:
            _check_members(union, value[union.tag], members)
        return hook(members, None)

    def structure_union(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong_type("object")
        hook = variant_of(value)
        try:
            if "data" not in value:
                raise _DefectError(_MISSING)
            options = hook(value["data"], None)
        except _DefectError as defect:
            defect.path.append("data")
            raise
        if len(value) > 2:
            raise _DefectError(_UNEXPECTED, first_unexpected(value, (union.tag, "data")))
        return options

    return structure_flat if union.is_flat else structure_union


def _no_such_tag(union: TaggedUnion, name: str) -> _DefectError:
    if union.no_such_tag is None:
        defect = _not_accepted(name)
        if name in union.absent:
            defect.template += f": {_quoted(union.absent[name])}"
        return defect
    return _DefectError(_quoted(union.no_such_tag.format(name)))


def _check_members(union: TaggedUnion, tag: str, members: dict[str, Any]) -> None:
    known = {member.name for member in describe(union.variants[tag])}
    if not known.issuperset(members):
        name = first_unexpected(members, known)
        assert union.no_such_member is not None
        raise _DefectError(_quoted(union.no_such_member.format(tag=tag, member=name)))


@functools.cache
def _hook_of(hint: Any) -> _Hook:
    """What makes values of *hint*, or of a ValueType."""
    match type_of(hint):
        case Scalar(name):
            return _SCALAR_HOOKS[name]
        case IntRange() as limits:
            return _int_range_hook(limits)
        case Enum() as enum:
            return _enum_hook(enum)
        case Array() as array:
            return _array_hook(array)
        case Object() as of:
            return _object_hook(of)
        case TaggedUnion() as union:
            return _union_hook(union)
