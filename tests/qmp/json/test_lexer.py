"""Tokens, and that cutting the data anywhere does not change them."""

from __future__ import annotations

import pytest

from trio_chardev.qmp.json.lexer import Lexer


def tokens(*pieces: bytes) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    lexer = Lexer()
    for data in pieces:
        pos = 0
        while True:
            kind, text, pos = lexer.scan(data, pos)
            if kind in ("cut", "end"):
                assert pos == len(data)
                break
            found.append((kind, text))
    return found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"0 ", [("number", b"0")]),
        (b"-0,", [("number", b"-0"), ("mark", b",")]),
        (b"-10.050]", [("number", b"-10.050"), ("mark", b"]")]),
        (b"1e5 2E-07 3.0e+1 ", [("number", b"1e5"), ("number", b"2E-07"), ("number", b"3.0e+1")]),
        (b"1e5e ", [("number", b"1e5"), ("word", b"e")]),
        (b"0e1 ", [("number", b"0"), ("word", b"e"), ("number", b"1")]),
        (b"0x10 ", [("number", b"0"), ("word", b"x"), ("number", b"10")]),
        (b"1-2 ", [("number", b"1"), ("number", b"-2")]),
        (b"0.0e0 ", [("number", b"0.0e0")]),
        (b"nul12 ", [("word", b"nul"), ("number", b"12")]),
        (b"\"\"''", [("string", b'""'), ("string", b"''")]),
        (b'"a\\"\\\\"b ', [("string", b'"a\\"\\\\"'), ("word", b"b")]),
        (b"'a\"\\'\xc3\xa9'", [("string", b"'a\"\\'\xc3\xa9'")]),
        (b" \t\r\n{}[]:,", [("mark", bytes([mark])) for mark in b"{}[]:,"]),
        (b"\n" * 3, []),
    ],
)
def test_tokens_at_every_split(data: bytes, expected: list[tuple[str, bytes]]) -> None:
    assert tokens(data) == expected
    assert tokens(*(data[i : i + 1] for i in range(len(data)))) == expected
    for i in range(len(data)):
        assert tokens(data[:i], data[i:]) == expected


@pytest.mark.parametrize(
    "stray",
    [
        *(
            b"01",
            b"-01",
            b"-x",
            b"--",
            b"1..",
            b"1.e",
            b"0.}",
            b"1ee",
            b"1e+-",
            b"1.5e]",
            b"1e\xff",
        ),
        *(
            b'"\t',
            b'"\\\n',
            b'"a\xff',
            b"'\\\xfe",
            b"'a\"\x00",
            b"+",
            b"#",
            b"A",
            b"\\",
            b"\x7f",
            b"\xef",
        ),
    ],
)
def test_a_stray_text_ends_with_the_byte_that_breaks_the_token(stray: bytes) -> None:
    data = stray + b'skipped "\t\xfd1.\n true '
    expected = [("stray", stray), ("word", b"true")]
    assert tokens(data) == expected
    assert tokens(*(data[i : i + 1] for i in range(len(data)))) == expected


@pytest.mark.parametrize("byte", [b"{", b"]", b":", b",", b"\n", b"\r", b"\x00", b"\x1f", b"\xff"])
def test_recovery_ends_before(byte: bytes) -> None:
    recovered = tokens(b"+" + byte + b"\n")[1:]
    assert recovered == tokens(byte + b"\n")


@pytest.mark.parametrize("start", [b'"', b"'", b"1", b"1.", b"x"])
def test_a_long_token_in_many_pieces_is_looked_at_once(start: bytes) -> None:
    """The stem stays short, however much is held."""
    lexer = Lexer()
    more = b"0" if start[0] in b"1" else b"a"
    lexer.scan(start, 0)
    for _ in range(200):
        assert lexer.scan(more * 10, 0)[0] == "cut"
        assert len(lexer._stem) < 5
    assert lexer.held == len(start) + 2000
    lexer.forget()
    assert lexer.held == 0
    assert not lexer.idle
