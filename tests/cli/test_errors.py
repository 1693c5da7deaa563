"""What is printed of an error: one line, whatever is in it."""

from __future__ import annotations

import logging
import sys

import pytest

from trio_chardev.cli.errors import LineFormatter, print_error, printable, saying
from trio_chardev.errors import BackendError, OptionsError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b \u00ff\U0001f600", "a b \u00ff\U0001f600"),
        ("a\nb\r\x1b[2J\0", r"a\nb\r\x1b[2J\x00"),
        ("\u2028\u202e\udcff", r"\u2028\u202e\udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_hints_stand_below_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = BackendError("two\nlines")
    error.add_note("one\nother")
    print_error(error)
    assert capsys.readouterr().err == (
        "trio-chardev: two\\nlines\ntrio-chardev: one\ntrio-chardev: other\n"
    )


def test_the_option_comes_first_and_hints_stay() -> None:
    error = BackendError("Failed to add chardev 'a': no")
    error.add_note("a hint")
    with pytest.raises(OptionsError) as caught, saying("--x y", "Failed to add chardev 'a': "):
        raise error
    assert str(caught.value) == "--x y: no"
    assert caught.value.__notes__ == ["a hint"]


def test_an_id_cannot_forge_a_line_of_the_log() -> None:
    formatter = LineFormatter("trio-chardev: %(message)s")
    try:
        raise ValueError("a bug")
    except ValueError:
        info = sys.exc_info()
    arguments = ("x", logging.WARNING, "file", 1, "chardev '%s': gone", ("a\nb",))
    assert formatter.format(logging.LogRecord(*arguments, None)) == (
        "trio-chardev: chardev 'a\\nb': gone"
    )
    first, *traceback = formatter.format(logging.LogRecord(*arguments, info)).splitlines()
    assert first == "trio-chardev: chardev 'a\\nb': gone"
    assert traceback[-1] == "ValueError: a bug"
