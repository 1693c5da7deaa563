"""Tables whose rows are imported when they are used.

Most programs use few of the kinds, devices and commands, and importing them all would be most of the
time in which a program starts. A table knows the names of its rows, and where each is:
``module:name``, as in the entry points of packages. What lists names imports nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from itertools import chain
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from trio_chardev.plain_errors import OptionsError

T = TypeVar("T")
S = TypeVar("S")
NO_OTHERS: Mapping[str, Any] = MappingProxyType({})


class LazyTable(Mapping[str, T]):
    """Rows by their names; *places* are where they are.

    Taking a row raises OptionsError if it can't be imported now.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self.places = dict(places)
        self._rows: dict[str, T] = {}

    @classmethod
    def of_groups(cls, groups: Mapping[str, Iterable[str]]) -> LazyTable[T]:
        """Make a table of *groups*: at each place is a dict, with the rows of these names."""
        return cls({name: f"{place}:{name}" for place, names in groups.items() for name in names})

    def __getitem__(self, name: str) -> T:
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = self._load(name)
        return row

    def _load(self, name: str) -> T:
        module, attribute, *key = self.places[name].split(":")
        try:
            found = getattr(import_module(module), attribute)
        except (ImportError, OSError) as exc:  # no descriptors; or the package is being replaced
            raise OptionsError(f"'{name}' can't be used now: {exc}") from exc
        row: T = found[key[0]] if key else found
        return row

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def add(self, name: str, row: T) -> None:
        """Add a row that needs no import."""
        self.places[name] = ""
        self._rows[name] = row

    def imported(self) -> Iterator[tuple[str, T]]:
        """The rows that are imported already, by this table or somebody else."""
        for name, place in self.places.items():
            if name in self._rows or place.partition(":")[0] in sys.modules:
                yield name, self[name]

    def imported_first(self) -> Iterator[tuple[str, T]]:
        """All rows, for a search that imports no more than it must; some come twice."""
        return chain(self.imported(), self.items())

    def column(self, get: Callable[[T], S], others: Mapping[str, S] = NO_OTHERS) -> Column[T, S]:
        """The table of what *get* gives of each row, and of *others*."""
        return Column(self, get, others)


class Column(Mapping[str, S], Generic[T, S]):
    """See `LazyTable.column`."""

    def __init__(self, table: LazyTable[T], get: Callable[[T], S], others: Mapping[str, S]) -> None:
        self._table = table
        self._get = get
        self._others = others

    def __getitem__(self, name: str) -> S:
        return self._get(self._table[name]) if name in self._table else self._others[name]

    def __contains__(self, name: object) -> bool:
        return name in self._table or name in self._others

    def __iter__(self) -> Iterator[str]:
        return chain(self._table, self._others)

    def __len__(self) -> int:
        return len(self._table) + len(self._others)

    def imported_first(self) -> Iterator[tuple[str, S]]:
        """All rows, for a search that imports no more than it must; some come twice."""
        own = ((name, self._get(row)) for name, row in self._table.imported())
        return chain(own, self._others.items(), self.items())
