"""Flood a service in each way, and measure the round trips of a QMP client beside it."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.hostile.beside import ask, flooding
from tests.hostile.floods import FLOODS, QMP_FLOODS, Make
from tests.services import Qmp
from tests.soak.meter import Service

TYPICAL: Final = 0.05  # seconds that 99 of 100 round trips may take
LONGEST: Final = 0.1
GROWTH: Final = 32 << 20  # bytes of memory


def measure(make: Make, folder: Path, seconds: float) -> tuple[list[float], int]:
    """Return the round trips, the longest last, and by how much memory has grown."""
    service = Service.start(folder)
    try:
        with Qmp(service.path) as qmp:
            place = make(folder)
            before = service.memory
            with flooding(qmp, place):
                times = ask(qmp, seconds)
            return sorted(times), service.memory - before
    finally:
        service.kill()


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    floods = {**FLOODS, **QMP_FLOODS}
    names = [name for name in floods if name.startswith(tuple(sys.argv[2:]) or "")]
    print("round trips of a client of QMP: typical, 99 of 100, the longest; growth of memory")
    status = 0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            times, growth = measure(floods[name], Path(folder), seconds / len(names))
        half, most, longest = (times[int(part * (len(times) - 1))] for part in (0.5, 0.99, 1))
        is_bad = most > TYPICAL or longest > LONGEST or growth > GROWTH
        print(
            f"{name:<36} {half * 1e3:8.2f} {most * 1e3:8.2f} {longest * 1e3:8.2f} ms"
            f" {growth >> 10:8} KiB{'  TOO MUCH' if is_bad else ''}",
            flush=True,
        )
        status |= is_bad
    return status


if __name__ == "__main__":
    sys.exit(main())
