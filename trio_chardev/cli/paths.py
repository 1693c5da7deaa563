"""Relative paths on the command line: for a service of this machine they are the caller's."""

from __future__ import annotations

import os
import re
from typing import Any

import attrs

from trio_chardev.options.members import Member, Object, TaggedUnion, ValueType, describe
from trio_chardev.options.values import path_text, path_text_or_none

_NO_PATH = re.compile(r"/|usb:|[a-z0-9]+://|$")  # absolute, or what 'serial' takes beside paths


def with_absolute_paths(value_type: ValueType, value: Any) -> Any:
    """Make the relative paths in *value*, JSON for a *value_type*, absolute.

    What is wrong in it is left for the service to report.
    """
    match value_type, value:
        case Object(cls), dict():
            return _in_object(cls, value)
        case TaggedUnion(variants=variants, tag=tag), {"data": data} if value[tag] in variants:
            return {**value, "data": _in_object(variants[value[tag]], data)}
    return value


def _in_object(cls: type, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    made = dict(value)
    for member in describe(cls):
        if member.name not in value:
            continue
        given = value[member.name]
        if not _is_path(cls, member):
            made[member.name] = with_absolute_paths(member.value_type, given)
        elif isinstance(given, str) and not value.get("abstract"):
            made[member.name] = given if _NO_PATH.match(given) else os.path.abspath(given)
    return made


def _is_path(cls: type, member: Member) -> bool:
    converter: object = attrs.fields_dict(cls)[member.field].converter
    return converter in (path_text, path_text_or_none)
