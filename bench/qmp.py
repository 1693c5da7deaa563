"""What QMP costs: round trips, pipelining; adding, changing, removing and listing chardevs."""

from __future__ import annotations

from functools import partial

from bench.client import NULL, QUERY, command
from bench.contenders import OURS, QEMU, QSD, Contender
from bench.cpu import wait_calm
from bench.model import MICROSECONDS, PER_SECOND, Benchmark, Target
from bench.processes import QmpServer, qmp_server

PTY = {"type": "pty", "data": {}}
ADD = command("chardev-add", id="x", backend=NULL)
CHANGE = command("chardev-change", id="x", backend=NULL)
CHANGE_PTY = command("chardev-change", id="x", backend=PTY)
REMOVE = command("chardev-remove", id="x")

USERS = {
    OURS: ("--chardev", "null,id=peer", "--device", "bridge,id=bridge,chardev=x,peer=peer"),
    QEMU: ("-device", "isa-serial,chardev=x"),
}
"""The option that makes something use chardev x."""

PIPELINED = 4000  # commands for each value
EARLY, LATE = Contender("the 100th"), Contender("the 10,000th")
POSITIONS = {EARLY: 100, LATE: 10_000}
ADDS = 20  # for each value
FILL_A_CALL = 50  # chardevs that are added, at most, for each call that is measured


def fill(contender: Contender, server: QmpServer, present: int, size: int) -> None:
    """Add chardevs until there are *present* (one is the monitor's); fewer for a smoke run."""
    server.client.fill(min(present - 1, FILL_A_CALL * size))
    if present > 1000 and size > 5:
        wait_calm(contender, server.pid)


def query(contender: Contender, size: int, present: int = 1) -> list[float]:
    """Measure the seconds of a query-chardev with *present* chardevs."""
    with qmp_server(contender) as server:
        fill(contender, server, present, size)
        return [server.client.time(QUERY) for _ in range(size)]


def pipelined(contender: Contender, size: int) -> list[float]:
    """Measure the commands a second when thousands are written before reading the replies."""
    with qmp_server(contender) as server:
        counts = [min(PIPELINED, size)] * max(1, size // PIPELINED)
        return [count / server.client.time_all(QUERY * count) for count in counts]


def add(contender: Contender, size: int, present: int = 1) -> list[float]:
    """Measure the seconds of a chardev-add of a null chardev, which is removed again."""
    times = []
    with qmp_server(contender) as server:
        fill(contender, server, present, size)
        for _ in range(size):
            times.append(server.client.time(ADD))
            server.client.execute(REMOVE)
    return times


def remove(contender: Contender, size: int, present: int = 1) -> list[float]:
    """Measure the seconds of a chardev-remove of a null chardev that was just added."""
    times = []
    with qmp_server(contender) as server:
        fill(contender, server, present, size)
        for _ in range(size):
            server.client.execute(ADD)
            times.append(server.client.time(REMOVE))
    return times


def change(
    contender: Contender, size: int, present: int = 1, message: bytes = CHANGE
) -> list[float]:
    """Measure the seconds of a chardev-change of a chardev without a user."""
    with qmp_server(contender) as server:
        fill(contender, server, present, size)
        server.client.execute(ADD)
        return [server.client.time(message) for _ in range(size)]


def change_used(contender: Contender, size: int, message: bytes = CHANGE) -> list[float]:
    """Measure the seconds of a chardev-change of a chardev with a user, which is asked."""
    with qmp_server(contender, "--chardev", "null,id=x", *USERS[contender]) as server:
        return [server.client.time(message) for _ in range(size)]


def add_at(position: Contender, size: int) -> list[float]:
    """Measure the seconds of our chardev-add around the 100th or the 10,000th, a few's mean."""
    with qmp_server(OURS) as server:
        server.client.fill(max(0, POSITIONS[position] - size // 2) if size > ADDS else 0)
        times = []
        for batch in range(max(1, size // ADDS)):
            adds = [command("chardev-add", id=f"x{batch}-{n}", backend=NULL) for n in range(ADDS)]
            times.append(sum(map(server.client.time, adds)) / ADDS)
    return times


def _among(present: int) -> list[Benchmark]:
    """Return the benchmarks of the four commands with *present* chardevs."""
    limits = {"add": 0.5, "change": 0.4} if present == 1 else {"query": 0.3}
    few = present == 1
    return [
        Benchmark(
            name=f"{verb}-{present}",
            title=f"{title} with {present:,} chardev{'s' if present > 1 else ''}",
            unit=MICROSECONDS,
            measure=partial(function, present=present),
            size=size if few else size // 5,
            smoke=5,
            smoke_alone=present > 1,
            most_rounds=None if present == 1 else 3 if verb in limits else 2,
            rivals=(QSD,),
            targets=(Target(limits[verb], QSD),) if verb in limits else (),
        )
        for verb, title, function, size in (
            ("add", "chardev-add null", add, 500),
            ("change", "chardev-change null", change, 500),
            ("remove", "chardev-remove null", remove, 500),
            ("query", "query-chardev", query, 500),
        )
    ]


BENCHMARKS = (
    Benchmark(
        name="qmp-round-trip",
        title="QMP round trip (query-chardev)",
        unit=MICROSECONDS,
        measure=query,
        size=2000,
        smoke=10,
        rivals=(QSD,),
        targets=(Target(0.25, QSD),),
    ),
    Benchmark(
        name="qmp-pipelined",
        title="QMP commands pipelined (query-chardev)",
        unit=PER_SECOND,
        measure=pipelined,
        size=5 * PIPELINED,
        smoke=100,
        rivals=(QSD,),
        targets=(Target(18, QSD),),
    ),
    *_among(1),
    *_among(5000),
    Benchmark(
        name="change-pty",
        title="chardev-change pty",
        unit=MICROSECONDS,
        measure=partial(change, message=CHANGE_PTY),
        size=300,
        smoke=5,
        rivals=(QSD,),
        targets=(Target(0.6, QSD),),
    ),
    *(
        Benchmark(
            name=f"change-used-{kind}",
            title=f"chardev-change {kind}, with a user (bridge; isa-serial)",
            unit=MICROSECONDS,
            measure=partial(change_used, message=message),
            size=300,
            smoke=5,
            most_rounds=3,
            rivals=(QEMU,),
        )
        for kind, message in (("null", CHANGE), ("pty", CHANGE_PTY))
    ),
    Benchmark(
        name="add-late",
        title="a chardev-add, the 10,000th",
        unit=MICROSECONDS,
        measure=add_at,
        size=400,
        smoke=ADDS,
        most_rounds=3,
        subject=LATE,
        rivals=(EARLY,),
        targets=(Target(1.2, EARLY),),
    ),
)
