"""A table imports a row when it is used, and lists its names without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trio_chardev.options.lazy import LazyTable

NAMES = ("lazy_one", "lazy_two", "lazy_three")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LazyTable[str]]:
    """A table of three rows, each in a module of its own."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"ROW = {name!r}\nGROUP = {{'a': 'a of {name}'}}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield LazyTable({name: f"{name}:ROW" for name in NAMES})
    for name in NAMES:
        sys.modules.pop(name, None)


def imported() -> set[str]:
    return set(NAMES) & sys.modules.keys()


def test_names_are_known_without_an_import(table: LazyTable[str]) -> None:
    assert (list(table), len(table), "lazy_two" in table) == (list(NAMES), 3, True)
    assert "other" not in table
    assert table.get("other") is None
    assert not imported()


def test_a_row_is_imported_when_it_is_asked_for(table: LazyTable[str]) -> None:
    assert table["lazy_two"] == "lazy_two"
    assert imported() == {"lazy_two"}


def test_a_row_of_a_group_is_found_in_its_dict(table: LazyTable[str]) -> None:
    groups: LazyTable[str] = LazyTable.of_groups({"lazy_one:GROUP": ("a",)})
    assert dict(groups) == {"a": "a of lazy_one"}


def test_a_row_that_was_added_needs_no_import(table: LazyTable[str]) -> None:
    table.add("mine", "row")
    assert (table["mine"], [*table][-1]) == ("row", "mine")
    assert dict(table.imported()) == {"mine": "row"}


def test_a_search_begins_with_what_is_imported(table: LazyTable[str]) -> None:
    import lazy_two  # type: ignore[import-not-found]

    assert next(table.imported_first()) == ("lazy_two", lazy_two.ROW)
    assert imported() == {"lazy_two"}
    assert dict(table.imported_first()) == {name: name for name in NAMES}


def test_a_column_imports_no_more_than_its_table(table: LazyTable[str]) -> None:
    sizes = table.column(len, {"other": 5})
    assert (list(sizes), len(sizes), "lazy_one" in sizes) == ([*NAMES, "other"], 4, True)
    assert (sizes["lazy_three"], sizes["other"], sizes.get("none")) == (10, 5, None)
    assert imported() == {"lazy_three"}
    assert next(sizes.imported_first()) == ("lazy_three", 10)


def test_what_is_not_there_is_told(table: LazyTable[str]) -> None:
    with pytest.raises(KeyError):
        table["other"]
    with pytest.raises(KeyError):
        table.column(len)["other"]
