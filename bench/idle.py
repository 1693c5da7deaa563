"""What it costs a relay that serial lines and their TCP clients are there, and nothing moves."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from itertools import chain

from bench.contenders import SER2NET, Contender
from bench.cpu import cpu_time, wait_calm
from bench.model import Benchmark, BenchmarkError, Target, Unit
from bench.processes import SERVE, connect, need_files, running
from bench.relays import HOST, Link, free_ports, ser2net_command, serial_far

LINES = 100
SETTLING = 1.0  # seconds, with so many lines
MOST_SETTLING = 3.0
CPU_TIME = Unit("ms/s", 1e3)


def idle_time(contender: Contender, tenths: int, lines: int = LINES) -> list[float]:
    """Measure the seconds of CPU time a second, over *tenths* of one, for *lines* lines with a client."""
    if tenths == 1:  # a smoke run
        lines = 2
    need_files(4 * lines)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        links = [
            Link("tcp", "serial", port, serial_far(folder, stack)[0], folder)
            for port in free_ports(lines)
        ]
        process = stack.enter_context(running(command_of(contender, links)))
        for link in reversed(links):  # when the last one listens, no client takes a port of others
            stack.enter_context(connect(link.near_at, process))
        time.sleep(settling(lines))
        if tenths > 1:
            wait_calm(contender, process.pid, settling(lines))
        before, begin = cpu_time(process.pid), time.monotonic()
        time.sleep(tenths / 10)
        if process.poll() is not None:
            raise BenchmarkError("it has ended")
        return [(cpu_time(process.pid) - before) / (time.monotonic() - begin)]


def settling(lines: int) -> float:
    """Return the seconds until everybody has noticed the clients of so many lines."""
    return SETTLING * min(MOST_SETTLING, lines / LINES)


def command_of(contender: Contender, links: Sequence[Link]) -> list[str]:
    """Return the command that joins all *links* in one process."""
    if contender == SER2NET:
        return ser2net_command(*links)
    qmp = ["--qmp", f"unix:{links[0].folder}/qmp.sock,server=on,wait=off"]
    return [*SERVE, *qmp, *chain.from_iterable(map(bridge_options, range(len(links)), links))]


def bridge_options(number: int, link: Link) -> list[str]:
    """Return the options that make one bridge of ours."""
    far, near = f"far{number}", f"near{number}"
    return [
        *("--chardev", f"serial,id={far},path={link.far_at}"),
        *("--chardev", f"socket,id={near},host={HOST},port={link.near_at[1]},server=on,wait=off"),
        *("--device", f"bridge,chardev={far},peer={near}"),
    ]


BENCHMARKS = (
    Benchmark(
        name="bridges-idle",
        title=f"CPU time of {LINES} idle bridges from serial lines to TCP",
        unit=CPU_TIME,
        measure=idle_time,
        size=30,
        smoke=1,
        most_rounds=1,
        rivals=(SER2NET,),
        targets=(Target(1.0),),
    ),
)
