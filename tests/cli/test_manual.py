"""The manual pages: they have all that there is, and groff has nothing to say about them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.services import TIMEOUT
from trio_chardev.access.table import OBJECT
from trio_chardev.backends.table import KINDS
from trio_chardev.cli import cli
from trio_chardev.cli.manual import SERVICE, pages
from trio_chardev.cli.roff import ManualPage, escaped
from trio_chardev.config.configuration import LISTS, TABLES
from trio_chardev.config.console import BRIDGE_KEYS, CONSOLE_KEYS, LOG_KEYS, OWN_KEYS
from trio_chardev.devices.table import DEVICE
from trio_chardev.options.grammar import option_rows

PAGES = {page.section: page for page in pages()}


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_each_command_is_there_with_its_options(name: str) -> None:
    text = PAGES[8 if name in SERVICE else 1].text()
    _, _, rest = text.partition(f'.SS "{escaped(name)}' if name not in SERVICE else f'.SS "{name}"')
    part = re.split(r"^\.S[HS]", rest, maxsplit=1, flags=re.MULTILINE)[0]
    for param in cli.commands[name].params:
        if isinstance(param, click.Option) and param.name != "socket":
            assert escaped(max(param.opts, key=len)) in part


def test_each_option_of_a_configuration_is_there() -> None:
    text = PAGES[5].text()
    variants = {name: kind.options for name, kind in KINDS.items()}
    for name, cls in (variants | dict(DEVICE.variants) | dict(OBJECT.variants)).items():
        assert f'.SS "{escaped(name)}"' in text
        for option, _ in option_rows(name, cls):
            assert f"\\fB{escaped(option)}\\fR" in text
    for key in (*TABLES, *LISTS, *OWN_KEYS, *LOG_KEYS, *CONSOLE_KEYS, *BRIDGE_KEYS):
        assert escaped(key) in text


def test_examples_stay_as_they_are() -> None:
    text = PAGES[1].text()
    assert "\n.nf\ntrio\\-chardev add board serial," in text
    assert "\b" not in text


def test_no_text_is_a_command() -> None:
    page = ManualPage("x", 1, ".so y", "1")
    page.paragraph(".so /etc/passwd 'so \\fBx `a\\b` é")
    page.example(".so x\n'so y\n\\n")
    page.item(".x", "")
    text = page.text()
    assert "\n.so" not in text
    assert "\n'so" not in text
    assert "\\&.so /etc/passwd \\(aqso \\efBx \\fBa\\eb\\fR \\[u00E9]\n" in text
    assert "\n\\(aqso y\n\\en\n" in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("section", PAGES)
def test_groff_shows_them_without_a_warning(section: int) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww"],
        input=PAGES[section].text(),
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "trio-chardev" in done.stdout


def test_the_program_writes_them_where_man_looks(tmp_path: Path) -> None:
    """As docs/commands.md says."""
    subprocess.run(
        [sys.executable, "-m", "trio_chardev.cli.manual", tmp_path],
        check=True,
        capture_output=True,
        timeout=TIMEOUT,
    )
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.?")}
    assert written == {
        "man1/trio-chardev.1",
        "man5/trio-chardev.toml.5",
        "man8/trio-chardev-serve.8",
    }
