"""What docs/new-backend.md shows works as shown, in the project and outside of it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import trio_chardev
from tests.services import PROGRAM, TIMEOUT, Qmp

PAGE = (Path(__file__).parent.parent / "docs" / "new-backend.md").read_text()
FILE, ROW, PROGRAM_OF_ONES_OWN = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
(COMMAND,) = re.findall(r"^```sh\ntrio-chardev (.*?)\n```$", PAGE, re.M | re.S)
TIME = r"\d\d:\d\d:\d\d\r\n"


def run(argv: Sequence[str], path: Path) -> str:
    """What *argv* prints, with *path* before all other places that Python imports from."""
    environ = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=path, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project to which the kind was added as the page says."""
    package = tmp_path / "trio_chardev"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(trio_chardev.__file__).parent, package, ignore=ignored)
    (package / "backends" / "clock.py").write_text(FILE)
    table = package / "backends" / "table.py"
    first = "KINDS: LazyTable[Kind[Any]] = LazyTable(\n    {\n"
    others, rows = table.read_text().split(first)
    table.write_text(f"{others}{first}{ROW}{rows}")
    return tmp_path


def test_it_is_about_forty_lines_long() -> None:
    lines = [line for line in FILE.splitlines() if line.strip()]
    assert 35 <= len(lines) <= 50


def test_with_its_row_the_command_line_knows_it(project: Path) -> None:
    told = run([*PROGRAM, "serve", "--chardev", "clock,help"], project)
    assert re.search(r"interval-ms=<num> +Milliseconds between two lines", told)
    assert re.search(
        r"^ *clock +Tells the time", run([*PROGRAM, "serve", "--chardev", "help"], project), re.M
    )


def test_with_its_row_it_is_served_and_qmp_knows_it(project: Path) -> None:
    path, log = project / "qmp", project / "log"
    monitor = f"unix:{path},server=on,wait=off"
    with subprocess.Popen(
        [*PROGRAM, *COMMAND.split(), "--qmp", monitor],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            with Qmp(path) as qmp:
                assert {"label": "c", "filename": "clock", "frontend-open": False} in qmp(
                    "query-chardev"
                )
                data = {"interval-ms": 0}
                assert qmp.add("d", "clock", **data) == (
                    "Failed to add chardev 'd': clock: 'interval-ms' must be positive"
                )
                assert qmp.add("d", "clock", interval="x") == (
                    "Parameter 'backend.data.interval' is unexpected"
                )
                assert qmp.add("d", "clock", logfile=str(log)) == {}
                assert log.exists()
        finally:
            process.terminate()
            process.wait(TIMEOUT)


def test_a_program_of_ones_own_checks_it_and_uses_it(tmp_path: Path) -> None:
    (tmp_path / "clock.py").write_text(FILE)
    (tmp_path / "program.py").write_text(PROGRAM_OF_ONES_OWN)
    told = run([sys.executable, "program.py"], tmp_path)
    assert re.fullmatch(TIME, ast.literal_eval(told).decode())
