"""What it costs that many watch one device: bytes fanned out, clients that are only there, replay."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from functools import partial
from pathlib import Path

from bench.contenders import CONSERVER, OURS, SER2NET, Contender
from bench.cpu import cpu_time
from bench.idle import CPU_TIME
from bench.model import (
    KIBIBYTES,
    MEGABYTES_PER_SECOND,
    MICROSECONDS,
    Benchmark,
    BenchmarkError,
    Target,
    Unit,
)
from bench.processes import connect
from bench.rooms import CHUNK, Room, room

RIVALS = (SER2NET, CONSERVER)
COUNTS = (1, 10, 100)
GOOD = 9  # clients that read at once
BAD = 3  # clients that read too little or nothing
IDLE = 100  # clients
HISTORY = 1 << 16  # bytes that a newcomer is shown
LINE = b"a line of the history\n"
SETTLING = 0.5  # seconds, with so many clients
EACH = 10_000  # bytes that a client gets at least
SMOKE = 5 * EACH
NANOSECONDS = Unit("ns", 1e9)
TIMES = Unit("x", 1)


def pour(place: Room, size: int) -> float:
    """Print *size* bytes; return the seconds until all clients have them, who drop them."""
    data, buffer = memoryview(bytes(CHUNK)), bytearray(1 << 20)
    left = dict.fromkeys(place.clients, size)
    sent = 0
    with selectors.DefaultSelector() as selector:
        for person in place.clients:
            person.setblocking(False)
            selector.register(person, selectors.EVENT_READ)
        place.device.setblocking(False)
        selector.register(place.device, selectors.EVENT_WRITE)
        begin = time.perf_counter()
        while left:
            for key, _ in selector.select():
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is place.device:
                    sent += sock.send(data[: size - sent])
                    if sent == size:
                        selector.unregister(sock)
                    continue
                if not (got := sock.recv_into(buffer, 0, socket.MSG_TRUNC)):
                    raise BenchmarkError("a client was let go")
                left[sock] -= got
                if left[sock] <= 0:
                    del left[sock]
                    selector.unregister(sock)
        return time.perf_counter() - begin


def rate(contender: Contender, size: int, clients: int) -> list[float]:
    """Measure the bytes a second that all clients together get."""
    clients = min(clients, size // EACH)
    with room(contender, clients, calm=size > SMOKE) as place:
        return [size / pour(place, size // clients) for _ in range(2)]


def cost(contender: Contender, size: int, clients: int) -> list[float]:
    """Measure the seconds of CPU time for a byte that one client gets."""
    clients = min(clients, size // EACH)
    with room(contender, clients, calm=size > SMOKE) as place:
        values = []
        for _ in range(2):
            before = cpu_time(place.pid)
            pour(place, size // clients)
            values.append((cpu_time(place.pid) - before) / size)
        return values


def held_up(contender: Contender, size: int) -> list[float]:
    """Measure how much longer good readers wait for all bytes when there are bad ones, as a ratio.

    Of the bad ones two read nothing, and one reads 1 KB a second.
    """
    assert contender == OURS
    with room(contender, GOOD, calm=size > SMOKE) as place:
        alone = min(pour(place, size) for _ in range(2))
        place.fill(GOOD + BAD)
        bad = [place.clients.pop() for _ in range(BAD)]
        done = threading.Event()
        reader = threading.Thread(target=_read_slowly, args=(bad[0], done))
        reader.start()
        try:
            return [pour(place, size) / alone for _ in range(2)]
        finally:
            done.set()
            reader.join()


def _read_slowly(person: socket.socket, done: threading.Event) -> None:
    while not done.wait(1):
        person.recv(1000)


def memory(contender: Contender, clients: int) -> list[float]:
    """Measure the bytes of memory for a client that is there."""
    with room(contender, 1, HISTORY, calm=clients == IDLE) as place:
        before = resident(place.pid, clients)
        place.fill(1 + clients)
        return [(resident(place.pid, clients) - before) / clients]


def settling(clients: int) -> float:
    """Return the seconds until a server has done all that it has to do for so many clients."""
    return SETTLING * min(1.0, clients / IDLE)


def resident(pid: int, clients: int) -> int:
    """Return the bytes of memory that a process has, once it has settled."""
    time.sleep(settling(clients))
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def idle_time(contender: Contender, tenths: int) -> list[float]:
    """Measure the seconds of CPU time a second, over *tenths* of one, while all clients are idle."""
    clients = min(IDLE, 2 * tenths)  # fewer in a smoke run
    with room(contender, clients, HISTORY, calm=clients == IDLE) as place:
        time.sleep(settling(clients))
        before, begin = cpu_time(place.pid), time.monotonic()
        time.sleep(tenths / 10)
        return [(cpu_time(place.pid) - before) / (time.monotonic() - begin)]


def attach(contender: Contender, size: int) -> list[float]:
    """Measure the seconds from the connecting to the end of a replay of 64 KiB."""
    assert contender == OURS
    with room(contender, 1, HISTORY, calm=size > 5) as place:
        place.device.sendall(LINE * (HISTORY // len(LINE) + 1))
        time.sleep(SETTLING)
        values = []
        for _ in range(size):
            begin = time.perf_counter()
            with connect(place.near) as person:
                left = HISTORY - len(LINE)  # what is cut of a line at the beginning is not shown
                while left > 0:
                    if not (got := len(person.recv(CHUNK))):
                        raise BenchmarkError("a client was let go")
                    left -= got
            values.append(time.perf_counter() - begin)
            place.device.sendall(LINE)  # who has left without a word is noticed by what is sent
        return values


def _clients(count: int) -> str:
    return f"{count} client{'s' if count > 1 else ''}"


BENCHMARKS = (
    *(
        Benchmark(
            name=f"console-{count}",
            title=f"a device's output to {_clients(count)} of a console, all that they get",
            unit=MEGABYTES_PER_SECOND,
            measure=partial(rate, clients=count),
            size=16_000_000,
            smoke=SMOKE,
            most_rounds=2,
            smoke_alone=count != 10,
            rivals=RIVALS,
        )
        for count in COUNTS
    ),
    *(
        Benchmark(
            name=f"console-{count}-cpu",
            title=f"CPU time of a byte that one of {_clients(count)} of a console gets",
            unit=NANOSECONDS,
            measure=partial(cost, clients=count),
            size=16_000_000,
            smoke=SMOKE,
            most_rounds=2,
            smoke_alone=True,
            rivals=RIVALS,
        )
        for count in COUNTS
    ),
    Benchmark(
        name="console-slow",
        title=f"output to {GOOD} clients, beside {BAD} that do not read, to that without them",
        unit=TIMES,
        measure=held_up,
        size=50_000_000,
        smoke=SMOKE,
        most_rounds=2,
        targets=(Target(1.1),),
    ),
    Benchmark(
        name="console-memory",
        title="memory of a client of a console",
        unit=KIBIBYTES,
        measure=memory,
        size=IDLE,
        smoke=10,
        most_rounds=2,
        rivals=RIVALS,
    ),
    Benchmark(
        name="console-idle",
        title=f"CPU time of a console with {IDLE} idle clients",
        unit=CPU_TIME,
        measure=idle_time,
        size=50,
        smoke=1,
        smoke_alone=True,
        most_rounds=1,
        rivals=RIVALS,
    ),
    Benchmark(
        name="console-attach",
        title="connecting to a console until 64 KiB of history are there",
        unit=MICROSECONDS,
        measure=attach,
        size=200,
        smoke=5,
        most_rounds=3,
    ),
)
