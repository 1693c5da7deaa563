"""The switch of the fast paths: polling again, reading without waking a task, bypassing this process.

They only save time: with `ways` off everything takes the plain path, more slowly. A run of the
tests does that (`pytest --plain`), and shows whether a bug is in a fast path.
"""

from __future__ import annotations

import attrs


@attrs.define(repr=False)
class Ways:
    """The switch, which is asked before each use of a fast path."""

    are_taken: bool = True


ways = Ways()
