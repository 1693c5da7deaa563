"""What has happened to a chardev since it was added; its backends come and go meanwhile."""

from __future__ import annotations

import attrs

from trio_chardev.errors import reason_of


@attrs.define(eq=False, repr=False)
class Counts:
    """The counts of one chardev; none of them ever goes down."""

    received: int = 0
    """Bytes that have come from its other end."""
    sent: int = 0
    """Bytes that its other end was sent; what a change carries over counts once."""
    connects: int = 0
    """How often somebody has come to the other end, by a change too."""
    failures: int = 0
    """How often an attempt to reach the other end has failed, or a backend has ended by itself."""
    changes: int = 0
    """How often the backend was replaced."""
    failed_changes: int = 0
    """How often it could not be."""
    paused: float = 0.0
    """Seconds in which changes have let nothing pass."""
    last_pause: float | None = None
    """Those of the last change that has got so far as to stop what passes."""
    change_error: str | None = None
    """Why the last change has failed; None if it has not."""

    def note_connect(self) -> None:
        """Count that somebody has come."""
        self.connects += 1

    def note_failure(self) -> None:
        """Count that an attempt to reach the other end has failed, or that a backend has ended."""
        self.failures += 1

    def note_change(self) -> None:
        """Count a change that is made."""
        self.changes += 1
        self.change_error = None

    def note_failed_change(self, error: BaseException) -> None:
        """Count a change that has failed, or was cancelled."""
        self.failed_changes += 1
        is_error = isinstance(error, Exception)  # or else Cancelled, or a KeyboardInterrupt
        self.change_error = reason_of(error) if is_error else "it was cancelled"

    def note_pause(self, seconds: float) -> None:
        """Note that a change has let nothing pass for so long."""
        self.paused += seconds
        self.last_pause = seconds
