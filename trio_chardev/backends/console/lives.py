"""The lives of a history: each start of a service that goes on with a history's file is one.

What was printed last before a crash may have been seen, and not be in the file; then the next life counts on
from an earlier cursor. So one who comes again says in which life he has counted.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import attrs

NUMBER_BITS = 53  # what all readers of JSON keep exactly
MAX_LIVES = 8  # that are remembered


@attrs.frozen
class Lives:
    """The newest lives of one history, by number, with the cursors at which they began."""

    begins: Mapping[int, int]

    @classmethod
    def parse(cls, value: Any) -> Lives:
        """Read what `to_json` has made; what is damaged is as if there were none."""
        if not isinstance(value, list) or not all(
            isinstance(pair, list) and [type(item) for item in pair] == [int, int] for pair in value
        ):
            return cls({})
        return cls(dict(value))

    def to_json(self) -> list[list[int]]:
        """Return them for the history's file."""
        return [[number, begin] for number, begin in self.begins.items()]

    def another(self, begin: int) -> Lives:
        """Return them with one more, which begins at the cursor *begin*."""
        kept = list(self.begins.items())[1 - MAX_LIVES :]
        return Lives({**dict(kept), secrets.randbits(NUMBER_BITS): begin})

    @property
    def number(self) -> int:
        """The number of this life."""
        return next(reversed(self.begins))

    def resume(self, cursor: int, number: int) -> int | None:
        """Where one goes on who was at *cursor* in the life *number*; None if that is not known.

        What he has seen and is not in the file was counted from where the next life begins.
        """
        if number not in self.begins:
            return None
        numbers = list(self.begins)
        later = numbers[numbers.index(number) + 1 :]
        return min([cursor, *(self.begins[one] for one in later)])
