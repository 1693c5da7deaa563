"""What those who are there notice when a crowd comes, or goes, or changes its backends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Sequence

from bench.client import QmpConnection, command
from bench.contenders import OURS, SER2NET, Contender
from bench.lines import LINE, Load, consoles, use
from bench.model import MILLISECONDS, Benchmark, BenchmarkError
from bench.processes import connect
from bench.relays import Address, Link

CROWD = 1000
BUSY = Load(10, 20)
ALL_BUSY = Load(CROWD, 2)
CHANGES = 100  # a second
CHANGING, UNCHANGED = Contender(f"{CHANGES} changes a second"), Contender("none")
READ_SIZE = 1 << 16  # bytes
PATIENCE = 20.0  # seconds until the whole crowd is served
PAUSE = 0.1  # seconds


def crowd_of(size: int) -> int:
    """Return how many come or go in a run of *size* lines, which may be a test."""
    return CROWD if size >= 100 else size


def come(contender: Contender, size: int) -> list[float]:
    """Measure the seconds that lines of busy consoles take while a crowd connects to others."""
    load = BUSY.of(size)
    with consoles(contender, load.consoles + crowd_of(size), clients=load.consoles) as place:
        fork = multiprocessing.get_context("fork")
        crowd = fork.Process(target=connect_all, args=(place.vacant,), daemon=True)
        crowd.start()
        try:
            waits = use(place, load, size)
            for far in place.vacant_fars:
                os.set_blocking(far, False)
            until = time.monotonic() + PATIENCE
            while crowd.is_alive() and time.monotonic() < until:
                for far in place.vacant_fars:  # again and again: what nobody reads may be dropped
                    with contextlib.suppress(BlockingIOError):
                        os.write(far, LINE)
                crowd.join(PAUSE)
            if crowd.exitcode != 0:
                raise BenchmarkError("not all of the crowd are served")
        finally:
            crowd.kill()
            crowd.join()
        return waits


def connect_all(addresses: Sequence[Address]) -> None:
    """Connect to all, and return when each has sent a line; else raise."""
    clients = [connect(each) for each in addresses]
    for client in clients:
        got = b""
        while LINE not in got:
            if not (data := client.recv(READ_SIZE)):
                raise EOFError
            got += data


def go(contender: Contender, size: int) -> list[float]:
    """Measure the seconds that lines of busy consoles take when the devices of others hang up.

    ser2net 4.3.11 lets go of those who are served, too, when a thousand do.
    """
    load = BUSY.of(size)
    with consoles(contender, load.consoles + crowd_of(size)) as place:
        place.ends, others = place.ends[: load.consoles], place.ends[load.consoles :]
        use(place, load, load.consoles)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for end in others:
            os.dup2(nowhere, end.far)  # the number stays ours, until it is closed as all are
        os.close(nowhere)
        return use(place, load, size)


def change(contender: Contender, size: int) -> list[float]:
    """Measure the seconds that lines of busy consoles take while one after the other is changed."""
    load = ALL_BUSY.of(size)
    with consoles(OURS, load.consoles) as place:
        use(place, load, load.consoles)
        if contender == UNCHANGED:
            return use(place, load, size)
        seconds = size / load.lines / load.consoles
        fork = multiprocessing.get_context("fork")
        changer = fork.Process(target=change_all, args=(place.links, seconds), daemon=True)
        changer.start()
        try:
            waits = use(place, load, size)
            changer.join(PATIENCE)
            if changer.exitcode != 0:
                raise BenchmarkError("not all of the changes are made")
        finally:
            changer.kill()
            changer.join()
        return waits


def change_all(links: Sequence[Link], seconds: float) -> None:
    """Have the serial lines opened anew, one each time, at a steady rate; else raise."""
    with connect(f"{links[0].folder}/qmp.sock") as sock:
        client = QmpConnection(sock)
        client.negotiate()
        begin = time.monotonic()
        for number in range(max(1, int(seconds * CHANGES))):
            time.sleep(max(0.0, begin + number / CHANGES - time.monotonic()))
            at = number % len(links)
            backend = {"type": "serial", "data": {"device": links[at].far_at}}
            client.execute(command("chardev-change", id=f"far{at}", backend=backend))


BENCHMARKS = (
    Benchmark(
        name="changes-busy",
        title=f"a line at one of {CROWD:,} consoles with 2 a second each, {CHANGES} changes a second",
        unit=MILLISECONDS,
        measure=change,
        size=6000,
        smoke=4,
        most_rounds=1,
        subject=CHANGING,
        rivals=(UNCHANGED,),
    ),
    Benchmark(
        name="storm-come",
        title=f"a line at one of {BUSY.consoles} consoles while {CROWD:,} connect to others",
        unit=MILLISECONDS,
        measure=come,
        size=400,
        smoke=4,
        most_rounds=2,
        rivals=(SER2NET,),
    ),
    Benchmark(
        name="storm-go",
        title=f"a line at one of {BUSY.consoles} consoles when {CROWD:,} devices hang up",
        unit=MILLISECONDS,
        measure=go,
        size=400,
        smoke=4,
        most_rounds=2,
    ),
)
