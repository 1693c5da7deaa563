"""How much a monitor does for its client before other tasks run.

It is counted rather than timed, so it is the same on every machine. A unit takes a few us.
"""

from __future__ import annotations

from typing import Final

import attrs

from trio_chardev.qmp.json.codec import PORTION

TURN: Final = 2 * PORTION  # units: a portion of messages is decoded and answered
WAITING: Final = 8  # units for a command that may wait, even if it did not
OUTPUT: Final = 10  # a unit for each 1 << OUTPUT bytes of output
PRETTY_OUTPUT: Final = 7  # the same for indented output, which is slower: not printed in C


@attrs.define(eq=False, repr=False)
class Turn:
    """The work between two checkpoints. Each message or token found is a unit, and each reply."""

    output: int = OUTPUT
    left: int = TURN
    is_over: bool = False
    """Must other tasks run first? The units left are for replies to messages found already."""

    @property
    def left_for_output(self) -> int:
        """How many more bytes of output fit into this turn."""
        return max(0, self.left) << self.output

    def spend(self, units: int, size: int = 0) -> None:
        """Account for *units* of work, and for *size* bytes of output (negative: sent)."""
        self.left -= units + max(0, size >> self.output)
        self.is_over = self.left < PORTION

    def renew(self) -> None:
        """Begin a new turn, after other tasks have run."""
        self.left = TURN
        self.is_over = False
