"""Printing as QEMU does, by either path."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings, strategies as st

from trio_chardev.qmp.json import encoder
from trio_chardev.qmp.json.encoder import Encoded, encode, encode_pretty

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"return": {}, "id": 1}, b'{"return": {}, "id": 1}'),
        ([1, "a", None, {}, [], True, False], b'[1, "a", null, {}, [], true, false]'),
        ((1, (2,)), b"[1, [2]]"),
        ("\"\\\b\f\n\r\t/'", b'"\\"\\\\\\b\\f\\n\\r\\t/\'"'),
        ("\0\x1b\x7f", b'"\\u0000\\u001B\\u007F"'),
        ("\u00e9\u2028\ufffd\U0001f600", b'"\\u00E9\\u2028\\uFFFD\\uD83D\\uDE00"'),
        ("\ud800\udfff\ufdd0\uffff\U0010fffe", b'"\\uFFFD\\uFFFD\\uFFFD\\uFFFD\\uFFFD"'),
        ({"\u00e9\\u00e9": "\\u00e9"}, b'{"\\u00E9\\\\u00e9": "\\\\u00e9"}'),
        (2**64 - 1, b"18446744073709551615"),
        (1.0, b"1"),
        ([0.1], b"[0.10000000000000001]"),
        ({"id": -0.0}, b'{"id": -0}'),
        (
            [1, 1e16, 1e300, 1e-7],
            b"[1, 10000000000000000, 1.0000000000000001e+300, 9.9999999999999995e-08]",
        ),
        ([math.inf, -math.inf], b"[inf, -inf]"),
        ({"a": " 1.5 [2e6 NaN"}, b'{"a": " 1.5 [2e6 NaN"}'),
        ("a 10.0.0.1:80", b'"a 10.0.0.1:80"'),
    ],
)
def test_one_line(value: object, text: bytes) -> None:
    assert encode(value) == text + b"\r\n"


def test_pretty() -> None:
    value = {"return": {}, "id": [[], {"a": 1, "b": [{}, "\n"]}]}
    assert encode_pretty(value).split(b"\r\n") == [
        b"{",
        b'    "return": {',
        b"    },",
        b'    "id": [',
        b"        [",
        b"        ],",
        b"        {",
        b'            "a": 1,',
        b'            "b": [',
        b"                {",
        b"                },",
        b'                "\\n"',
        b"            ]",
        b"        }",
        b"    ]",
        b"}",
        b"",
    ]


def test_depth_is_not_bounded_by_recursion() -> None:
    value: object = 1.5
    for _ in range(20_000):
        value = [value]
    assert encode(value) == b"[" * 20_000 + b"1.5" + b"]" * 20_000 + b"\r\n"


@pytest.mark.parametrize("value", [object(), [b"bytes"], {"a": {1, 2}}])
@pytest.mark.parametrize("function", [encode, encode_pretty])
def test_what_is_no_json_is_a_type_error(function: object, value: object) -> None:
    assert callable(function)
    with pytest.raises(TypeError):
        function(value)


@settings(max_examples=60)
@given(values)
def test_both_paths_print_the_same(value: object) -> None:
    line = encode(value)
    assert line == encoder._spell(value, pretty=False)
    assert line.endswith(b"\r\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-2])


@settings(max_examples=40)
@given(values)
def test_pretty_is_the_same_but_for_white_space(value: object) -> None:
    def spaceless(line: bytes) -> bytes:
        return b"".join(line.split())

    assert spaceless(encode_pretty(value)) == spaceless(encode(value))


@settings(max_examples=40)
@given(st.dictionaries(st.text(st.characters(max_codepoint=0xD7FF)), st.integers() | st.none()))
def test_it_is_json(value: dict[str, int | None]) -> None:
    assert json.loads(encode(value)) == value


@given(values, values)
def test_what_is_encoded_already_comes_out_as_if_it_were_not(
    value: object, reply_id: object
) -> None:
    ready = Encoded(encode(value)[:-2])
    assert encode({"return": ready, "id": reply_id}) == encode({"return": value, "id": reply_id})
    assert encode({"return": ready}) == encode({"return": value})
