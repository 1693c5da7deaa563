"""The escape character of attach, and its menu."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from trio_chardev.errors import OptionsError
from trio_chardev.protocols.attach_menu import Action, Do, Menu, Show, parse_escape

ESCAPE = 0x1D


def feed(*pieces: bytes, escape: int | None = ESCAPE) -> list[object]:
    menu = Menu(escape)
    return [item for piece in pieces for item in menu.feed(piece)]


@pytest.mark.parametrize(
    ("text", "code"),
    [("^]", 0x1D), ("^a", 1), ("^A", 1), ("^_", 0x1F), ("^?", 0x7F), ("none", None)],
)
def test_escape_characters(text: str, code: int | None) -> None:
    assert parse_escape(text) == code


@pytest.mark.parametrize("text", ["", "^", "]", "^]]", "^\xe9", "^1", "off"])
def test_what_is_no_escape_character_is_told(text: str) -> None:
    with pytest.raises(OptionsError, match="the escape character is"):
        parse_escape(text)


@pytest.mark.parametrize(
    ("key", "action"),
    [
        (b"d", Action.DETACH),
        (b".", Action.DETACH),
        (b"b", Action.BREAK),
        (b"w", Action.WHO),
        (b"h", Action.HISTORY),
        (b"t", Action.TAKE),
        (b"?", Action.HELP),
    ],
)
def test_a_key_behind_the_escape_character_is_a_command(key: bytes, action: Action) -> None:
    assert feed(b"ls\x1d" + key + b"\r") == [b"ls", Do(action), b"\r"]


def test_an_unknown_key_shows_the_help() -> None:
    assert feed(b"\x1dZ") == [Do(Action.HELP)]


def test_the_escape_character_twice_is_sent() -> None:
    assert feed(b"a\x1d\x1db") == [b"a", b"\x1d", b"b"]


def test_without_an_escape_character_all_is_for_the_device() -> None:
    assert feed(b"\x1dd\x00", escape=None) == [b"\x1dd\x00"]


def test_a_line_is_asked_for_and_shown() -> None:
    items = feed(b"\x1dg12\rx")
    assert items == [
        Show(b"\r\ngive the right to write to client: "),
        *(Show(b"1"), Show(b"2"), Show(b"\r\n")),
        Do(Action.GIVE, "12"),
        b"x",
    ]


@pytest.mark.parametrize("end", [b"\x03", b"\x1b", b"\x1d", b"\r"])
def test_a_line_is_cancelled_by_ctrl_c_escape_or_being_empty(end: bytes) -> None:
    typed = b"" if end == b"\r" else b"pty"
    items = feed(b"\x1dc" + typed + end + b"x")
    assert items[-1] == b"x"
    assert not [item for item in items if isinstance(item, Do)]


def test_a_line_is_edited_by_whole_characters() -> None:
    items = feed("\x1dcnul\xe9\x7fl".encode() + b"\r")
    assert items[-1] == Do(Action.CHANGE, "null")
    assert items.count(Show(b"\b \b")) == 1
    assert feed(b"\x1dcwrong\x15null\r")[-1] == Do(Action.CHANGE, "null")
    assert feed(b"\x1dc\x7f\x7fnull\r")[-1] == Do(Action.CHANGE, "null")


def test_a_line_has_an_end() -> None:
    items = feed(b"\x1dc" + b"x" * 5000 + b"\r")
    assert isinstance(items[-1], Do)
    assert len(items[-1].line) == 1024


def test_the_help_has_all_commands() -> None:
    lines = Menu(ESCAPE).help_lines()
    assert len(lines) == len(Action) + 1
    assert lines[0] == "ctrl-] d or .  detach; the console goes on"
    assert max(map(len, lines)) <= 80


@given(st.binary(), st.lists(st.integers(0, 60)))
def test_the_pieces_in_which_input_comes_make_no_difference(data: bytes, cuts: list[int]) -> None:
    def merged(items: list[object]) -> list[object]:
        result: list[object] = []
        for item in items:
            if isinstance(item, bytes) and result and isinstance(result[-1], bytes):
                result[-1] += item
            else:
                result.append(item)
        return result

    ends = [0, *sorted(cut for cut in cuts if cut <= len(data)), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(ends)]
    assert merged(feed(*pieces)) == merged(feed(data))


@given(st.binary())
def test_what_has_no_escape_character_in_it_is_not_touched(data: bytes) -> None:
    plain = data.replace(b"\x1d", b"")
    assert b"".join(item for item in feed(plain) if isinstance(item, bytes)) == plain
