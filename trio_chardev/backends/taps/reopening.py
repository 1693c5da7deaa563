"""Opening log files anew, for logrotate(8): it moves them away and then tells us."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.tap import Tap
from trio_chardev.errors import BackendError


async def reopen_logs(chardevs: Iterable[Chardev]) -> int:
    """Open the log files of *chardevs* anew, and return how many have one.

    All are tried, at the same time, as a disk may hang. Raises BackendError for the first that
    fails: it goes on in the file that it has open. Cancelled does not undo anything.
    """
    errors: list[BackendError] = []
    count = 0

    async def reopen(tap: Tap) -> None:
        nonlocal count
        try:
            count += await tap.reopen()
        except BackendError as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        for chardev in chardevs:
            for tap in chardev.backend.taps if chardev.is_started else ():
                nursery.start_soon(reopen, tap)
    if errors:
        raise errors[0]
    return count
