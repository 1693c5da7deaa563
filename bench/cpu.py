"""The CPU time of processes, and waiting until a server has done what it does after its start."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from bench.contenders import OURS, Contender

NANOSECOND = 1e-9
DELAY = 0.6  # seconds in which `serve` has begun to import, and may have ended
LOOK = 0.2  # seconds
CALM = 0.02  # of a processor
PATIENCE = 5.0  # seconds; who is not calm by then is measured as it is


def cpu_time(pid: int) -> float:
    """Return the seconds that the threads of a process have run, which are counted exactly."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return total * NANOSECOND


def wait_calm(contender: Contender, pid: int, waited: float = 0.0) -> None:
    """Wait until *contender*, which has been in use for *waited* seconds, does nothing of its own accord.

    After its start `serve` imports in a thread what it has not used yet.
    """
    if contender != OURS:
        return
    time.sleep(max(0.0, DELAY + 2 * LOOK - waited))
    until = time.monotonic() + PATIENCE
    before = cpu_time(pid)
    while time.monotonic() < until:
        time.sleep(LOOK)
        now = cpu_time(pid)
        if now - before < CALM * LOOK:
            return
        before = now
