"""docs/guarantees.md, security.md, peers.md, serial.md, logs.md ... name tests that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"


def named(page: str) -> Iterator[tuple[str, str]]:
    """Each module and the beginning of a test's name; a name alone is of the module before it."""
    module = ""
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", text):
        path, _, name = span.replace("\n", " ").partition(": ")
        if path.rpartition("/")[2].startswith("test_"):
            module = path
            yield module, name.strip().removesuffix("...")
        elif span.count("_") > 2:
            yield module, span.removesuffix("...")


@pytest.mark.parametrize(
    ("page", "count"),
    [
        ("guarantees.md", 40),
        ("security.md", 40),
        ("peers.md", 20),
        ("serial.md", 20),
        ("logs.md", 15),
        ("consoles.md", 40),
        ("waiting.md", 15),
        ("configuration.md", 10),
        ("attach.md", 15),
        ("systemd.md", 14),
        ("service-logs.md", 25),
    ],
)
def test_every_test_that_is_named_exists(page: str, count: int) -> None:
    names = list(named(page))
    assert len(names) > count
    missing = [
        f"{module}: {name}"
        for module, name in names
        if f"def test_{name}" not in (TESTS / f"{module}.py").read_text()
    ]
    assert not missing


def test_no_row_of_security_is_without_a_test() -> None:
    _, table = (DOCS / "security.md").read_text().split("## The tests")
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 25
    assert [row for row in rows if "test_" not in row.split("|")[3]] == []
