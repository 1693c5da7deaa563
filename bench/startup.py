"""How long it takes until a server can be used."""

from __future__ import annotations

import time

from bench.contenders import QSD, Contender
from bench.model import MILLISECONDS, Benchmark
from bench.processes import qmp_server


def startup(contender: Contender, size: int) -> list[float]:
    """Measure the seconds from starting the process until a client has negotiated."""
    times = []
    for _ in range(size):
        begin = time.perf_counter()
        with qmp_server(contender):
            times.append(time.perf_counter() - begin)
    return times


BENCHMARKS = (
    Benchmark(
        name="startup",
        title="start of `serve` until QMP answers",
        unit=MILLISECONDS,
        measure=startup,
        size=5,
        smoke=1,
        rivals=(QSD,),
    ),
)
