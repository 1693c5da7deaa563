"""How long it takes until a server can be used, and until a command has asked it.

With byte code, as an installation has it: a checkout has none where PYTHONDONTWRITEBYTECODE is set, and
compiling takes longer than all the rest.
"""

from __future__ import annotations

import compileall
import subprocess
import tempfile
import time
from pathlib import Path

import trio_chardev
from bench.contenders import OURS, QSD, Contender
from bench.model import MILLISECONDS, Benchmark, BenchmarkError, Target
from bench.processes import SERVE, connect, qmp_server, running

MOST = 120.0  # milliseconds


def compile_all() -> None:
    """Write the byte code of the package, where it is not there yet."""
    compileall.compile_dir(Path(trio_chardev.__file__).parent, quiet=1)


def startup(contender: Contender, size: int) -> list[float]:
    """Measure the seconds from starting the process until a client has negotiated."""
    compile_all()
    times = []
    for _ in range(size):
        begin = time.perf_counter()
        with qmp_server(contender, wait_started=False):
            times.append(time.perf_counter() - begin)
    return times


def client(contender: Contender, size: int) -> list[float]:
    """Measure the seconds that `trio-chardev list` takes, from its start to its end."""
    assert contender == OURS
    compile_all()
    times = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        at = f"unix:{folder}/qmp.sock"
        with running([*SERVE, "--qmp", f"{at},server=on,wait=off"]) as server:
            connect(f"{folder}/qmp.sock", server).close()
            for _ in range(size):
                begin = time.perf_counter()
                done = subprocess.run(
                    [*SERVE[:-1], "list", "--socket", at], capture_output=True, check=False
                )
                times.append(time.perf_counter() - begin)
                if done.returncode:
                    raise BenchmarkError(done.stderr.decode(errors="replace"))
    return times


BENCHMARKS = (
    Benchmark(
        name="start",
        title="start of `serve` until QMP answers",
        unit=MILLISECONDS,
        measure=startup,
        size=5,
        smoke=1,
        rivals=(QSD,),
        targets=(Target(MOST),),
    ),
    Benchmark(
        name="start-client",
        title="`trio-chardev list`, from its start to its end",
        unit=MILLISECONDS,
        measure=client,
        size=5,
        smoke=1,
        targets=(Target(MOST),),
    ),
)
