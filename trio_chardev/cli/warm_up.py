"""Imports what a service has not used yet, once it listens.

A thread does, which lets the event loop go on every `TURN`, so that who has waited for the service is greeted
meanwhile; commands but the first few wait for it (`trio_chardev.qmp.server.answers`). So nothing is imported in the event loop, where it would
hold up everybody and fail without descriptors; and a service that runs on while the package is
replaced by another version has all of its own.
"""

from __future__ import annotations

import gc
import sys
from typing import Final

from trio_chardev.importing import have_all

TURN: Final = 0.0005  # seconds; Python's 5 ms would be as many for each step of a first answer


async def warm_up() -> None:
    """Have all that is left imported."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(TURN)
    try:
        await have_all()
    finally:
        sys.setswitchinterval(before)
    gc.freeze()  # as at the start: what is imported stays
