"""The values that programs give options: conversion of paths and ports, and type checks.

Values from QMP or a command line were checked when they were structured.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import attrs

from trio_chardev.options.members import Array, Enum, IntRange, Member, Scalar, describe
from trio_chardev.plain_errors import OptionsError

_CLASSES: dict[str, tuple[str, tuple[type, ...]]] = {
    "str": ("string", (str,)),
    "bool": ("boolean", (bool,)),
    "int": ("integer", (int,)),
    "number": ("number", (int, float)),
}


def path_text(path: str | os.PathLike[str]) -> str:
    """The text of *path*. Raises TypeError if it is no path."""
    return os.fspath(path)


def path_text_or_none(path: str | os.PathLike[str] | None) -> str | None:
    """The text of *path*, if there is one. Raises TypeError if it is no path."""
    return None if path is None else os.fspath(path)


def port_text(port: int | str) -> str:
    """The text of a port, given by number or name."""
    return str(port) if isinstance(port, int) and not isinstance(port, bool) else port  # type: ignore[return-value]


def check_types(options: Any) -> None:
    """Check that each value in *options* has its type, as a JSON value would have to.

    Raises OptionsError, in QAPI's words. Fields whose types JSON can't express are not checked.
    """
    for member in _members(type(options)):  # type: ignore[arg-type] # a class is hashable
        value = getattr(options, member.field)
        if value is not member.default or not member.is_optional:  # its default has its type
            _check(member.name, member.value_type, value)


def _check(name: str, value_type: Any, value: Any) -> None:
    match value_type:
        case Scalar("any"):
            pass
        case Scalar(of):
            word, classes = _CLASSES[of]
            if not isinstance(value, classes) or (isinstance(value, bool) and of != "bool"):
                raise _wrong(name, word)
        case IntRange():
            if not isinstance(value, int) or isinstance(value, bool):
                raise _wrong(name, "integer")
        case Enum(values):
            if value not in values:
                raise OptionsError(f"Parameter '{name}' does not accept value {value!r}")
        case Array(item):
            if not isinstance(value, tuple):
                raise _wrong(name, "tuple")
            for one in value:
                _check(name, item, one)
        case _:  # a union of classes; the kind checks which one it is
            if not attrs.has(type(value)):
                raise _wrong(name, "object")
            check_types(value)


def _wrong(name: str, expected: str) -> OptionsError:
    return OptionsError(f"Invalid parameter type for '{name}', expected: {expected}")


@functools.cache
def _members(cls: type) -> tuple[Member, ...]:
    try:
        return describe(cls)
    except TypeError:  # a field has a type that JSON can't express
        return ()
