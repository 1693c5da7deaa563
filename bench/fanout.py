"""What a write costs with many users of one chardev (mux), or one user of many chardevs (hub)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle, islice

import trio

import trio_chardev as tc
from bench.contenders import Contender
from bench.layers import BATCH, run_writer
from bench.model import MICROSECONDS, Benchmark

NO_MUX = Contender("no mux, one user")
STREAMS = Contender("trio.SocketStreams in a loop")
DATA = bytes(64)

Send = Callable[[], Awaitable[None]]


def mux(contender: Contender, size: int, users: int) -> list[float]:
    """Measure the seconds of a send_all of 64 B by *users* of a mux in turn; a batch's mean."""
    batches = max(1, size // BATCH)
    writer = partial(write_mux, users=0 if contender == NO_MUX else users)
    return run_writer(writer, batches, batches * BATCH * len(DATA))


def hub(contender: Contender, size: int, members: int) -> list[float]:
    """Measure the seconds of a send_all of 64 B to a hub of *members*; a batch's mean."""
    batches = max(1, size // BATCH)
    writer = partial(write_streams if contender == STREAMS else write_hub, members=members)
    return run_writer(writer, batches, batches * BATCH * len(DATA), connections=members)


def options(path: str) -> tc.SocketOptions:
    """Return the options of a client of *path*."""
    return tc.SocketOptions(addr=tc.UnixAddress(path), server=False)


async def write_mux(path: str, batches: int, users: int) -> list[float]:
    """Write through a mux with *users*, or without one if that is 0."""
    async with tc.open_registry() as registry:
        await registry.add("base", options(path))
        if users:
            await registry.add("mux", tc.MuxOptions(chardev="base"))
        chardev = registry["mux" if users else "base"]
        frontends = [chardev.attach(be_change=tc.stateless) for _ in range(users or 1)]
        return await time_sends([partial(each.send_all, DATA) for each in frontends], batches)


async def write_hub(path: str, batches: int, members: int) -> list[float]:
    """Write to a hub."""
    async with tc.open_registry() as registry:
        ids = tuple(f"member{number}" for number in range(members))
        for id in ids:
            await registry.add(id, options(path))
        await registry.add("hub", tc.HubOptions(chardevs=ids))
        frontend = registry["hub"].attach(be_change=tc.stateless)
        return await time_sends([partial(frontend.send_all, DATA)], batches)


async def write_streams(path: str, batches: int, members: int) -> list[float]:
    """Write to plain streams, as one would by hand."""
    async with AsyncExitStack() as stack:
        opened = [await trio.open_unix_socket(path) for _ in range(members)]
        streams = [await stack.enter_async_context(stream) for stream in opened]

        async def send() -> None:
            for stream in streams:
                await stream.send_all(DATA)

        return await time_sends([send], batches)


async def time_sends(sends: list[Send], batches: int) -> list[float]:
    """Measure the seconds of one of *sends*, in turns, batch by batch."""
    turns = cycle(sends)
    times = []
    for _ in range(batches):
        batch = list(islice(turns, BATCH))
        begin = time.perf_counter()
        for send in batch:
            await send()
        times.append((time.perf_counter() - begin) / BATCH)
    return times


COUNTS = (1, 10, 30)
BENCHMARKS = (
    *(
        Benchmark(
            name=f"mux-{users}",
            title=f"send_all of 64 B by {users} user{'s' if users > 1 else ''} of a mux, in turns",
            unit=MICROSECONDS,
            measure=partial(mux, users=users),
            size=10_000,
            smoke=BATCH,
            most_rounds=2,
            rivals=(NO_MUX,),
        )
        for users in COUNTS
    ),
    *(
        Benchmark(
            name=f"hub-{members}",
            title=f"send_all of 64 B to a hub of {members}",
            unit=MICROSECONDS,
            measure=partial(hub, members=members),
            size=10_000 // members,
            smoke=BATCH,
            most_rounds=2,
            rivals=(STREAMS,),
        )
        for members in COUNTS
    ),
)
