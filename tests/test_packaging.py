"""What is packed: the sdist has all that git has, a package also manual pages, completions, units."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.pages import Machine, shell_blocks
from tests.services import TIMEOUT
from trio_chardev.cli.manual import pages

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SHELLS = {
    "bash": "share/bash-completion/completions/trio-chardev",
    "zsh": "share/zsh/site-functions/_trio-chardev",
    "fish": "share/fish/vendor_completions.d/trio-chardev.fish",
}
MANUAL = {f"share/man/man{page.section}/{page.name}.{page.section}": page for page in pages()}


def git(*arguments: str) -> list[str]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    return done.stdout.splitlines()


def test_the_sdist_has_what_git_has() -> None:
    sdist: Any = pytest.importorskip("hatchling.builders.sdist")
    files = sdist.SdistBuilder(str(ROOT)).recurse_included_files()
    packed = {str(file.relative_path) for file in files} | {"pyproject.toml", ".gitignore"}
    new = set(git("ls-files", "--others", "--exclude-standard"))  # somebody works on them
    assert packed - new == set(git("ls-files"))


def test_a_package_has_all_files_where_a_distribution_has_them(tmp_path: Path) -> None:
    """By the commands of docs/install.md; so the wheel has them, too."""
    pytest.importorskip("hatchling")
    machine, there = Machine(tmp_path), tmp_path / "there"
    machine.add_program("pip", [sys.executable, "-m", "pip"])
    (commands,) = (b for b in shell_blocks("docs/install.md") if "$DESTDIR" in b.text)
    machine.run(f"DESTDIR={there}\n{commands.text}", cwd=ROOT)
    files = {str(path.relative_to(there)): path for path in there.rglob("*") if path.is_file()}
    package = re.compile(r"usr/(?:local/)?lib/python3[^/]*/[^/]*-packages/(trio_chardev/.*)")
    ours = {found[1] for file in files if (found := package.fullmatch(file))}
    here = (ROOT / "trio_chardev").rglob("*")
    assert {name for name in ours if not name.endswith(".pyc")} == {
        str(path.relative_to(ROOT))
        for path in here
        if path.is_file() and "__pycache__" not in path.parts
    }
    others = {file for file in files if "-packages/" not in file}
    units = {file for file in others if file.endswith(".service")}
    assert {file.replace("usr/local/", "usr/") for file in others - units} == {
        *(f"usr/{path}" for path in (*MANUAL, *SHELLS.values())),
        "usr/bin/trio-chardev",
        "usr/lib/systemd/system/trio-chardev.socket",
        "usr/lib/sysusers.d/trio-chardev.conf",
        "usr/lib/tmpfiles.d/trio-chardev.conf",
        "etc/logrotate.d/trio-chardev",
    }
    assert units == {f"usr/lib/systemd/{of}/trio-chardev.service" for of in ("system", "user")}
    for unit in units:
        assert "ExecStart=/usr/bin/trio-chardev serve" in files[unit].read_text()
    assert importlib.metadata.version("trio-chardev"), "what is installed here stays"


@pytest.mark.parametrize("path", MANUAL)
def test_the_manual_pages_are_those_of_this_version(path: str) -> None:
    assert (ROOT / path).read_text() == MANUAL[path].text(), "`just man` writes them"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_completions_that_are_packed_complete(shell: str, tmp_path: Path) -> None:
    """As the shell reads them at the first TAB."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "trio-chardev"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m trio_chardev "$@"\n')
    program.chmod(0o755)
    typed = {
        "bash": 'source "$1"\nCOMP_WORDS=(trio-chardev his) COMP_CWORD=1\n'
        '_trio_chardev_completion trio-chardev\necho "${COMPREPLY[@]}"\n',
        "zsh": "autoload -U compinit; compinit -D\n"
        "compadd() { print -l $completions }\n"
        "words=(trio-chardev his) CURRENT=2\n"
        "_describe() { print ${completions_with_descriptions[1]%%:*} }\n"
        'source "$1"\n',
        "fish": "source $argv[1]\ncomplete -C 'trio-chardev his'\n",
    }
    script = tmp_path / "script"
    script.write_text(typed[shell])
    done = subprocess.run(
        [shell, str(script), str(ROOT / SHELLS[shell])],
        env={**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.stdout.split()[:1] == ["history"], done.stderr


def test_the_pythons_that_are_named_are_those_of_ci() -> None:
    named = {
        classifier.rpartition(" ")[2]
        for classifier in PROJECT["classifiers"]
        if classifier.startswith("Programming Language :: Python :: 3.")
    }
    tried = (ROOT / ".ci" / "pythons").read_text()
    (others,) = (line for line in tried.splitlines() if line.startswith("versions="))
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert named == {lowest, *others.partition("=")[2].strip('"').split()}
