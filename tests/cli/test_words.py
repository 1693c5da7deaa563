from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from trio_chardev.cli.schema import settle
from trio_chardev.cli.words import parse_arguments as parse, parse_line
from trio_chardev.errors import OptionsError
from trio_chardev.qmp.json.codec import encode


def parse_arguments(words: list[str]) -> dict[str, Any]:
    """As without a schema."""
    arguments = parse(words)
    settle(arguments, None, "x")
    return arguments


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-1.5", -1.5),
        ("true", True),
        ("null", "null"),
        ("[1, 'a']", [1, "a"]),
        ("{}", {}),
        ('"5"', "5"),
        ("'5'", "5"),
        ("", ""),
        ("off", "off"),
        ("tru", "tru"),
        ("nan", "nan"),
        ("05", "05"),
        ("1 2", "1 2"),
        ("[::1]", "[::1]"),
        ("/dev/ttyUSB0", "/dev/ttyUSB0"),
        ("a=b=c", "a=b=c"),
        ("Zürich", "Zürich"),
        ("not UTF-8: \udcff", "not UTF-8: \udcff"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_value_is_json_if_it_can_be(text: str, value: object) -> None:
    assert parse_arguments([f"key={text}"]) == {"key": value}


def test_dots_nest() -> None:
    words = ["id=x", "backend.type=file", "backend.data.out=/tmp/a.b", "backend.data.append=true"]
    assert parse_arguments(words) == {
        "id": "x",
        "backend": {"type": "file", "data": {"out": "/tmp/a.b", "append": True}},
    }


def test_objects_are_merged_wherever_they_stand() -> None:
    words = ["{'id': 'x', 'backend': {'type': 'null'}}", "backend.data={}", "backend.data.a=1"]
    assert parse_arguments(words) == {"id": "x", "backend": {"type": "null", "data": {"a": 1}}}
    assert parse_arguments([]) == {}


def test_last_one_counts() -> None:
    assert parse_arguments(["a=1", "a=2", "{'a': 3}"]) == {"a": 3}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["x"], "Expected '=' after parameter 'x'"),
        (["[1]"], "Expected '=' after parameter '[1]'"),
        ([""], "Expected '=' after parameter ''"),
        (["=1"], "Invalid parameter ''"),
        (["a..b=1"], "Invalid parameter 'a..b'"),
        (["a.b=1", "a=2"], "Parameters 'a.*' used inconsistently"),
        (["{'a': {'b': 1}}", "a.b.c=2"], "Parameters 'a.b.*' used inconsistently"),
        (["{'a': 1"], "JSON parse error, expected one object"),
        (["{}\n{}"], "JSON parse error, expected one object"),
        (["{a: 1}"], "JSON parse error, invalid keyword 'a'"),
        (["k={'a': }"], "JSON parse error, expecting value"),
        (["{'a': 1, 'a': 2}"], "JSON parse error, duplicate key"),
    ],
)
def test_nonsense_is_an_error_of_one_line(words: list[str], error: str) -> None:
    with pytest.raises(OptionsError) as caught:
        parse_arguments(words)
    assert str(caught.value) == error


def test_depth_is_no_danger() -> None:
    deep = ".".join("a" * 3000)
    assert parse_arguments([f"{deep}=1", f"{deep}=2"]).keys() == {"a"}


_names = st.text("abcdefgh-_", min_size=1, max_size=3)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text("ab '\"\\{}é"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(_names, _values, max_size=3))
def test_every_value_can_be_spelt(arguments: dict[str, Any]) -> None:
    """As one object, and member by member; a null by itself only in an object."""
    assert parse_arguments([encode(arguments).decode()]) == arguments
    words = [
        encode({key: value}).decode().strip()
        if value is None
        else f"{key}={encode(value).decode().strip()}"
        for key, value in arguments.items()
    ]
    assert parse_arguments(words) == arguments


def test_the_kind_null_needs_no_quotes() -> None:
    assert parse_arguments(["backend.type=null"]) == {"backend": {"type": "null"}}
    assert parse_arguments(['x={"y": null}', "z=[null]"]) == {"x": {"y": None}, "z": [None]}


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("", None),
        ("  # x", None),
        ("quit", ("quit", {})),
        ("x 'a=b c' d.e=f", ("x", {"a": "b c", "d": {"e": "f"}})),
        ('{"execute": "x"}', ("x", {})),
        ("{'execute': 'x', 'arguments': {'a': null}}", ("x", {"a": None})),
    ],
)
def test_lines_of_a_script(line: str, parsed: object) -> None:
    assert parse_line(line) == parsed


@pytest.mark.parametrize(
    "line", ["x 'a", "x a", "{", '{"execute": 5}', '{"arguments": {}}', "{} {}"]
)
def test_lines_that_are_wrong(line: str) -> None:
    with pytest.raises(OptionsError):
        parse_line(line)
