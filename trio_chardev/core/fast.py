"""The one switch of the fast ways beside the plain one: looking again, and going around this process.

They save time and nothing else: with `ways` off all goes the plain way, and slower. A run of the
tests does that (`pytest --plain`), and it shows whether a fault is one of the fast ways.
"""

from __future__ import annotations

import attrs


@attrs.define
class Ways:
    """The switch; whatever is about to take a fast way asks it."""

    are_taken: bool = True


ways = Ways()
