"""Imports what a service has not used yet, once it has run for a moment.

So nobody who uses a kind or a command first waits for its import, which takes up to 20 ms, and a
service that runs on while the package is replaced by another version has all of its own. A thread
imports, which lets the event loop go on every 5 ms (sys.getswitchinterval).
"""

from __future__ import annotations

import gc
from typing import Final

import trio

from trio_chardev.importing import have_all

DELAY: Final = 1.0  # seconds; a service that ends before, as in a test, does without


async def warm_up() -> None:
    """Have all that is left imported, after `DELAY`."""
    await trio.sleep(DELAY)
    await have_all()
    gc.freeze()  # as at the start: what is imported stays
