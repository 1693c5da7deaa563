"""docs/configuration.md has each key that there is, and its examples are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trio_chardev.cli.options import ServeOptions
from trio_chardev.config.configuration import LISTS, LOG, TABLES, read_configuration
from trio_chardev.config.console import BRIDGE_KEYS, CONSOLE_KEYS, LOG_KEYS, OWN_KEYS

PAGE = (Path(__file__).parent.parent.parent / "docs" / "configuration.md").read_text()
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def rows_of(heading: str) -> list[list[str]]:
    """The rows of the table whose first column is called so."""
    _, _, table = PAGE.partition(f"| {heading} |")
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_each_table_is_there() -> None:
    described = {
        re.sub(r"^\[(\w+)\..*\]$", r"\1", names_in(row[0])[0]): row[1]
        for row in rows_of("table or key")
    }
    known = {**TABLES, **LISTS, "[log]": "the [log of the service](service-logs.md)"}
    assert sorted(described) == sorted(known)
    for name, text in known.items():
        assert described[name].startswith(text), name


def test_each_key_of_a_console_is_there() -> None:
    names = [name for row in rows_of("key") for name in names_in(row[0])]
    assert sorted(names) == sorted({*OWN_KEYS, *CONSOLE_KEYS, *BRIDGE_KEYS})
    described = {names_in(row[0])[0]: row[1].replace('"', "") for row in rows_of("key")}
    for key, text in OWN_KEYS.items():
        assert described[key].startswith(text.replace("`", "`")), key


def test_each_key_of_the_services_log_is_there() -> None:
    (row,) = [row for row in rows_of("table or key") if row[0] == "`[log]`"]
    assert all(f"`{key}` {text}" in row[1] for key, text in LOG.items())


def test_each_key_of_log_is_there() -> None:
    assert {names_in(row[0])[0]: names_in(row[1])[0] for row in rows_of("key of `log`")} == LOG_KEYS


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_are_right(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(text)
    configuration = read_configuration([str(tmp_path)])
    options = ServeOptions.parse([], [], [], None, print, configuration=configuration)
    assert options.chardevs
