"""How much a monitor does for its client before others have their turn.

It is counted, not measured, so that it is the same on each machine: a unit takes a few us.
"""

from __future__ import annotations

from typing import Final

import attrs

from trio_chardev.qmp.json.codec import PORTION

TURN: Final = 2 * PORTION  # units: so many messages are half found and half answered
WAITING: Final = 8  # units of a command that may wait, even if it did not have to
OUTPUT: Final = 10  # a unit is 1 << OUTPUT bytes that are to be sent
PRETTY_OUTPUT: Final = 7  # the same where they are indented, which is not done in C


@attrs.define(eq=False)
class Turn:
    """From one checkpoint to the next. A message or a token that is found is a unit, and an answer."""

    output: int = OUTPUT
    left: int = TURN
    is_over: bool = False
    """Have others to come first? What is left is for the answers to a portion's messages."""

    @property
    def left_for_output(self) -> int:
        """So many bytes more may be to be sent."""
        return max(0, self.left) << self.output

    def spend(self, units: int, size: int = 0) -> None:
        """Take note of what was done, and of *size* bytes more that are to be sent; or fewer."""
        self.left -= units + max(0, size >> self.output)
        self.is_over = self.left < PORTION

    def renew(self) -> None:
        """Others have had their turn."""
        self.left = TURN
        self.is_over = False
