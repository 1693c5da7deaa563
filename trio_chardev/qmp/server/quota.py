"""How much the clients of all monitors may have the service keep for them, in total.

Each one is bounded by itself (codec's limits for a message, monitor's for replies), but 256 times
that is more than a machine has. So once all together have `MEMORY_LIMIT`, one that has more than
its `FAIR_SHARE` is let go as soon as anything comes from it or is sent to it; who has less stays.
"""

from __future__ import annotations

from typing import Final

import attrs

MEMORY_LIMIT = 256 << 20
"""Bytes of unfinished messages and unsent replies, all clients together."""

FAIR_SHARE = 1 << 20
"""Bytes that a client may have in any case."""

TOKEN_COST: Final = 64
"""Bytes that a token of an unfinished message counts, besides its text: an empty list's size."""


@attrs.define(eq=False)
class Quota:
    """What the clients have, together."""

    total: int = 0

    def is_too_much(self, before: int, now: int) -> bool:
        """A client that had *before* has *now*: must it go?"""
        self.total += now - before
        return now > FAIR_SHARE and self.total > MEMORY_LIMIT
