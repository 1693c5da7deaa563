"""Completion in the shells: commands, options, and ids that a running service has."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from tests.cli.boards import board
from tests.cli.calls import Call
from tests.services import TIMEOUT
from trio_chardev.cli import cli, completing

PAGE = Path(__file__).parent.parent.parent / "docs" / "commands.md"


def completions(line: str) -> list[str]:
    """What a shell offers at the end of *line*, after the name of the program."""
    *words, incomplete = line.split(" ")
    shell = ShellComplete(cli, {}, "trio-chardev", "_TRIO_CHARDEV_COMPLETE")
    return [item.value for item in shell.get_completions(words, incomplete)]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is."""
    monkeypatch.setattr(completing, "TIMEOUT", TIMEOUT)


@pytest.mark.usefixtures("patient")
def test_ids_are_those_that_the_command_is_about(call: Call, path: Path, tmp_path: Path) -> None:
    with board(call, path, tmp_path):
        assert completions("attach ") == ["board"]
        assert completions("lend ") == ["board", "n"]
        assert completions("change b") == ["board", "board-console"]
        assert completions("remove b") == ["board", "board-bridge", "board-console"]
        assert completions("bridge board n") == ["n"]
        assert completions("add ") == []
        assert completions(f"history -s {path} ") == ["board"]
        call("remove", "board")


def test_commands_and_options() -> None:
    assert completions("his") == ["history"]
    assert completions("history --f") == ["--follow"]


def test_each_argument_that_is_an_id_is_completed() -> None:
    """Except where it is a new one."""
    without = {
        name
        for name, command in cli.commands.items()
        for param in command.params
        if isinstance(param, click.Argument) and param.make_metavar(click.Context(command)) in {"ID", "A", "B", "[ID]"}
        if param._custom_shell_complete is None
    }  # fmt: skip
    assert without == {"add"}


def test_without_a_service_nothing_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is there, it does not answer, or the address is none."""
    monkeypatch.setattr(completing, "TIMEOUT", 0.01)
    assert completions(f"attach -s {tmp_path}/none ") == []
    assert completions("attach -s tcp:x ") == []
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/silent")
        silent.listen()
        assert completions(f"attach -s {tmp_path}/silent ") == []


def lines() -> dict[str, str]:
    """The line of each shell, in the page."""
    rows = re.findall(r"^\| (\w+)[^|]*\| [^|]+ \| `(.+)` \|$", PAGE.read_text(), re.MULTILINE)
    return {shell: line.replace("\\|", "|") for shell, line in rows}


SCRIPTS = {
    "bash": "{line}\nCOMP_WORDS=(trio-chardev his) COMP_CWORD=1\n"
    '_trio_chardev_completion trio-chardev\necho "${{COMPREPLY[@]}}"\n',
    "zsh": "autoload -U compinit; compinit -D\n{line}\ncompadd() {{ print -l $completions }}\n"
    "words=(trio-chardev his) CURRENT=2\n_describe() {{ print ${{completions_with_descriptions[1]%%:*}} }}\n"
    "_trio_chardev_completion\n",
    "fish": "{line}\ncomplete -C 'trio-chardev his'\n",
}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_lines_in_the_page(shell: str, tmp_path: Path) -> None:
    """Each shell completes a command with it, by a program of that name in the path."""
    program = tmp_path / "trio-chardev"
    program.write_text(
        f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c 'from trio_chardev.cli import main; main()' \"$@\"\n"
    )
    program.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell].format(line=lines()[shell]))
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            [shell, str(script)], env=environment, capture_output=True, text=True, timeout=TIMEOUT
        )
    except FileNotFoundError:
        pytest.skip(f"{shell} is not installed")
    assert done.stdout.split()[:1] == ["history"], done.stderr
