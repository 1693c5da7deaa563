"""What it costs that many watch one device: bytes fanned out, clients that are only there, replay."""

from __future__ import annotations

import contextlib
import selectors
import socket
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import attrs

from bench.contenders import OURS, SER2NET, Contender
from bench.idle import CPU_TIME, cpu_time
from bench.model import (
    KIBIBYTES,
    MEGABYTES_PER_SECOND,
    MICROSECONDS,
    Benchmark,
    BenchmarkError,
    Unit,
)
from bench.processes import SERVE, connect, running
from bench.relays import HOST, Address, free_ports

COUNTS = (1, 10, 100)
IDLE = 100  # clients
HISTORY = 1 << 16  # bytes that a newcomer is shown
RING = 1 << 28  # bytes; nobody is overtaken
CHUNK = 1 << 16  # bytes
SETTLING = 0.5  # seconds
QUIET = 0.1  # seconds without a byte, after which no more comes
NANOSECONDS = Unit("ns", 1e9)


@attrs.define
class Room:
    """A running server of a console, its device's end and its clients."""

    pid: int
    device: socket.socket
    near: Address
    clients: list[socket.socket]


@contextlib.contextmanager
def room(contender: Contender, clients: int, history: int = RING) -> Iterator[Room]:
    """Start *contender* between a device of ours, at a TCP port, and *clients*, who are all there."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0)))
        [near] = free_ports(1)
        command = command_of(contender, listener.getsockname()[1], int(near[1]), folder, history)
        process = stack.enter_context(running(command))
        people = [stack.enter_context(connect(near, process))]
        device = stack.enter_context(listener.accept()[0])  # ser2net connects when a client comes
        people += [stack.enter_context(connect(near, process)) for _ in range(clients - 1)]
        settle(device, people)
        yield Room(process.pid, device, near, people)


def settle(device: socket.socket, people: list[socket.socket]) -> None:
    """Print something until all *people* have it, and drop it."""
    missing = set(people)
    with selectors.DefaultSelector() as selector:
        for person in people:
            selector.register(person, selectors.EVENT_READ)
        while missing:
            device.sendall(b"?")
            while ready := selector.select(QUIET):
                for key, _ in ready:
                    assert isinstance(key.fileobj, socket.socket)
                    if not key.fileobj.recv(CHUNK):
                        raise BenchmarkError("a client was let go")
                    missing.discard(key.fileobj)


def command_of(contender: Contender, far: int, near: int, folder: str, history: int) -> list[str]:
    """Return the command that lets many clients at *near* watch what comes from *far*."""
    if contender == SER2NET:
        path = Path(folder, "ser2net.yaml")
        path.write_text(
            f"connection: &console\n  accepter: tcp,{HOST},{near}\n"
            f"  connector: tcp,{HOST},{far}\n  options:\n    max-connections: 200\n"
        )
        return ["ser2net", "-n", "-u", "-c", str(path)]
    return [
        *(*SERVE, "--qmp", f"unix:{folder}/qmp.sock,server=on,wait=off"),
        *("--chardev", f"socket,id=far,host={HOST},port={far}"),
        *("--chardev", f"console,id=users,history={history},max-clients=200"),
        *("--device", "bridge,chardev=far,peer=users"),
        *("--device", f"listener,console=users,host={HOST},port={near}"),
    ]


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
    with room(contender, clients) as place:
        return [size / pour(place, size // clients) for _ in range(2)]


def cost(contender: Contender, size: int, clients: int) -> list[float]:
    """Measure the seconds of CPU time for a byte that one client gets."""
    with room(contender, clients) as place:
        values = []
        for _ in range(2):
            before = cpu_time(place.pid)
            pour(place, size // clients)
            values.append((cpu_time(place.pid) - before) / size)
        return values


def memory(contender: Contender, clients: int) -> list[float]:
    """Measure the bytes of memory for a client that is there."""
    values = []
    for count in (1, 1 + clients):
        with room(contender, count, HISTORY) as place:
            time.sleep(SETTLING)
            status = Path(f"/proc/{place.pid}/status").read_text()
            values.append(int(status.partition("VmRSS:")[2].split()[0]) * 1024)
    return [(values[1] - values[0]) / clients]


def idle_time(contender: Contender, seconds: int) -> list[float]:
    """Measure the seconds of CPU time a second while all clients are idle."""
    with room(contender, IDLE, HISTORY) as place:
        time.sleep(SETTLING)
        before, begin = cpu_time(place.pid), time.monotonic()
        time.sleep(seconds)
        return [(cpu_time(place.pid) - before) / (time.monotonic() - begin)]


def attach(contender: Contender, size: int) -> list[float]:
    """Measure the seconds from the connecting to the end of a replay of 64 KiB."""
    assert contender == OURS
    with room(contender, 1, HISTORY) as place:
        place.device.sendall(b"a line of the history\n" * (HISTORY // 22 + 1))
        time.sleep(SETTLING)
        values = []
        for _ in range(size):
            begin = time.perf_counter()
            with connect(place.near) as person:
                left = HISTORY - 22  # what is cut of a line at the beginning is not shown
                while left > 0:
                    left -= len(person.recv(CHUNK))
            values.append(time.perf_counter() - begin)
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
            smoke=200_000,
            rivals=(SER2NET,),
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
            smoke=200_000,
            rivals=(SER2NET,),
        )
        for count in COUNTS
    ),
    Benchmark(
        name="console-memory",
        title="memory of a client of a console",
        unit=KIBIBYTES,
        measure=memory,
        size=IDLE,
        smoke=10,
        rivals=(SER2NET,),
    ),
    Benchmark(
        name="console-idle",
        title=f"CPU time of a console with {IDLE} idle clients",
        unit=CPU_TIME,
        measure=idle_time,
        size=5,
        smoke=1,
        rivals=(SER2NET,),
    ),
    Benchmark(
        name="console-attach",
        title="connecting to a console until 64 KiB of history are there",
        unit=MICROSECONDS,
        measure=attach,
        size=200,
        smoke=5,
    ),
)
