from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs
import pytest

from tests.samples import Common, Fd, File, Hub, Inet, Line, Socket, Unix
from trio_chardev.options.members import (
    Array,
    Enum,
    IntRange,
    Object,
    Scalar,
    TaggedUnion,
    describe,
    type_of,
)


def names(cls: type) -> list[str]:
    return [member.name for member in describe(cls)]


def test_members_of_the_base_come_first_and_the_rest_in_order() -> None:
    assert names(File) == ["logfile", "logappend", "in", "out", "append"]


def test_names_are_qapis() -> None:
    assert names(Fd) == ["str"]
    assert "keep-alive" in names(Inet)


def test_a_member_without_default_is_required() -> None:
    assert [member.name for member in describe(File) if not member.is_optional] == ["out"]


def test_defaults_are_told() -> None:
    assert {member.name: member.default for member in describe(Line)} == {
        "logfile": None,
        "logappend": False,
        "device": None,
        "data-bits": 8,
        "parity": "N",
        "gain": 1.0,
    }


def test_types_are_told() -> None:
    types = {member.name: member.value_type for member in (*describe(Line), *describe(Inet))}
    assert types["device"] == Scalar("str")
    assert types["gain"] == Scalar("number")
    assert types["parity"] == Enum(("N", "E", "O"))
    assert types["data-bits"] == Enum((5, 6, 7, 8))
    assert types["to"] == IntRange("uint16_t", 0, 65535)


def test_containers_are_told() -> None:
    assert describe(Hub)[-1].value_type == Array(Scalar("str"))
    address = describe(Socket)[2].value_type
    assert isinstance(address, TaggedUnion)
    assert address.variants["unix"] is Unix
    assert type_of(tuple[Unix, ...]) == Array(Object(Unix))
    assert type_of(Any) == Scalar("any")


def test_the_string_below_a_field_documents_it() -> None:
    docs = {member.name: member.doc for member in describe(File)}
    assert docs["logfile"] == "Where output is copied."  # inherited
    assert docs["in"] == "Where input\ncomes from."
    assert docs["out"] == ""


def test_a_class_without_source_has_no_docs() -> None:
    made = attrs.make_class("Made", {"path": attrs.field(type=str)})
    assert [member.doc for member in describe(made)] == [""]


def test_fields_that_init_does_not_take_are_no_members() -> None:
    made = attrs.make_class(
        "Made", {"a": attrs.field(type=str), "b": attrs.field(type=str, init=False)}
    )
    assert names(made) == ["a"]


@pytest.mark.parametrize("hint", [bytes, list[str], int | str, tuple[str, int], Callable])
def test_other_types_are_refused(hint: object) -> None:
    with pytest.raises(TypeError, match="an option cannot be of type"):
        type_of(hint)


def test_a_description_is_made_once() -> None:
    assert describe(Common) is describe(Common)


def test_types_can_be_looked_up() -> None:
    """So that a schema can tell each of them once."""
    assert len({type_of(Literal["a"]), type_of(Literal["a"]), type_of(Unix), type_of(Unix)}) == 2
