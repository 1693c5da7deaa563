"""Values, and which error comes first. The texts are QEMU's."""

from __future__ import annotations

import math

import pytest

from trio_chardev.qmp.json.lexer import Lexer
from trio_chardev.qmp.json.parser import Json, Parser, integer


def parse(data: bytes) -> Parser:
    lexer, parser = Lexer(), Parser()
    pos = 0
    while True:
        kind, text, pos = lexer.scan(data + b" ", pos)
        if kind == "end":
            return parser
        parser.push(kind, text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"{}", {}),
        (b"[]", []),
        (b'{"a": {"b": [1, {}, []]}, "c": null}', {"a": {"b": [1, {}, []]}, "c": None}),
        (b"{'': true, 'a': false}", {"": True, "a": False}),
        (b'{"a": {"a": 1}}', {"a": {"a": 1}}),
        (b"[[[]], [0]]", [[[]], [0]]),
    ],
)
def test_values_keep_the_order_of_members(text: bytes, value: Json) -> None:
    parser = parse(text)
    assert parser.error is None
    assert repr(parser.value) == repr(value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"}", "expecting value"),
        (b"[,1]", "expecting value"),
        (b"[1,]", "expecting value"),
        (b"[1 2]", "expected separator in list"),
        (b"[1:2]", "expected separator in list"),
        (b"{,}", "expecting value"),
        (b'{"a"}', "missing : in object pair"),
        (b'{"a":}', "expecting value"),
        (b'{"a":1,}', "expecting value"),
        (b'{"a":1 "b":2}', "expected separator in dict"),
        (b'{"a":1]', "expected separator in dict"),
        (b"{]", "expecting value"),
        (b"[}", "expecting value"),
        (b"{1:2}", "key is not a string in object"),
        (b"{null:2}", "key is not a string in object"),
        (b"{{}:2}", "key is not a string in object"),
        (b"{[1,]:2}", "expecting value"),  # what is wrong within the key comes first
        (b"{a:2}", "invalid keyword 'a'"),
        (b'{"a":1,"a":[}', "expecting value"),  # a repeated key is seen behind its value
        (b'{"a":1,"b":2,"a":3}', "duplicate key"),
        (b'{"a":1,"\\u0061":3, x}', "duplicate key"),
        (b"[" + b"z" * 2000 + b"]", "invalid keyword '" + "z" * 1006),
    ],
)
def test_the_first_error_is_kept(text: bytes, error: str) -> None:
    assert parse(text).error == error


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"0", 0),
        (b"-0", 0),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", 18446744073709551616.0),
        (b"-9223372036854775809", -9223372036854775808.0),
        (b"1" + b"0" * 5000, math.inf),
        (b"-1" + b"0" * 5000, -math.inf),
        (b"1.0", 1.0),
        (b"-0.0", -0.0),
        (b"1E2", 100.0),
        (b"1e999", math.inf),
        (b"1e-999", 0.0),
    ],
)
def test_numbers(text: bytes, value: float) -> None:
    """An int where int64 or uint64 holds it, else a double; never an int for 1.0."""
    assert repr(parse(text).value) == repr(value)
    if b"." not in text and b"e" not in text.lower():
        assert repr(integer(text.decode())) == repr(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"\\"\\\\\\/\\b\\f\\n\\r\\t\\\'"', "\"\\/\b\f\n\r\t'"),
        (b"'\\\"\"\\''", '""\''),
        (b'"\\u0041\\u00e9\\u20AC\\ud83d\\ude00"', "A\u00e9\u20ac\U0001f600"),
        (b"'\\ud83D\\uDe00'", "\U0001f600"),
        (b'"\\u0000\xc0\x80"', "\0\0"),
        (b'"\x7f\xc2\x80\xef\xbf\xbd\xf4\x8f\xbf\xbd"', "\x7f\x80\ufffd\U0010fffd"),
        (b'"\xc3\xa9\\n"', "\u00e9\n"),
        (b"''", ""),
    ],
)
def test_strings(text: bytes, value: str) -> None:
    parser = parse(text)
    assert (parser.error, parser.value) == (None, value)


@pytest.mark.parametrize("quote", [b'"', b"'"])
@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"\\x", "invalid escape sequence in string"),
        (b"\\\xc3\xa9", "invalid escape sequence in string"),
        (b"\\U0041", "invalid escape sequence in string"),
        (b"\\u12", "\\u12{quote} is not a valid Unicode character"),
        (b"\\u", "\\u{quote} is not a valid Unicode character"),
        (b"\\u123g5", "\\u123g is not a valid Unicode character"),
        (b"\\u12\xc3\xa9\xc3", "\\u12\u00e9 is not a valid Unicode character"),
        (b"\\u123\xc3\xa9", "\\u123\ufffd is not a valid Unicode character"),
        (b"\\ud800", "\\ud800 is not a valid Unicode character"),
        (b"\\uDC00\\uD800", "\\uDC00 is not a valid Unicode character"),
        (b"\\uD800\\u0041", "\\uD800 is not a valid Unicode character"),
        (b"\\uD800\\u12", "\\uD800 is not a valid Unicode character"),
        (b"\\uD800\\n", "\\uD800 is not a valid Unicode character"),
        (b"\\uFDD0", "\\uFDD0 is not a valid Unicode character"),
        (b"\\ufffe", "\\ufffe is not a valid Unicode character"),
        (b"\\ud83f\\udfff", "\\ud83f\\udfff is not a valid Unicode character"),
        (b"a\x80", "invalid UTF-8 sequence in string"),
        (b"\xe2\x82", "invalid UTF-8 sequence in string"),
        (b"\xed\xa0\x80", "invalid UTF-8 sequence in string"),
        (b"\x80\\x", "invalid UTF-8 sequence in string"),
        (b"\\x\x80", "invalid escape sequence in string"),
        (b"\\n\x80", "invalid UTF-8 sequence in string"),
    ],
)
def test_bad_strings(quote: bytes, text: bytes, error: str) -> None:
    assert parse(quote + text + quote).error == error.format(quote=quote.decode())
