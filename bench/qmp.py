"""What QMP costs: round trips, pipelining, adding, changing and listing chardevs."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from bench.servers import Client, command

NULL = {"type": "null", "data": {}}
QUERY = command("query-chardev")


def round_trip(client: Client, scale: float) -> list[float]:
    """Seconds of a query-chardev that nothing else waits for."""
    return [client.round_trip(QUERY) for _ in range(max(10, int(2000 * scale)))]


def pipelined(client: Client, scale: float) -> list[float]:
    """Seconds a command when 20,000 are written without waiting for the replies."""
    count = max(100, int(20_000 * scale))
    return [client.pipeline(QUERY, count) / count]


def chardev_add(client: Client, scale: float) -> list[float]:
    """Seconds of a chardev-add of a null chardev; it is removed again."""
    times = []
    for _ in range(max(5, int(500 * scale))):
        times.append(client.round_trip(command("chardev-add", id="x", backend=NULL)))
        client.round_trip(command("chardev-remove", id="x"))
    return times


def chardev_change(client: Client, scale: float) -> list[float]:
    """Seconds of a chardev-change from null to null, without a frontend."""
    client.round_trip(command("chardev-add", id="x", backend=NULL))
    change = command("chardev-change", id="x", backend=NULL)
    times = [client.round_trip(change) for _ in range(max(5, int(500 * scale)))]
    client.round_trip(command("chardev-remove", id="x"))
    return times


def listing(client: Client, scale: float) -> list[float]:
    """Seconds of a query-chardev with 5,000 chardevs."""
    count = max(20, int(5000 * scale))
    for number in range(count):
        client.round_trip(command("chardev-add", id=f"c{number}", backend=NULL))
    times = [client.round_trip(QUERY) for _ in range(max(3, int(20 * scale)))]
    for number in range(count):
        client.round_trip(command("chardev-remove", id=f"c{number}"))
    return times


BENCHMARKS: dict[str, tuple[str, Callable[[Client, float], list[float]]]] = {
    "qmp-round-trip": ("query-chardev, round trip", round_trip),
    "qmp-pipelined": ("query-chardev, one of 20,000 pipelined", pipelined),
    "qmp-add": ("chardev-add null", chardev_add),
    "qmp-change": ("chardev-change null to null", chardev_change),
    "qmp-list-5000": ("query-chardev with 5,000 chardevs", listing),
}


def p50(times: list[float]) -> float:
    """The median, in seconds."""
    return median(times)
