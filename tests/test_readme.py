"""What README.md shows works as shown."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.pages import Machine
from tests.services import PROGRAM, TIMEOUT, Qmp, running
from tests.terminals import read_until, until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / ".github" / "SECURITY.md")
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_ci_runs_the_test_command_to_the_letter() -> None:
    (command,) = (block for block in blocks("sh") if "pytest" in block)
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert command.rstrip("\n") in lines


def test_the_first_two_commands_are_demo_and_tests() -> None:
    demo, tests = blocks("sh")[:2]
    assert demo.rstrip().endswith("/bin/trio-chardev demo")
    assert tests.rstrip().endswith("/bin/python -m pytest")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text())
    for link in links:
        if not link.startswith(("https://", "mailto:")):
            assert (ROOT / page).parent.joinpath(link).exists(), link


def test_the_example_for_the_shell(tmp_path: Path) -> None:
    """The command of the service, and what is typed into it."""
    command = next(block for block in blocks("sh") if "--qmp" in block)
    arguments = command.replace("$dir/", f"{tmp_path}/").split()
    assert arguments[:2] == ["trio-chardev", "serve"]
    (dialogue,) = blocks("console")
    with running(*arguments[2:]), Qmp(tmp_path / "qmp.sock", negotiate=False) as qmp:
        for line in dialogue.splitlines():
            if line.startswith('{"execute"'):
                qmp.write(line.encode())
            elif line.startswith('{"return"'):
                assert set(qmp.read()) == {"return"}


@contextmanager
def shell(script: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run *script* in the project's folder, where the program is in ``.venv``."""
    machine = Machine(folder)
    (folder / ".venv").mkdir()
    (folder / "bin").rename(folder / ".venv" / "bin")
    process = subprocess.Popen(
        ["bash", "-e", "-c", script],
        cwd=folder,
        env=machine.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=TIMEOUT)


def test_the_console_of_a_vm_shows_what_was_kept(tmp_path: Path) -> None:
    """To the letter; with pauses in which the VM prints, and somebody looks.

    In a session of their own, so that no other service is found.
    """
    (script,) = (block for block in blocks("sh") if "trio-chardev list" in block)
    for command in ("list", "change"):
        script = script.replace(f"trio-chardev {command}", f"read; trio-chardev {command}")
    with shell(f"{script}echo changed; read; trio-chardev qmp quit; wait", tmp_path) as typed:
        assert typed.stdin is not None
        assert typed.stdout is not None
        with (
            Qmp(tmp_path / "run" / "trio-chardev" / "qmp.sock") as qmp,
            socket.socket(socket.AF_UNIX) as vm,
        ):
            (folder,) = tmp_path.glob("tmp.*")
            vm.connect(f"{folder}/guest.sock")
            vm.sendall(b"login: ")
            until(lambda: qmp("query-devices")[0]["to-peer"]["bytes"] == 7)
            typed.stdin.write("\n\n")
            typed.stdin.flush()
            shown = ""
            while not shown.endswith("changed\n"):
                line = typed.stdout.readline()
                assert line, shown
                shown += line
            assert re.search(r"console +ringbuf", shown)
            assert "/dev/pts/" in shown
            picocom = os.open(folder / "console", os.O_RDWR | os.O_NOCTTY)
            try:
                assert read_until(picocom, b"login: ")[0] == b""
            finally:
                os.close(picocom)
            typed.stdin.write("\n")
            typed.stdin.flush()
            assert typed.wait(TIMEOUT) == 0


def test_the_example_for_python(tmp_path: Path) -> None:
    (example,) = blocks("python")
    link = tmp_path / "console0"
    program = tmp_path / "example.py"
    program.write_text(example)
    process = subprocess.Popen(
        [sys.executable, str(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("now at /dev/pts/")
        user = os.open(link, os.O_RDWR | os.O_NOCTTY)
        try:
            os.write(user, b"hello\n")
            out, errors = process.communicate(timeout=TIMEOUT)
        finally:
            os.close(user)
    finally:
        process.kill()
        process.communicate()
    assert (out, errors, process.returncode) == ("b'hello\\n'\n", "", 0)


def names(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    return done.stdout


def test_what_is_said_of_the_help_is_there() -> None:
    assert "--chardev" in names([*PROGRAM, "serve", "--help"])
    assert "ringbuf" in names([*PROGRAM, "serve", "--chardev", "help"])
