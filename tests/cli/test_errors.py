"""How errors are printed: in one line, whatever is in them."""

from __future__ import annotations

import pytest

from trio_chardev.cli.errors import print_error, saying
from trio_chardev.cli.options import ServeOptions
from trio_chardev.cli.output import printable
from trio_chardev.errors import BackendError, OptionsError, reason_of
from trio_chardev.options.keyval import HelpRequested


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


def test_a_boolean_in_json_is_true_or_false() -> None:
    """In QEMU's words, and what they mean."""
    backend = '{"type": "stdio", "data": {"signal": "off"}}'
    with pytest.raises(OptionsError) as caught:
        read(chardevs=[f'{{"id": "x", "backend": {backend}}}'])
    assert str(caught.value).endswith(
        ": Invalid parameter type for 'backend.data.signal', expected: boolean"
    )
    assert caught.value.__notes__ == ["A boolean is true or false in JSON, without quotes."]


def test_who_refuses_a_change_says_why() -> None:
    """Whatever it raises."""
    assert reason_of(ValueError("no such speed")) == "no such speed"
    assert reason_of(ValueError()) == "ValueError"
    assert reason_of(OSError(5, "x")) == "Input/output error"
    assert reason_of(ExceptionGroup("", [ExceptionGroup("", [OSError("x")])])) == "x"


def read(**options: list[str]) -> ServeOptions:
    given = {"chardevs": (), "monitors": (), "listeners": (), **options}
    return ServeOptions.parse(**given, pidfile=None, warn=lambda text: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "text", "line"),
    [
        ("monitors", "help", "  pretty=<bool (on/off)>       Indent the output. (default: off)"),
        ("monitors", "m,help", "monitor options:"),
        ("monitors", "m,?", "monitor options:"),
        ("listeners", "help", "  unix:PATH[,OPTIONS]          A UNIX socket."),
        ("listeners", "?", "QMP listeners and monitors:"),
        ("listeners", "unix:/x,server=on,help", "QMP listeners and monitors:"),
        ("objects", "tls-creds-x509,help", "(default: client)"),
        ("objects", "tls-creds-x509,help", "'server-key.pem'"),
        ("objects", "help", "  authz-simple                 Lets only one peer connect."),
        ("devices", "bridge,help", "bridge options:"),
        ("chardevs", "socket,help", "socket options:"),
    ],
)
def test_help_of_each_option(option: str, text: str, line: str) -> None:
    with pytest.raises(HelpRequested) as caught:
        read(**{option: [text]})
    shown = ServeOptions.help_text(caught.value)
    assert line in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "`" not in shown
