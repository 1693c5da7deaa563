"""The commands that the pages print, and a machine that runs them to the letter."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs

from tests.services import PROGRAM, TIMEOUT

ROOT = Path(__file__).parent.parent
SHELL = frozenset({"sh", "console"})
"""The languages of blocks of commands; in a ``console`` they begin with ``$``."""


@attrs.frozen
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands, each on one line and without a remark behind it."""
        lines = self.text.replace("\\\n", "").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [re.sub(r"\s+# .*", "", line) for line in lines]


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page, whose path is from the project's folder."""
    text = (ROOT / page).read_text()
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def shell_blocks(page: str) -> list[Block]:
    """Those of commands."""
    return [block for block in blocks_of(page) if block.language in SHELL]


@attrs.define
class Machine:
    """A folder with programs, and what names on the pages stand for in it."""

    folder: Path
    names: dict[str, str] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        (self.folder / "bin").mkdir()
        (self.folder / "run").mkdir(mode=0o700)
        self.add_program("trio-chardev", PROGRAM)

    def add_program(self, name: str, words: list[str]) -> None:
        """Have *name* run that."""
        script = self.folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        script.chmod(0o755)

    @property
    def environ(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "HOME": str(self.folder),
            "PATH": f"{self.folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.folder),
            "XDG_RUNTIME_DIR": f"{self.folder}/run",
        }

    def named(self, text: str) -> str:
        """*text* with the names of this machine."""
        for name, here in self.names.items():
            text = text.replace(name, here)
        return text

    def run(self, script: str, cwd: Path | None = None) -> str:
        """Run *script* in bash until its first command that fails; return what it prints."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", self.named(script)],
            cwd=cwd or self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def blocks_below(page: str, heading: str) -> list[Block]:
    """The blocks of the part of a page that has that heading."""
    text = (ROOT / page).read_text()
    begin = text.index(f"\n## {heading}\n") + 1
    end = text.find("\n## ", begin)
    first, last = text.count("\n", 0, begin), text.count("\n", 0, end if end != -1 else None)
    return [block for block in blocks_of(page) if first < block.line <= last]
