"""The screen of ``trio-chardev top``."""

from __future__ import annotations

import re

import pytest

from tests.cli.test_top_rows import row
from trio_chardev.cli.table import width_of
from trio_chardev.cli.top_screen import Key, Screen
from trio_chardev.events import WindowSize


def shown(screen: Screen) -> list[str]:
    """The lines that a terminal would show."""
    text = screen.draw(0.0).decode()
    assert text.startswith("\x1b[H")
    assert text.endswith("\x1b[K\x1b[J")
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).split("\r\n")


def many(count: int, **size: int) -> Screen:
    screen = Screen(where="unix:/q", size=WindowSize(size.get("cols", 80), size.get("rows", 10)))
    screen.take([row(f"c{number:02}") for number in range(count)], 0.0)
    return screen


def test_there_are_as_many_lines_as_the_window_has_and_what_is_below_is_said() -> None:
    lines = shown(many(20))
    assert len(lines) == 10
    assert lines[2].startswith("CONSOLE")
    assert [line[:3] for line in lines[3:9]] == ["c00", "c01", "c02", "c03", "c04", "c05"]
    assert lines[9].startswith("14 more below, by name - q leave")


def test_one_can_page() -> None:
    screen = many(13)
    shown(screen)
    assert screen.press(ord(" ")) is Key.NEXT_PAGE
    assert shown(screen)[3].startswith("c06")
    screen.press(ord(" "))
    assert shown(screen)[3].startswith("c12")
    screen.press(ord(" "))  # there is no more
    assert shown(screen)[3].startswith("c12")
    screen.press(ord("b"))
    screen.press(ord("b"))
    assert shown(screen)[3].startswith("c0")
    screen.take([], 1.0)
    assert len(shown(screen)) == 4


def test_keys_choose_the_order() -> None:
    screen = many(3)
    screen.press(ord("r"))
    assert shown(screen)[3].startswith("c02")
    for code in b"ss":
        screen.press(code)
    assert "by clients, reversed" in shown(screen)[-1]
    for code in b"SSS":
        screen.press(code)
    assert "by error" in shown(screen)[-1]
    assert screen.press(ord("x")) is None


@pytest.mark.parametrize("code", b"qQ\x03\x04")
def test_these_keys_leave(code: int) -> None:
    assert many(1).press(code) is Key.LEAVE


@pytest.mark.parametrize("cols", [1, 20, 79, 80, 200])
def test_no_line_is_wider_than_the_window(cols: int) -> None:
    screen = Screen(where="unix:/" + "x" * 300, size=WindowSize(cols, 24))
    screen.take([row("日本語" * 30, last_error="why\x1b" * 80), row("b", state="failed")], 0.0)
    screen.trouble = "it is gone\n" * 30
    assert max(map(width_of, shown(screen))) <= max(cols, 3)


def test_colours_say_the_state_unless_the_user_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(where="x")
    screen.take([row("b", state="failed")], 0.0)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert b"\x1b[31mb" in screen.draw(0.0)
    monkeypatch.setenv("NO_COLOR", "1")
    assert b"\x1b[31mb" not in screen.draw(0.0)
