"""docs/commands.md has what the program has, and each help fits a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tests.cli.calls import Call
from trio_chardev.cli import cli
from trio_chardev.cli.group import SECTIONS

ROOT = Path(__file__).parent.parent.parent
COMMANDS = sorted(cli.commands)


def row_of(name: str) -> str:
    """The row of the table for a command."""
    command = cli.commands[name]
    context = click.Context(command, info_name=name, help_option_names=["-h", "--help"])
    options = [
        max(param.opts, key=len)
        for param in command.params
        if isinstance(param, click.Option) and param.name != "socket"
    ]
    arguments = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    words = " ".join([name, *arguments]).replace("|", "\\|")
    shown = " ".join(f"`{option}`" for option in options)
    assert command.help is not None
    return f"| `{words}` | {shown} | {command.help.splitlines()[0]} |"


def test_the_page_has_each_command() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    rows = re.findall(r"^\| `.*\|$", page, re.MULTILINE)
    assert rows == [row_of(name) for name in COMMANDS]


def test_the_readme_points_to_it() -> None:
    assert "(docs/commands.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_fits_a_terminal(
    call: Call, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status, text, errors = call(*arguments, "-h")
    assert (status, errors) == (0, "")
    assert max(map(len, text.splitlines())) <= 80
    assert call(*arguments, "--help")[1] == text


def test_the_help_lists_each_command_once_with_a_line_that_is_not_cut(call: Call) -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == COMMANDS
    lines = call("--help")[1].splitlines()
    rows = [line for line in lines[lines.index("Consoles:") :] if line.startswith("  ")]
    assert [row.split()[0] for row in rows] == listed
    assert all(row.endswith(".") and not row.endswith("...") for row in rows)


def test_no_word_of_a_help_is_broken_at_a_hyphen(call: Call) -> None:
    text = call("serve", "--help")[1]
    assert "tls-creds-psk" in text
    assert "\u2011" not in text


def test_json_is_there_wherever_something_is_printed() -> None:
    silent = {"break", "bridge", "give", "kick", "remove", "reopen-logs", "retry"}
    # These have output of their own kind, or JSON anyway.
    own = {"attach", "check", "demo", "install-units", "events", "logs", "qmp", "serve"}
    own |= {"config-from-conserver", "config-from-ser2net"}
    without = {
        name
        for name, command in cli.commands.items()
        if not any(param.name == "as_json" for param in command.params)
    }
    assert without == silent | own
