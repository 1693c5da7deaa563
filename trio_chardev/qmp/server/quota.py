"""How much memory the clients of all monitors may make the service use, in total.

Each client has limits of its own (the codec's for a message, the monitor's for replies), but 256
times that is more than a machine has. So once the total exceeds `MEMORY_LIMIT`, a client with more
than its `FAIR_SHARE` is disconnected as soon as it sends or is sent anything.
"""

from __future__ import annotations

from typing import Final

import attrs

MEMORY_LIMIT = 256 << 20
"""Bytes of unfinished messages and unsent replies of all clients."""

FAIR_SHARE = 1 << 20
"""Bytes that a client may use in any case."""

TOKEN_COST: Final = 64
"""What each token of an unfinished message adds to its text's bytes: the size of an empty list."""


@attrs.define(eq=False, repr=False)
class Quota:
    """The memory that all clients use."""

    total: int = 0

    def is_too_much(self, before: int, now: int) -> bool:
        """Account for a client that used *before* and uses *now* bytes: must it go?"""
        self.total += now - before
        return now > FAIR_SHARE and self.total > MEMORY_LIMIT
