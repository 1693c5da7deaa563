"""Imports what a service has not used yet, once it listens.

A thread does, which lets the event loop go on every 5 ms (sys.getswitchinterval); commands but the first few
wait for it (`trio_chardev.qmp.server.answers`). So nothing is imported in the event loop, where it would
hold up everybody and fail without descriptors; and a service that runs on while the package is
replaced by another version has all of its own.
"""

from __future__ import annotations

import gc

from trio_chardev.importing import have_all


async def warm_up() -> None:
    """Have all that is left imported."""
    await have_all()
    gc.freeze()  # as at the start: what is imported stays
