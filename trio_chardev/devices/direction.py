"""What a bridge's fast paths need to know about one of its directions."""

from __future__ import annotations

from typing import Protocol

from trio_chardev.core.frontend import Frontend


class Direction(Protocol):
    """One direction, from `source` to `sink`. `Flow` is one."""

    source: Frontend
    sink: Frontend
    sent: int
    """Bytes that the sink has taken."""
    is_at_work: bool
    """Does the flow's task send now, rather than whoever reads the source?"""

    def set_to_work(self) -> None:
        """Wake the flow's task, which sends until everything has been sent."""
