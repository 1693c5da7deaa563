"""The parts of the reference about QMP, from what query-qmp-schema is made of."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import attrs

from trio_chardev.access.table import OBJECT
from trio_chardev.backends.table import BACKEND
from trio_chardev.cli.markdown import MarkdownPage, anchor, code
from trio_chardev.devices.table import DEVICE
from trio_chardev.options.documented import own_doc
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
from trio_chardev.qmp.commands.context import Command
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.qmp.server.events import EVENTS, RATE_INTERVAL, rate_key

_SCALARS = {"str": "string", "bool": "boolean", "int": "integer", "number": "number", "any": "any"}
_ABOVE = {
    BACKEND.name: 'a [kind of chardev](#chardevs-by-kind), `{"type": KIND, "data": {...}}`',
    DEVICE.name: "a [device](#devices-by-driver): `driver`, and its options",
    OBJECT.name: "an [object](#objects-by-type): `qom-type`, and its options",
}
"""Types that have parts of their own."""

_USUAL = {
    "backend": "Its backend.",
    "chardev": "The chardev.",
    "client": "The client's number.",
    "cols": "Columns of the window; with `rows`, 0 and 0 is unknown.",
    "console": "The console.",
    "cursor": "Bytes that were printed before it.",
    "data": "The bytes, in `format`.",
    "device": "The id.",
    "fd": "The descriptor's number.",
    "fdname": "The name of the descriptor.",
    "fdset-id": "The number of the set.",
    "filename": "What its backend is, as query-chardev shows it.",
    "format": "How `data` has the bytes.",
    "id": "The id.",
    "label": "The chardev.",
    "name": "The name.",
    "old-filename": "What its backend was.",
    "peer": "The other chardev.",
    "pty": "The terminal.",
    "role": "May it type?",
    "rows": "Rows of the window.",
    "who": "Where it comes from.",
}
"""What members are that have no text of their own, as their names say it."""


def shown_type(value_type: ValueType) -> str:
    """The type of a member, with a link to what it consists of."""
    match value_type:
        case Scalar(name):
            return _SCALARS[name]
        case IntRange(low=low, high=high):
            return f"integer, {low} to {high}"
        case Enum(values):
            return ", ".join(code(str(value)) for value in values)
        case Array(item):
            return f"array of {shown_type(item)}"
        case Object(cls):
            return f"[{cls.__name__}](#{anchor(cls.__name__)})"
        case TaggedUnion(name=name):
            return _ABOVE.get(name, f"[{name}](#{anchor(name)})")


def add_commands(page: MarkdownPage) -> None:
    """Add the commands."""
    page.paragraph(
        'As `{"execute": COMMAND, "arguments": {...}}`, or `trio-chardev qmp COMMAND KEY=VALUE ...`. A command that '
        "returns nothing returns `{}`."
    )
    for name, command in COMMANDS.items():
        page.heading(name, 3)
        for paragraph in inspect.cleandoc(command.handler.__doc__ or "").split("\n\n"):
            page.paragraph(paragraph)
        _add_arguments(page, command)
        if command.returns is not None:
            page.paragraph(f"Returns: {shown_type(type_of(command.returns))}.")
        if command.allow_oob:
            page.paragraph("May be sent out of band (`exec-oob`).")


def _add_arguments(page: MarkdownPage, command: Command) -> None:
    if isinstance(command.arguments, TaggedUnion):
        page.paragraph(f"Arguments: {shown_type(command.arguments)}.")
    else:
        _add_members(page, command.arguments, "argument")


def _add_members(page: MarkdownPage, cls: type, word: str) -> None:
    page.table(
        (word, "type", ""),
        (
            (
                code(member.name) + (", optional" if member.is_optional else ""),
                shown_type(member.value_type),
                (member.doc or _USUAL.get(member.name, "")).replace("``", "`"),
            )
            for member in describe(cls)
        ),
    )


def add_events(page: MarkdownPage) -> None:
    """Add the events."""
    page.paragraph(
        f"A client gets those that its own commands have not caused. Of those that are *limited* at most one comes in "
        f"{RATE_INTERVAL:g} s for each chardev, the last one in any case."
    )
    for name, cls in EVENTS.items():
        page.heading(name, 3)
        page.paragraph(own_doc(cls) + (" *Limited.*" if _is_limited(cls) else ""))
        _add_members(page, cls, "data")


def _is_limited(cls: type[Any]) -> bool:
    return rate_key(cls(**{field.name: "" for field in attrs.fields(cls)})) is not None


def add_types(page: MarkdownPage) -> None:
    """Add the types that commands have and return, but for those that are above."""
    page.paragraph("An absent member is unknown, or does not apply.")
    types = {name: used for used in _used_types() if (name := _name_of(used)) not in _ABOVE}
    for name, used in sorted(types.items()):
        page.heading(name, 3)
        match used:
            case Object(cls):
                page.paragraph(own_doc(cls))
                _add_members(page, cls, "member")
            case TaggedUnion(variants=variants, tag=tag, is_flat=is_flat):
                beside = "beside it" if is_flat else "in `data`"
                page.paragraph(f"One of these, as `{tag}` says, with its members {beside}:")
                page.items(
                    f"`{variant}`: {shown_type(Object(cls))}" for variant, cls in variants.items()
                )


def _name_of(used: Object | TaggedUnion) -> str:
    return used.cls.__name__ if isinstance(used, Object) else used.name


def _used_types() -> list[Object | TaggedUnion]:
    """What arguments and results consist of, without the arguments themselves."""
    found: dict[str, Object | TaggedUnion] = {}
    to_do: list[ValueType] = []
    for command in COMMANDS.values():
        arguments = type_of(command.arguments)
        to_do += _parts_of(arguments)
        if command.returns is not None:
            to_do.append(type_of(command.returns))
    while to_do:
        used = to_do.pop()
        if isinstance(used, Array):
            to_do.append(used.item)
        elif isinstance(used, Object | TaggedUnion) and _name_of(used) not in found:
            found[_name_of(used)] = used
            to_do += _parts_of(used)
    return list(found.values())


def _parts_of(used: ValueType) -> Iterator[ValueType]:
    match used:
        case Object(cls):
            yield from (member.value_type for member in describe(cls))
        case TaggedUnion(name=name, variants=variants):
            for cls in variants.values():
                if name in _ABOVE:  # its variants are above, what they consist of is not
                    yield from _parts_of(Object(cls))
                else:
                    yield Object(cls)
