"""Changes of a socket chardev under a writer: how long a change takes, and what the writer notices.

The chardev is in a child process, and its backends connect to us. We read one connection after the
other to its end; joined, they have to be what the writer sent.
"""

from __future__ import annotations

import contextlib
import socket
import time
from functools import partial
from typing import Literal

import attrs
import trio
import trio.lowlevel

import trio_chardev as tc
from bench.contenders import Contender
from bench.model import MICROSECONDS, MILLISECONDS, Benchmark, BenchmarkError, Target
from bench.processes import listening, trio_child

LINE = b"line %058d\n"  # 64 bytes
FLOOD = bytes(1 << 20)
INTERVAL = 0.005  # seconds between changes

User = Literal["none", "idle", "writing"]


@attrs.frozen
class Outcome:
    """What a child process has measured."""

    changes: list[float]
    """Seconds of each change."""

    pauses: list[float]
    """Seconds of the longest send_all during each change."""

    sent: int
    """Lines."""


def run_changes(size: int, user: User, *, flooded: bool = False) -> Outcome:
    """Change *size* times. Raises BenchmarkError if a byte is lost, repeated or out of order.

    With *flooded* every peer sends as much as the kernel takes.
    """
    received = []
    with listening() as (path, listener), trio_child(change_repeatedly, path, size, user) as result:
        for _ in range(size + 1):
            sock, _ = listener.accept()
            # The next change may be over before we get here; bytes are counted below.
            with sock, contextlib.suppress(ConnectionError):
                if flooded:
                    sock.send(FLOOD, socket.MSG_DONTWAIT)
                while data := sock.recv(1 << 18):
                    received.append(data)
        outcome = result()
    check_lines(b"".join(received), outcome.sent)
    return outcome


def check_lines(received: bytes, count: int) -> None:
    """Raise BenchmarkError unless *received* is lines 0 to *count*-1."""
    expected = b"".join(LINE % number for number in range(count))
    if received != expected:
        same = next(
            (
                at
                for at, pair in enumerate(zip(received, expected, strict=False))
                if len({*pair}) > 1
            ),
            min(len(received), len(expected)),
        )
        raise BenchmarkError(
            f"{len(expected)} bytes were sent and {len(received)} came; they differ from {same} on"
        )


@attrs.define
class Writer:
    """Sends numbered lines until it is told to stop."""

    frontend: tc.Frontend
    sent: int = 0
    longest: float = 0.0
    """Seconds of the longest send since this was set to 0."""

    is_over: bool = False
    _waiting: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until `is_over`."""
        task_status.started()
        while not self.is_over:
            begin = time.perf_counter()
            await self.frontend.send_all(LINE % self.sent)
            self.longest = max(self.longest, time.perf_counter() - begin)
            self.sent += 1
            self._waiting.unpark_all()

    async def wait_sent(self) -> None:
        """Wait until the send that is under way has ended."""
        await self._waiting.park()


async def change_repeatedly(path: str, count: int, user: User) -> Outcome:
    """Change a socket chardev to a new connection to *path*, *count* times."""
    tc.collect_in_portions()  # as a service does
    options = tc.SocketOptions(addr=tc.UnixAddress(path), server=False)
    changes, pauses = [], []
    async with tc.open_registry() as registry, trio.open_nursery() as nursery:
        await registry.add("c", options)
        writer = None
        if user != "none":
            frontend = registry["c"].attach(be_change=tc.stateless)
            if user == "writing":
                writer = Writer(frontend)
                await nursery.start(writer.run)
        for _ in range(count):
            await trio.sleep(INTERVAL)
            if writer is not None:
                writer.longest = 0.0
            begin = time.perf_counter()
            await registry.change("c", options)
            changes.append(time.perf_counter() - begin)
            if writer is not None:
                await writer.wait_sent()
                pauses.append(writer.longest)
        if writer is not None:
            writer.is_over = True
    return Outcome(changes, pauses, writer.sent if writer is not None else 0)


def change_time(_: Contender, size: int, user: User, *, flooded: bool = False) -> list[float]:
    """Measure the seconds of a change."""
    return run_changes(size, user, flooded=flooded).changes


def pause(_: Contender, size: int) -> list[float]:
    """Measure the seconds of the longest send_all during a change."""
    return run_changes(size, "writing").pauses


BENCHMARKS = (
    *(
        Benchmark(
            name=name,
            title=f"change of a socket chardev, {title}",
            unit=MICROSECONDS,
            measure=measure,
            size=200,
            smoke=5,
            most_rounds=2,
        )
        for name, title, measure in (
            ("change-socket-unused", "idle, no user", partial(change_time, user="none")),
            (
                "change-socket-flooded",
                "its peer sending, no user",
                partial(change_time, user="none", flooded=True),
            ),
            ("change-socket-idle", "idle, with a user", partial(change_time, user="idle")),
            ("change-socket-busy", "its user writing", partial(change_time, user="writing")),
        )
    ),
    Benchmark(
        name="change-socket-pause",
        title="the writer's pause in that change, 0 bytes lost",
        unit=MILLISECONDS,
        measure=pause,
        size=2000,
        smoke=5,
        targets=(Target(1.0, statistic="p99"), Target(3.0, statistic="worst")),
    ),
)
