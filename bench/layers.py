"""What the layers of a chardev cost: `Frontend.send_all` compared with a bare Trio stream's."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

import trio_chardev as tc
from bench.contenders import Contender
from bench.model import MICROSECONDS, Benchmark, BenchmarkError, Target
from bench.processes import listening, trio_child

BARE = Contender("trio.SocketStream")
BATCH = 50  # sends for each value
TARGETS = {64: 1.3, 65536: 1.08}

Writer = Callable[[str, int], Awaitable[list[float]]]
"""Connects to a path, sends so many batches, returns the seconds of each."""


def send_all(contender: Contender, size: int, length: int) -> list[float]:
    """Measure the seconds of a send_all of *length* bytes to a UNIX socket, a batch's mean."""
    batches = max(1, size // BATCH)
    writer = write_bare if contender == BARE else write_chardev
    return run_writer(partial(writer, length=length), batches, batches * BATCH * length)


def run_writer(writer: Writer, batches: int, expected: int, *, connections: int = 1) -> list[float]:
    """Run *writer* with a socket that we read. Raises BenchmarkError if not all bytes come."""
    with listening() as (path, listener), trio_child(writer, path, batches) as result:
        received = drain(listener, connections)
        values = result()
    if received != [expected] * connections:
        raise BenchmarkError(f"{received} bytes came, not {expected} to each")
    return values


def drain(listener: socket.socket, connections: int) -> list[int]:
    """Count the bytes that come over each of *connections* until the peer leaves."""
    buffer = bytearray(1 << 18)
    received = []
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for place in range(connections):
            sock, _ = listener.accept()
            selector.register(stack.enter_context(sock), selectors.EVENT_READ, place)
            received.append(0)
        while selector.get_map():
            for key, _ in selector.select():
                if count := os.readv(key.fd, [buffer]):
                    received[key.data] += count
                else:
                    selector.unregister(key.fileobj)
    return received


async def write_bare(path: str, batches: int, length: int) -> list[float]:
    """Write without a chardev."""
    async with await trio.open_unix_socket(path) as stream:
        return await time_sends(stream, batches, length)


async def write_chardev(path: str, batches: int, length: int) -> list[float]:
    """Write through a chardev whose backend is that socket."""
    options = tc.SocketOptions(addr=tc.UnixAddress(path), server=False)
    async with tc.open_registry() as registry:
        await registry.add("c", options)
        async with registry["c"].attach(be_change=tc.stateless) as frontend:
            return await time_sends(frontend, batches, length)


async def time_sends(stream: trio.abc.SendStream, batches: int, length: int) -> list[float]:
    """Measure the seconds of a send, batch by batch."""
    data = bytes(length)
    times = []
    for _ in range(batches):
        begin = time.perf_counter()
        for _ in range(BATCH):
            await stream.send_all(data)
        times.append((time.perf_counter() - begin) / BATCH)
    return times


BENCHMARKS = tuple(
    Benchmark(
        name=f"send-{length}",
        title=f"Frontend.send_all of {name}",
        unit=MICROSECONDS,
        measure=partial(send_all, length=length),
        size=size,
        smoke=BATCH,
        rivals=(BARE,),
        targets=(Target(TARGETS[length], BARE),) if length in TARGETS else (),
    )
    for length, name, size in (
        (1, "1 B", 20_000),
        (64, "64 B", 20_000),
        (4096, "4 KiB", 20_000),
        (65536, "64 KiB", 10_000),
    )
)
