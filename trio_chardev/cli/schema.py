"""What a server's schema says of arguments: which of them are strings, though they look otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

_JSON_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "boolean": bool,
    "int": int,
    "number": (int, float),
    "array": list,
    "value": object,
}


@attrs.frozen
class Bare:
    """A word that is JSON, but perhaps meant as a string, as ``5`` or ``true``."""

    text: str
    value: Any


class Schema:
    """The types of a server's commands, as query-qmp-schema gives them."""

    def __init__(self, entities: Iterable[Mapping[str, Any]]) -> None:
        self._entities = {entity["name"]: entity for entity in entities}

    def arguments_of(self, command: str) -> str | None:
        """The name of the type of the command's arguments."""
        return self._entities.get(command, {}).get("arg-type")

    def member_of(self, type_name: str | None, value: Mapping[str, Any], key: str) -> str | None:
        """The type of the member *key* of an object of that type, which is *value*."""
        while type_name is not None:
            entity = self._entities.get(type_name, {})
            for member in entity.get("members", ()):
                if member["name"] == key and "type" in member:
                    return str(member["type"])
            type_name = self._variant(entity, value)
        return None

    def _variant(self, entity: Mapping[str, Any], value: Mapping[str, Any]) -> str | None:
        """The type that has the other members, as the tag in *value* says."""
        chosen = value.get(entity.get("tag", ""))
        if isinstance(chosen, Bare):
            chosen = chosen.text
        for variant in entity.get("variants", ()):
            if variant["case"] == chosen:
                return str(variant["type"])
        return None

    def needs_data(self, type_name: str | None, value: Mapping[str, Any]) -> bool:
        """Is *value* one of QAPI's ``{"type": NAME, "data": {...}}``, without ``data``?"""
        variant = self._variant(self._entities.get(type_name or "", {}), value)
        members = self._entities.get(variant or "", {}).get("members", ())
        if [member["name"] for member in members] != ["data"] or "data" in value:
            return False
        is_object = self._entities.get(members[0]["type"], {}).get("meta-type") == "object"
        return is_object and "default" not in members[0]

    def is_text(self, type_name: str | None, word: Bare) -> bool:
        """Does this type take the *word* as a string, and not as what it looks like?"""
        entity = self._entities.get(type_name or "", {})
        match entity.get("meta-type"):
            case "enum":
                return True
            case "builtin":
                return bool(entity["json-type"] == "string")
            case "alternate":
                members = [member["type"] for member in entity["members"]]
                return any(self.is_text(name, word) for name in members) and not any(
                    self._takes(name, word.value) for name in members
                )
        return False

    def _takes(self, type_name: str, value: object) -> bool:
        """Does a type other than a string's take *value*?"""
        entity = self._entities.get(type_name, {})
        name = entity.get("json-type", entity.get("meta-type", ""))
        is_bool_as_int = isinstance(value, bool) and name in ("int", "number")
        return isinstance(value, _JSON_TYPES.get(name, ())) and not is_bool_as_int


def settle(arguments: dict[str, Any], schema: Schema | None, command: str) -> None:
    """Replace each `Bare` in *arguments*: by its text where *schema* has a string, else by its value.

    ``backend.type=null`` gets the empty ``data`` that QAPI asks for. Without recursion, as keys may
    nest deeply.
    """
    to_do = [(arguments, None if schema is None else schema.arguments_of(command))]
    while to_do:
        node, type_name = to_do.pop()
        if schema is not None and schema.needs_data(type_name, node):
            node["data"] = {}
        types = {
            key: None if schema is None else schema.member_of(type_name, node, key) for key in node
        }
        for key, value in node.items():
            if isinstance(value, dict):
                to_do.append((value, types[key]))
            elif isinstance(value, Bare):
                is_text = schema is not None and schema.is_text(types[key], value)
                node[key] = value.text if is_text else value.value


def needs_schema(arguments: Mapping[str, Any]) -> bool:
    """Can a schema make a difference to *arguments*?"""
    return any(isinstance(value, Bare | dict) for value in arguments.values())
