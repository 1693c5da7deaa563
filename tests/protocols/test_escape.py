from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_chardev.protocols.escape import Command, EscapeParser


def parse(*chunks: bytes, escape: int = 1) -> list[bytes | Command]:
    """The pieces, with bytes that follow each other joined."""
    parser = EscapeParser(escape)
    pieces: list[bytes | Command] = []
    for chunk in chunks:
        for piece in parser.feed(chunk):
            if isinstance(piece, bytes) and pieces and isinstance(pieces[-1], bytes):
                pieces[-1] += piece
            else:
                pieces.append(piece)
    return pieces


@pytest.mark.parametrize(
    ("key", "command"),
    [
        (b"h", Command.HELP),
        (b"?", Command.HELP),
        (b"x", Command.QUIT),
        (b"b", Command.BREAK),
        (b"c", Command.SWITCH),
        (b"t", Command.TIMESTAMPS),
    ],
)
def test_the_key_after_the_escape_character_is_a_command(key: bytes, command: Command) -> None:
    assert parse(b"ab\x01" + key + b"cd") == [b"ab", command, b"cd"]


def test_the_escape_character_twice_is_itself() -> None:
    assert parse(b"a\x01\x01b") == [b"a\x01b"]


def test_an_unknown_key_is_swallowed_with_its_escape_character() -> None:
    assert parse(b"a\x01zb") == [b"ab"]


def test_another_escape_character_leaves_control_a_alone() -> None:
    assert parse(b"\x01c\x14c", escape=0x14) == [b"\x01c", Command.SWITCH]


@given(st.binary(max_size=20), st.integers(0, 20))
def test_the_pieces_do_not_depend_on_where_the_chunks_end(data: bytes, split: int) -> None:
    data = data.replace(b"\x00", b"\x01c")
    assert parse(data[:split], data[split:]) == parse(data)


@given(st.binary(max_size=30))
def test_doubling_the_escape_character_passes_every_byte(data: bytes) -> None:
    assert parse(data.replace(b"\x01", b"\x01\x01")) == ([data] if data else [])


def test_help_names_the_escape_character() -> None:
    assert b"\r\nC-a x " in EscapeParser().help_text(may_quit=True)
    assert b"C-a x" not in EscapeParser().help_text(may_quit=False)
    assert b"\r\nC-t C-t " in EscapeParser(0x14).help_text(may_quit=True)
    assert b"\r\n0xff h " in EscapeParser(0xFF).help_text(may_quit=True)
