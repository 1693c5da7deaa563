"""10,000 chardevs of which 1% are active, compared with those few alone."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time

import trio

import trio_chardev as tc
from bench.contenders import Contender
from bench.model import MICROSECONDS, Benchmark, BenchmarkError
from bench.processes import connect, need_files, trio_child

CROWD, ALONE = Contender("100 of 10,000"), Contender("100 alone")
ACTIVE = 100
IDLE = 9900
FILES = 100  # open files apart from the chardevs'
MESSAGE = bytes(range(64))


def burst(contender: Contender, size: int) -> list[float]:
    """Measure *size* times the seconds a message, when all the active ones echo one each."""
    need_files(IDLE + 2 * ACTIVE + FILES)
    active = min(ACTIVE, size)
    idle = IDLE if size >= ACTIVE else 10 * active
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        trio_child(echo, folder, active, idle if contender == CROWD else 0),
        contextlib.ExitStack() as stack,
    ):
        connect(f"{folder}/ready").close()
        peers = [stack.enter_context(connect(f"{folder}/{n}.sock")) for n in range(active)]
        return [burst_time(peers) for _ in range(size)]


def burst_time(peers: list[socket.socket]) -> float:
    """Measure the seconds a message."""
    begin = time.perf_counter()
    for peer in peers:
        peer.sendall(MESSAGE)
    for peer in peers:
        if peer.recv(len(MESSAGE), socket.MSG_WAITALL) != MESSAGE:
            raise BenchmarkError("not what was sent came back")
    return (time.perf_counter() - begin) / len(peers)


async def echo(folder: str, active: int, idle: int) -> None:
    """Listen with all chardevs, of which the active ones echo what comes."""
    async with tc.open_registry() as registry:
        for number in range(active + idle):
            await registry.add(str(number), listener(f"{folder}/{number}.sock"))
            if number < active:
                attach_echo(registry[str(number)])
        await registry.add("ready", listener(f"{folder}/ready"))
        await trio.sleep_forever()


def listener(path: str) -> tc.SocketOptions:
    """Return the options of a backend that listens at *path*."""
    return tc.SocketOptions(addr=tc.UnixAddress(path), wait=False)


def attach_echo(chardev: tc.Chardev) -> None:
    """Send back what *chardev* receives, without a task."""
    frontend = chardev.attach(on_receive=lambda data: frontend.try_send(data))


BENCHMARKS = (
    Benchmark(
        name="crowd",
        title="echo of 64 B by 100 chardevs at once, among 9,900 idle ones",
        unit=MICROSECONDS,
        measure=burst,
        size=200,
        smoke=2,
        most_rounds=2,
        subject=CROWD,
        rivals=(ALONE,),
    ),
)
