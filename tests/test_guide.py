"""The programs of docs/python.md run as they are printed, and pass mypy, as docs/new-backend.md's do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_new_backend import FILE as CLOCK, PROGRAM_OF_ONES_OWN

PAGE = (Path(__file__).parent.parent / "docs" / "python.md").read_text()
PROGRAMS = dict(
    re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?^```python\n(.*?)^```$", PAGE, re.M | re.S)
)

PRINTS = {
    "A test of a board": "played back: 'root\\r\\nlast boot: never\\r\\n'\n",
    "Fifty lines, a TCP port each": "b'over the wire\\n'\nopen 14 0\n",
    "A VM's console between a ring and a socket": (
        "b'said while nobody looked\\n'\nb'typed by the viewer\\n'\n"
    ),
    "A kind of your own": "b'42'\nb'the same user, another program'\n",
    "The service inside a program": "'0\\n1\\n2\\n'\n",
}


def test_there_are_these_programs() -> None:
    assert set(PROGRAMS) == set(PRINTS)


@pytest.mark.parametrize("name", PRINTS)
def test_it_prints_what_it_should(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS[name]],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == (PRINTS[name], "")


def test_they_and_the_clock_of_new_backend_pass_mypy(tmp_path: Path) -> None:
    for number, program in enumerate([*PROGRAMS.values(), PROGRAM_OF_ONES_OWN]):
        (tmp_path / f"program{number}.py").write_text(program)
    (tmp_path / "clock.py").write_text(CLOCK)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "."],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
