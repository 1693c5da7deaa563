"""What README.md shows works as shown."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.services import PROGRAM, TIMEOUT, Qmp, running

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [
    *(
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "docs/bridge.md",
        "docs/commands.md",
        "docs/security.md",
        "docs/python.md",
        "docs/serial.md",
        "docs/board-tools.md",
        "docs/from-ser2net.md",
    ),
    ".github/SECURITY.md",
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


def test_the_commands_that_find_the_service_by_themselves(tmp_path: Path) -> None:
    """In a session of their own, so that no other service is found."""
    (script,) = (block for block in blocks("sh") if "trio-chardev list" in block)
    script = script.replace("trio-chardev ", "program ")
    folder, serve, *others = script.replace("\\\n", "").splitlines()
    lines = [
        folder,
        f'program() {{ {shlex.join(PROGRAM)} "$@"; }}',
        f"{serve.removesuffix('&')} > {tmp_path}/said &",
        f"until grep -q QMP {tmp_path}/said; do sleep 0.05; done",
        *others,
        "program qmp quit",
        "wait",
    ]
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    ended = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={
            **os.environ,
            "XDG_RUNTIME_DIR": str(runtime),
            "TMPDIR": str(tmp_path),
            "PYTHONUNBUFFERED": "1",
        },
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"console +ringbuf", ended.stdout)
    assert "/dev/pts/" in ended.stdout
    assert re.search(r'"state": "closed"', ended.stdout)  # no VM, and nobody at the terminal


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
