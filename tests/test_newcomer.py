"""docs/first-ten-minutes.md: somebody types what the page says, in four terminals, and sees what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.terminals import Terminal, program_at_terminal
from tests.pages import Machine, blocks_of
from tests.peers import need
from tests.services import TIMEOUT, running

PAGE = "docs/first-ten-minutes.md"
INSTALL, BOARD, FIRST, SERVE, ATTACH, WATCH, WHO, CHANGE, HISTORY, SECOND, RELOAD = (
    block.text for block in blocks_of(PAGE)
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A newcomer's machine, where the program is installed."""
    machine = Machine(tmp_path)
    venv = tmp_path / ".venv" / "bin"
    venv.mkdir(parents=True)
    (tmp_path / "bin" / "trio-chardev").rename(venv / "trio-chardev")
    for name, value in machine.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{venv}:{os.environ['PATH']}")  # as the page exports it
    return machine


@contextmanager
def left_running(command: str, folder: Path) -> Iterator[None]:
    """Type what ends with ``&``; at the end that is ended, with what it has started."""
    shell = subprocess.Popen(
        ["bash", "-c", command.rstrip().removesuffix("&")],
        cwd=folder,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(TIMEOUT)


def answers(board: Path) -> None:
    """Wait until socat has made it."""
    deadline = time.monotonic() + TIMEOUT
    while not board.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def at(command: str) -> Iterator[Terminal]:
    with program_at_terminal(["bash", "-c", f"exec {command}"]) as terminal:
        terminal.expect(b"[trio-chardev: attached to board-console")
        yield terminal


def test_all_that_the_page_says(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    need("socat")
    made, first_board = BOARD.splitlines()
    machine.run(made)
    folder = machine.folder / "first"
    monkeypatch.chdir(folder)
    (folder / "consoles.toml").write_text(FIRST)
    check, serve = SERVE.splitlines()
    second_board, change = CHANGE.splitlines()
    with left_running(first_board, folder):
        answers(folder / "board")
        assert machine.run(check, folder) == "right: 2 chardevs, 1 device, 0 objects\n"
        with running(*serve.split()[2:]) as service:
            assert service.wait_line().startswith("QMP at ")
            with at(ATTACH) as human:
                human.type(b"echo $((6 * 7))\r")
                human.expect(b"\n42\r\n")
                with at(WATCH) as watcher, left_running(second_board, folder):
                    watcher.expect(b"\n42\r\n")
                    who = machine.run(WHO, folder)
                    assert len(re.findall(r"\bread-only\b", who)) == 1
                    assert re.search(r"^board +serial .*/?board\b.* +open +2 ", who, re.M)
                    answers(folder / "other")
                    machine.run(change, folder)
                    human.type(b"echo $((7 * 8))\r")
                    for terminal in (human, watcher):
                        terminal.expect(b"[trio-chardev: backend changed]")
                        terminal.expect(b"\n56\r\n")
                    said = machine.run(HISTORY, folder)
                    assert said.index("\n42\n") < said.index("\n56\n")
                    with (folder / "consoles.toml").open("a") as file:
                        file.write(SECOND)
                    reloaded, rows = machine.run(RELOAD, folder).split("\n", 1)
                    assert reloaded == "added: vm, vm-console, vm-bridge"
                    assert re.search(r"^board +serial .*other\b.* +open +2 ", rows, re.M)
                    assert re.search(r"^vm +unix:vm\.sock +waiting ", rows, re.M)
                    human.type(b"echo still here\r")
                    watcher.expect(b"\nstill here\r\n")
                    service.process.send_signal(signal.SIGINT)
                    for terminal in (human, watcher):
                        terminal.expect(b"trying to connect again]")
                    assert service.process.wait(TIMEOUT) in (0, 130)


def test_it_is_installed_as_the_readme_has_it(machine: Machine) -> None:
    install, export = INSTALL.splitlines()
    assert (
        f"{install} && .venv/bin/trio-chardev demo\n"
        in Path(Path(__file__).parent.parent / "README.md").read_text()
    )
    where = machine.run(f"{export}\ncommand -v trio-chardev")
    assert where == f"{machine.folder}/.venv/bin/trio-chardev\n"
