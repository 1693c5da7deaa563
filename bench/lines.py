"""What lines and keys cost where many consoles, serial lines with a TCP client each, are in use.

The CPU time is that of the server's threads, by the scheduler's own account, so that it is about
the same on a machine that has more to do.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import attrs

from bench.contenders import SER2NET, SOCAT, Contender
from bench.cpu import cpu_time, wait_calm
from bench.idle import CPU_TIME, command_of, idle_time, settling
from bench.model import MICROSECONDS, Benchmark, BenchmarkError, Target
from bench.processes import connect, need_files, running
from bench.relays import HOST, Address, Ends, Link, serial_far, settle, socat_command

BARE = Contender("bare Trio")
LINE = b"[  123.456789] usb 1-1: new high-speed USB device number 7 using xhci_hcd  abc\r\n"
KEY = b"k"
READ_SIZE = 1 << 16  # bytes
FEW = 5  # consoles: who has no more is in a smoke run
FIRST_PORT = 21000
CLIENT_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
PATIENCE = 10.0  # seconds for the last bytes
IDLE_LIMIT = 5.0  # ms a second: 0.5% of a processor


@attrs.frozen
class Load:
    """What goes on at each of so many consoles."""

    consoles: int
    lines: float
    """Lines a second that are printed at each."""

    keys: float = 0.0
    """Keys a second that are typed at each."""

    def of(self, size: int) -> Load:
        """The same for a run of *size* lines; for few it is of fewer consoles, as busy together."""
        consoles = min(self.consoles, max(1, size // 2))
        more = self.consoles / consoles
        return attrs.evolve(self, consoles=consoles, lines=self.lines * more, keys=self.keys * more)


@attrs.define
class Stream:
    """Bytes on their way from *source* to *sink*: *piece* again and again."""

    source: int
    sink: int
    piece: bytes
    sent: int = 0
    got: int = 0
    since: float | None = None
    """When the piece was sent that has not come yet."""

    def send(self) -> None:
        """Send one piece. Raises BenchmarkError if there is no room."""
        if self.since is None:
            self.since = time.perf_counter()
        try:
            self.sent += os.write(self.source, self.piece)
        except BlockingIOError:
            raise BenchmarkError("it does not read what is sent") from None

    def receive(self) -> float | None:
        """Check what has come; return how long it was on its way, if it was alone."""
        data = os.read(self.sink, READ_SIZE)
        now = time.perf_counter()
        start = self.got % len(self.piece)
        due = self.piece[start:] + self.piece * (len(data) // len(self.piece) + 1)
        if not data:
            raise BenchmarkError("one is let go who is served")
        if data != due[: len(data)]:
            raise BenchmarkError("what came is not what was sent")
        self.got += len(data)
        since, self.since = self.since, None
        return None if since is None else now - since


@attrs.define
class Consoles:
    """Running consoles with their ends, and the processes that serve them."""

    pids: list[int]
    ends: list[Ends]
    vacant: list[Address]
    """Where those have no client yet that have none."""
    vacant_fars: list[int]
    links: list[Link]

    @property
    def cpu_time(self) -> float:
        """The seconds that all processes have run."""
        return sum(map(cpu_time, self.pids))


def command(contender: Contender, links: list[Link]) -> list[list[str]]:
    """Return the commands that serve all *links*."""
    if contender == SOCAT:
        return [socat_command(link) for link in links]
    if contender == BARE:
        pairs = [f"{link.near_at[1]}={link.far_at}" for link in links]
        return [[sys.executable, str(Path(__file__).with_name("bare.py")), *pairs]]
    return [command_of(contender, links)]


def quiet_ports(count: int) -> list[Address]:
    """Return ports that are not in use now, and that the kernel gives to no client meanwhile."""
    ports: list[Address] = []
    end = int(CLIENT_PORTS.read_text().split()[0])
    first = random.randrange(FIRST_PORT, end - 4 * count)  # another run may be under way
    for port in range(first, end):
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            ports.append((HOST, port))
        if len(ports) == count:
            return ports
    raise BenchmarkError(f"there are no {count} ports to be had")


@contextlib.contextmanager
def consoles(contender: Contender, count: int, clients: int | None = None) -> Iterator[Consoles]:
    """Start *count* consoles, of which each, or *clients* of them, has a client and passes on what comes."""
    vacant = 0 if clients is None else count - clients
    need_files(5 * count + 100)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.ExitStack() as stack:
        far_sides = [serial_far(folder, stack) for _ in range(count)]
        ports = quiet_ports(count)
        links = [
            Link("tcp", "serial", port, far_at, folder)
            for port, (far_at, _) in zip(ports, far_sides, strict=True)
        ]
        processes = [stack.enter_context(running(each)) for each in command(contender, links)]
        ends = []
        for number in reversed(range(vacant, count)):  # the last one listens last
            process = processes[number % len(processes)]
            client = stack.enter_context(connect(links[number].near_at, process))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            far = far_sides[number][1]()
            for end in (client.fileno(), far):
                os.set_blocking(end, False)
            ends.append(Ends(client.fileno(), far))
        settle(ends[-1])
        time.sleep(settling(count))
        if count > FEW:
            wait_calm(contender, processes[0].pid, settling(count))
        yield Consoles(
            [process.pid for process in processes],
            ends,
            [link.near_at for link in links[:vacant]],
            [open_far() for _, open_far in far_sides[:vacant]],
            links,
        )


def use(place: Consoles, load: Load, size: int) -> list[float]:
    """Print *size* lines, and type at the same time; return how long each line was on its way."""
    lines = [Stream(ends.far, ends.near, LINE) for ends in place.ends]
    keys = [Stream(ends.near, ends.far, KEY) for ends in place.ends] if load.keys else []
    line_rate, key_rate = load.lines * len(lines), load.keys * len(keys)
    waits = []
    printed = typed = 0
    with selectors.DefaultSelector() as selector:
        for stream in (*lines, *keys):
            selector.register(stream.sink, selectors.EVENT_READ, stream)
        begin = time.perf_counter()
        over = size / line_rate
        until = begin + over + PATIENCE
        while any(stream.got < stream.sent for stream in (*lines, *keys)) or printed < size:
            now = time.perf_counter()
            if now > until:
                raise BenchmarkError("bytes are lost")
            while printed < min(size, int((now - begin) * line_rate) + 1):
                lines[printed % len(lines)].send()
                printed += 1
            while keys and typed < int(min(now - begin, over) * key_rate):
                keys[typed % len(keys)].send()
                typed += 1
            due = [(printed + 1) / line_rate, *([(typed + 1) / key_rate] if keys else [])]
            pause = min(due) + begin - now if printed < size else PATIENCE
            for key, _ in selector.select(max(0.0, pause)):
                stream = key.data
                if (wait := stream.receive()) is not None and stream.piece is LINE:
                    waits.append(wait)
    return waits


def cost(contender: Contender, size: int, load: Load) -> list[float]:
    """Measure the seconds of CPU time for a line, and the keys that are typed meanwhile."""
    load = load.of(size)
    with consoles(contender, load.consoles) as place:
        use(place, load, load.consoles)  # each has passed on a line before
        before = place.cpu_time
        use(place, load, size)
        return [(place.cpu_time - before) / size]


def latency(contender: Contender, size: int, load: Load) -> list[float]:
    """Measure the seconds that each line takes from the device to the client."""
    load = load.of(size)
    with consoles(contender, load.consoles) as place:
        use(place, load, load.consoles)
        return use(place, load, size)


def _lines(load: Load, size: int, *, targets: tuple[Target, ...] = ()) -> Benchmark:
    rivals = (SER2NET, SOCAT, BARE) if load.consoles <= 100 else (SER2NET,)
    return Benchmark(
        name=f"consoles-lines-{load.consoles}",
        title=f"CPU time of a line at {load.consoles:,} consoles with {load.lines:g} a second each",
        unit=MICROSECONDS,
        measure=partial(cost, load=load),
        size=size,
        smoke=4,
        smoke_alone=load.consoles > 100,
        most_rounds=3 if targets else 1,
        rivals=rivals,
        targets=targets,
    )


def _idle(count: int) -> Benchmark:
    return Benchmark(
        name=f"consoles-idle-{count}",
        title=f"CPU time of {count:,} idle consoles",
        unit=CPU_TIME,
        measure=partial(idle_time, lines=count),
        size=30,
        smoke=1,
        smoke_alone=True,
        most_rounds=1,
        rivals=(SER2NET,),
        targets=(Target(IDLE_LIMIT),),
    )


BENCHMARKS = (
    _idle(400),
    _idle(1000),
    _lines(Load(100, 20), 4000, targets=(Target(0.9, SER2NET), Target(1.3, BARE))),
    _lines(Load(400, 5), 4000),
    _lines(Load(1000, 2), 4000),
    Benchmark(
        name="consoles-keys",
        title="CPU time of a line and a key at 100 consoles with 2 of each a second",
        unit=MICROSECONDS,
        measure=partial(cost, load=Load(100, 2, 2)),
        size=500,
        smoke=4,
        smoke_alone=True,
        most_rounds=3,
        rivals=(SER2NET, SOCAT, BARE),
        targets=(Target(1.1, SER2NET),),
    ),
    Benchmark(
        name="consoles-latency",
        title="a line at one of 400 consoles with 5 a second each",
        unit=MICROSECONDS,
        measure=partial(latency, load=Load(400, 5)),
        size=4000,
        smoke=4,
        smoke_alone=True,
        most_rounds=2,
        rivals=(SER2NET,),
        targets=(Target(2, SER2NET, "p99"),),
    ),
)
