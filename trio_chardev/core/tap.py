"""Observers of a backend's traffic, such as a log file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio

from trio_chardev.events import BackendEvent

log = logging.getLogger(__name__)


class Tap:
    """Is shown the traffic of a backend in place; a log file, for one.

    None of its methods may block; `reopen` may wait. If one raises, that is logged, and the tap is shown nothing more.
    A tap overrides those that it needs.
    """

    has_failed: bool = False
    """Has one of its methods raised?"""

    def activate(self) -> None:
        """Begin, as the backend is in place from now on: truncate a file, for one."""

    def sent(self, data: memoryview) -> None:
        """Note that the backend has accepted *data*."""

    def refused(self, data: memoryview) -> None:
        """Note that *data* will not be sent, as nobody is there."""

    def received(self, data: bytes) -> None:
        """Note that *data* has come from the backend."""

    def event(self, event: BackendEvent) -> None:
        """Note *event*, in order with the bytes; the first one says whether the backend is open."""

    def note(self, text: str) -> None:
        """Note *text*, which somebody who knows more than the bytes tells: who has come, say."""

    async def reopen(self) -> bool:
        """Open its file anew, as another may have the name by now; False if it has none.

        Raises BackendError; then it goes on in the file that it has open.
        """
        await trio.lowlevel.checkpoint()
        return False

    def replaced(self, before: str, after: str) -> None:
        """Note that another backend is in place; both names are as query-chardev shows them."""


def show(taps: Iterable[Tap], tell: Callable[[Tap], None]) -> None:
    """Call *tell* with each of *taps* that has not failed; raises nothing."""
    for tap in taps:
        if not tap.has_failed:
            try:
                tell(tap)
            except Exception:
                object.__setattr__(tap, "has_failed", True)  # it may be a frozen class
                log.exception("%s failed; it is shown nothing more", type(tap).__name__)
