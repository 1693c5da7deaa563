"""Finds the programs that have a serial line open, to name them in an error."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

import trio

from trio_chardev.errors import BackendError
from trio_chardev.workers import run_in_worker

SEARCH_TIME = 0.5  # seconds; /proc is long where many programs run, and reading it may block
MAX_NAMED = 3


async def name_holders(device: str) -> str:
    """Name the other programs that have *device* open, as far as they are found in time."""
    found: list[str] = []
    with trio.move_on_after(2 * SEARCH_TIME), suppress(OSError):
        found = await run_in_worker(_find_holders, device)
    return f"{' and '.join(found) or 'another program'} {'have' if len(found) > 1 else 'has'} it"


def _find_holders(device: str) -> list[str]:
    """Give ``NAME (pid N)`` for each; only root sees the descriptors of other users' processes."""
    path = os.path.realpath(device)
    end = time.monotonic() + SEARCH_TIME
    found: list[str] = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if time.monotonic() > end or len(found) == MAX_NAMED:
            break
        if int(pid) != os.getpid() and _has_open(pid, path):
            with suppress(OSError), open(f"/proc/{pid}/comm", errors="replace") as comm:
                found.append(f"{comm.read().strip()} (pid {pid})")
    return found


def _has_open(pid: str, path: str) -> bool:
    with suppress(OSError):  # another user's, or it has ended
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{fd}") == path:
                    return True
    return False


async def explain_busy(device: str, error: BackendError) -> BackendError:
    """Add the holders to *error*, of opening *device*, if its cause is EBUSY."""
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno == errno.EBUSY:
        explained = BackendError(f"{error}: {await name_holders(device)}")
        explained.__cause__ = cause
        return explained
    return error
