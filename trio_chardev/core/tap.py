"""Who is shown the traffic of a backend, as a log file is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from trio_chardev.events import BackendEvent

log = logging.getLogger(__name__)


class Tap:
    """Is shown the traffic of a backend in place: a log file, for one.

    None of it may block. One that raises is logged, and shown nothing more. What a tap has no
    use for it leaves as it is here.
    """

    has_failed: bool = False
    """It has raised."""

    def activate(self) -> None:
        """The backend is in place from now on: truncate, for one."""

    def sent(self, data: memoryview) -> None:
        """*data* was accepted by the backend."""

    def refused(self, data: memoryview) -> None:
        """*data* will not be sent: nobody is there."""

    def received(self, data: bytes) -> None:
        """*data* has come from the backend."""

    def event(self, event: BackendEvent) -> None:
        """*event* has come, in order with the bytes; the first says whether it is open."""

    def replaced(self, before: str, after: str) -> None:
        """Another backend is in place from now on; both by what query-chardev shows."""


def show(taps: Iterable[Tap], tell: Callable[[Tap], None]) -> None:
    """Call *tell* with each of *taps* that has not failed; raises nothing."""
    for tap in taps:
        if not tap.has_failed:
            try:
                tell(tap)
            except Exception:
                object.__setattr__(tap, "has_failed", True)  # it may be a frozen class
                log.exception("%s failed; it is shown nothing more", type(tap).__name__)
