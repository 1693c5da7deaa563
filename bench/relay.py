"""Relaying bytes between two places: in bulk, and one byte there and back."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from functools import partial

from bench.contenders import SER2NET, SOCAT, SOCAT_LARGE, Contender
from bench.cpu import cpu_time, wait_calm
from bench.model import MEGABYTES_PER_SECOND, MICROSECONDS, Benchmark, BenchmarkError, Target, Unit
from bench.relays import Far, Near, relay

CHUNK = 1 << 18  # bytes that are written or read at once
PERIOD = 65_521  # a prime, so that a lost, repeated or moved piece does not match
PATTERN = (os.urandom(PERIOD) * (CHUNK // PERIOD + 2))[: PERIOD + CHUNK]
PARTS = 8  # values of a round


def bulk(
    contender: Contender, size: int, near: Near, far: Far, *, to_near: bool = False
) -> list[float]:
    """Measure the bytes a second from the near side to the far one, or back; each is checked."""
    with relay(contender, near, far) as ends:
        source, sink = (ends.far, ends.near) if to_near else (ends.near, ends.far)
        for end in (source, sink):
            os.set_blocking(end, False)
        return pump(source, sink, size)


def pump(source: int, sink: int, size: int) -> list[float]:
    """Write *size* bytes to *source* while reading them at *sink*; returns each part's rate."""
    sent = received = 0
    rates = []
    step = size // PARTS or size
    part_begin, part_from = time.perf_counter(), 0
    while received < size:
        ready, writable, _ = select.select([sink], [source] if sent < size else [], [])
        if writable:
            sent += write_pattern(source, sent, size)
        if ready:
            received += read_pattern(sink, received)
            if received >= part_from + step:
                now = time.perf_counter()
                rates.append((received - part_from) / (now - part_begin))
                part_begin, part_from = now, received
    if received > size:
        raise BenchmarkError(f"{received} bytes came, and {size} were sent")
    return rates


def write_pattern(fd: int, sent: int, size: int) -> int:
    """Write as many of the next bytes as are taken."""
    begin = sent % PERIOD
    with suppress(BlockingIOError):
        return os.write(fd, memoryview(PATTERN)[begin : begin + min(CHUNK, size - sent)])
    return 0


def read_pattern(fd: int, received: int) -> int:
    """Read some bytes and return how many. Raises BenchmarkError if they are the wrong ones."""
    data = os.read(fd, CHUNK)
    if not data:
        raise EOFError(f"the relay has left after {received} bytes")
    if not PATTERN.startswith(data, received % PERIOD):
        raise BenchmarkError(f"wrong bytes came after the first {received}")
    return len(data)


def cost(contender: Contender, size: int) -> list[float]:
    """Measure the seconds of CPU time for each byte from a TCP client to a TCP server."""
    with relay(contender, "tcp", "tcp") as ends:
        for end in (ends.near, ends.far):
            os.set_blocking(end, False)
        if size > MIB:
            wait_calm(contender, ends.pid)
        before = cpu_time(ends.pid)
        pump(ends.near, ends.far, size)
        return [(cpu_time(ends.pid) - before) / size]


def ping_pong(contender: Contender, size: int, near: Near, far: Far) -> list[float]:
    """Measure the seconds of a byte from the near side to the far one and another one back."""
    times = []
    with relay(contender, near, far) as ends:
        for number in range(size):
            ping = bytes([number % 256])
            begin = time.perf_counter()
            os.write(ends.near, ping)
            there = os.read(ends.far, 2)
            os.write(ends.far, there)
            back = os.read(ends.near, 2)
            times.append(time.perf_counter() - begin)
            if not ping == there == back:
                raise BenchmarkError(f"{ping!r} was sent, {there!r} came there and {back!r} back")
    return times


SOCATS = (SOCAT_LARGE, SOCAT)
SERIAL_TARGETS = (Target(1.1, SOCAT), Target(4, SER2NET))
MIB = 1 << 20
CPU_PER_GIGABYTE = Unit("ms/GB", 1e12)


def _bulk(
    name: str,
    title: str,
    near: Near,
    far: Far,
    mebibytes: int,
    rivals: tuple[Contender, ...],
    targets: tuple[Target, ...] = (),
    *,
    to_near: bool = False,
) -> Benchmark:
    return Benchmark(
        name=f"relay-{name}-bulk",
        title=f"bridge {title}, bulk",
        unit=MEGABYTES_PER_SECOND,
        measure=partial(bulk, near=near, far=far, to_near=to_near),
        size=mebibytes * MIB,
        smoke=100_000,
        smoke_alone=to_near,
        most_rounds=None if targets else 3,
        rivals=rivals,
        targets=targets,
    )


def _ping_pong(
    name: str,
    title: str,
    near: Near,
    far: Far,
    rivals: tuple[Contender, ...],
    targets: tuple[Target, ...] = (),
) -> Benchmark:
    return Benchmark(
        name=f"relay-{name}-ping",
        title=f"bridge {title}, ping-pong of 1 B",
        unit=MICROSECONDS,
        measure=partial(ping_pong, near=near, far=far),
        size=500,
        smoke=10,
        smoke_alone=True,
        most_rounds=None if targets else 3,
        rivals=rivals,
        targets=targets,
    )


BENCHMARKS = (
    _bulk(
        "unix",
        "unix-unix",
        "unix",
        "unix",
        512,
        SOCATS,
        (Target(1.3, SOCAT_LARGE), Target(5, SOCAT)),
    ),
    _ping_pong("unix", "unix-unix", "unix", "unix", (SOCAT,), (Target(1.2, SOCAT),)),
    _bulk("tcp", "tcp-tcp", "tcp", "tcp", 256, (*SOCATS, SER2NET)),
    Benchmark(
        name="cpu-per-gb",
        title="CPU time of a GB through a bridge tcp-tcp",
        unit=CPU_PER_GIGABYTE,
        measure=cost,
        size=256 * MIB,
        smoke=100_000,
        smoke_alone=True,
        most_rounds=3,
        rivals=SOCATS,
    ),
    _ping_pong("tcp", "tcp-tcp", "tcp", "tcp", (SOCAT, SER2NET)),
    _bulk("pty", "tcp to pty", "tcp", "pty", 16, SOCATS),
    _bulk("from-pty", "pty to tcp", "tcp", "pty", 16, SOCATS, to_near=True),
    _ping_pong("pty", "tcp-pty", "tcp", "pty", (SOCAT,), (Target(1.3, SOCAT),)),
    _bulk("serial", "tcp to tty", "tcp", "serial", 16, (SOCAT, SER2NET), SERIAL_TARGETS),
    _bulk(
        "from-serial",
        "tty to tcp",
        "tcp",
        "serial",
        16,
        (SOCAT, SER2NET),
        SERIAL_TARGETS,
        to_near=True,
    ),
    _ping_pong("serial", "tcp-tty", "tcp", "serial", (SOCAT, SER2NET), (Target(0.2, SER2NET),)),
)
