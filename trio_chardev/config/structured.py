"""Makes options from the tables of a configuration, with the command line's names and values.

Nothing here knows an option: which there are, and what they take, is said by the options classes and
by the command line's spelling of them. A string is read as on the command line, so a size may be
"64k" and a boolean "on"; other values have to be of the option's type, but a number may stand for a
string, as a port does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trio_chardev.backends.table import BACKEND, GRAMMAR, openers_with
from trio_chardev.config.nodes import Faults, Node
from trio_chardev.errors import OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.grammar import read_size
from trio_chardev.options.keyval import split_items, typed
from trio_chardev.options.members import (
    Array,
    Object,
    Scalar,
    TaggedUnion,
    ValueType,
    describe,
)
from trio_chardev.options.spelling import ALIASES, SIZES
from trio_chardev.options.structure import structure

Values = Mapping[str, Node]
"""Options by the names of the command line."""


def table_of(node: Node, faults: Faults) -> Values:
    """The keys of a table; none if it is something else, which is a fault."""
    if isinstance(node.value, dict):
        return node.value
    faults.add(node.spot, "this is no table")
    return {}


def values_of_text(node: Node, implied_key: str, faults: Faults) -> dict[str, Node]:
    """Read a string that is written as on the command line, ``VALUE,key=value,...``."""
    values: dict[str, Node] = {}
    if not isinstance(node.value, str):
        faults.add(node.spot, "this is no string")
        return values
    for item in split_items(node.value, implied_key):
        if item.key in values:
            faults.add(node.spot, f"'{item.key}' is there twice")
        values[item.key] = Node(node.spot, item.value)
    return values


def read_chardev(node: Node, faults: Faults) -> BackendOptions | None:
    """Make a chardev's options from a table with its ``kind``, or from a string that begins with it.

    None if that is not possible; why is added to *faults*.
    """
    if isinstance(node.value, str):
        values: Values = values_of_text(node, "kind", faults)
    else:
        values = table_of(node, faults)
        if not isinstance(node.value, dict):
            return None
    rest = {key: item for key, item in values.items() if key != "kind"}
    if "kind" not in values:
        faults.add(node.spot, "'kind' is missing")
        return None
    kind = values["kind"]
    with faults.at(kind.spot):
        name = structure(Scalar("str"), kind.value, "kind")
        name = ALIASES.get(name, name)
        GRAMMAR.check_kind(name)
        return read_chardev_of(name, Node(node.spot, rest), faults)
    return None


def read_chardev_of(kind: str, node: Node, faults: Faults) -> BackendOptions | None:
    """Make the options of a chardev of *kind*, of which *node* has the others. See above."""
    given: dict[str, Any] = {}
    values: Values = node.value
    is_right = True
    for key, item in _flat(values):
        option = GRAMMAR.find(kind, key)
        if option is None:
            faults.add(item.spot, f"'{kind}' has no '{key.partition('.')[0]}'")
            is_right = False
            continue
        is_right &= _read_value(option.value_type, key, item, given, faults)
    if is_right:
        with faults.at(node.spot, values):
            options: BackendOptions = structure(BACKEND, GRAMMAR.backend(kind, given), "backend")
            openers_with(())(options)  # it checks what all kinds have
            options.check()
            return options
    return None


def _flat(values: Values) -> Iterable[tuple[str, Node]]:
    """Write arrays as the command line does: ``key.0`` ..."""
    for key, node in values.items():
        if isinstance(node.value, list):
            for index, item in enumerate(node.value):
                yield f"{key}.{index}", item
        else:
            yield key, node


def read_variant(union: TaggedUnion, id: str, node: Node, faults: Faults) -> Any:
    """Make the options of a device or an object, whose kind is in the tag of *union*; or None."""
    values = table_of(node, faults)
    if union.tag not in values:
        faults.add(node.spot, f"'{union.tag}' is missing")
        return None
    tag = values[union.tag]
    if not isinstance(tag.value, str) or tag.value not in union.variants:
        with faults.at(tag.spot):
            structure(union, {union.tag: tag.value})  # raises: there is no such variant
        return None
    types = {m.name: m.value_type for m in describe(union.variants[tag.value]) if m.name != "id"}
    given: dict[str, Any] = {union.tag: tag.value, "id": id}
    is_right = True
    for key, item in values.items():
        if key == union.tag:
            continue
        if key not in types:
            faults.add(item.spot, f"'{tag.value}' has no '{key}'")
            is_right = False
            continue
        is_right &= _read_value(types[key], key, item, given, faults)
    if is_right:
        with faults.at(node.spot, values):
            options = structure(union, given)
            check: Callable[[], None] = getattr(options, "check", lambda: None)
            check()
            return options
    return None


def _read_value(
    value_type: ValueType, key: str, node: Node, given: dict[str, Any], faults: Faults
) -> bool:
    """Put the value of option *key* into *given*; returns whether it is right."""
    with faults.at(node.spot):
        value = _json(value_type, key, node)
        structure(value_type, value, key)
        given[key] = value
        return True
    return False


def _json(value_type: ValueType, key: str, node: Node) -> Any:
    """The value for `structure`, which checks what is not of the type. Raises OptionsError."""
    value = node.value
    match value_type, value:
        case _, str() if key in SIZES:
            return read_size(key, value)
        case Scalar("any"), _:
            raise OptionsError(f"'{key}' can't be given here")
        case Array(item), list():
            return [_json(item, key, element) for element in value]
        case Object(cls), dict():
            types = {member.name: member.value_type for member in describe(cls)}
            return {
                name: _json(types[name], name, inner) if name in types else inner.value
                for name, inner in value.items()
            }
        case TaggedUnion(), dict():
            raise OptionsError(f"'{key}' can't be given here")
        case Scalar("str"), int() if not isinstance(value, bool):
            return str(value)
        case _, str():
            return typed(value_type, value, key)
    return value
