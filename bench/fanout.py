"""Many users of one chardev: what a write costs through a mux with them."""

from __future__ import annotations

import itertools
import time
from functools import partial

import trio

import trio_chardev as tc
from bench.contenders import Contender
from bench.layers import BATCH, run_writer
from bench.model import MICROSECONDS, Benchmark

NO_MUX = Contender("no mux, one user")
DATA = bytes(64)


def mux(contender: Contender, size: int, users: int) -> list[float]:
    """Seconds of a send_all of 64 B by one of *users* of a mux, in turns; a batch's mean."""
    batches = max(1, size // BATCH)
    writer = partial(write, users=0 if contender == NO_MUX else users)
    return run_writer(writer, batches, batches * BATCH * len(DATA))


async def write(path: str, batches: int, users: int) -> list[float]:
    """Write through a mux with *users*, or without one if that is 0."""
    options = tc.SocketOptions(addr=tc.UnixAddress(path), server=False)
    async with tc.open_registry() as registry:
        await registry.add("base", options)
        if users:
            await registry.add("mux", tc.MuxOptions(chardev="base"))
            frontends = [registry["mux"].attach(be_change=tc.stateless) for _ in range(users)]
        else:
            frontends = [registry["base"].attach(be_change=tc.stateless)]
        times = []
        for _ in range(batches):
            turns = list(itertools.islice(itertools.cycle(frontends), BATCH))
            begin = time.perf_counter()
            for frontend in turns:
                await frontend.send_all(DATA)
            times.append((time.perf_counter() - begin) / BATCH)
            await trio.lowlevel.checkpoint()
        return times


BENCHMARKS = tuple(
    Benchmark(
        name=f"mux-{users}",
        title=f"send_all of 64 B by {users} user{'s' if users > 1 else ''} of a mux, in turns",
        unit=MICROSECONDS,
        measure=partial(mux, users=users),
        size=10_000,
        smoke=BATCH,
        rivals=(NO_MUX,),
    )
    for users in (1, 10, 30)
)
