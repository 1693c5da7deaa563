"""What the fast paths of a bridge need to know of one of its directions."""

from __future__ import annotations

from typing import Protocol

from trio_chardev.core.frontend import Frontend


class Direction(Protocol):
    """From `source` to `sink`; a `Flow`."""

    source: Frontend
    sink: Frontend
    sent: int
    """Bytes that the sink has taken."""
    is_at_work: bool
    """Does its task do the sending?"""

    def set_to_work(self) -> None:
        """Have its task do the sending, until all has been sent."""
