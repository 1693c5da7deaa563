"""What all clients that a console ever had were sent, have typed and have missed."""

from __future__ import annotations

import attrs

from trio_chardev.backends.console.client import Client


@attrs.define
class Tally:
    """Sums over clients; none of them ever goes down."""

    sent: int = 0
    """Bytes of the output that they were sent."""
    received: int = 0
    """Bytes that have come from them."""
    skipped: int = 0
    """Bytes that they have not got because they were too slow."""

    def add(self, client: Client) -> None:
        """Add what *client* has had."""
        self.sent += client.sent
        self.received += client.received
        self.skipped += client.skipped
