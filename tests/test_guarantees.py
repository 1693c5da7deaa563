"""docs/guarantees.md names tests that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "guarantees.md").read_text()


def named() -> Iterator[tuple[str, str]]:
    """Each module and the beginning of a test's name; a name alone is of the module before it."""
    module = ""
    for span in re.findall(r"`([^`]+)`", PAGE):
        path, _, name = span.replace("\n", " ").partition(": ")
        if path.rpartition("/")[2].startswith("test_"):
            module = path
            yield module, name.strip().removesuffix("...")
        elif span.count("_") > 2:
            yield module, span.removesuffix("...")


def test_every_test_that_is_named_exists() -> None:
    names = list(named())
    assert len(names) > 40
    missing = [
        f"{module}: {name}"
        for module, name in names
        if f"def test_{name}" not in (TESTS / f"{module}.py").read_text()
    ]
    assert not missing
