"""How much of the server's memory an idle chardev of each kind takes."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
from collections.abc import Callable
from functools import partial

import attrs

from bench.client import Backend, QmpConnection, command
from bench.contenders import OURS, QSD, Contender
from bench.cpu import wait_calm
from bench.model import KIBIBYTES, Benchmark, Target
from bench.processes import need_files, qmp_server

PAGE = os.sysconf("SC_PAGE_SIZE")
FILES = 100  # open files apart from the chardevs'


@attrs.frozen
class Place:
    """A folder in which the backends of one server have their files and their other ends."""

    folder: str
    stack: contextlib.ExitStack


BackendOf = Callable[[Place, int], Backend]
"""Returns the backend of a number."""


def consoles(contender: Contender, size: int) -> list[float]:
    """Measure the bytes a console that nobody uses yet: line, history, listener and bridge.

    They are added by QMP: of a command line Python keeps several copies, 6 KiB for each console.
    """
    assert contender == OURS
    need_files(3 * size + FILES)
    with qmp_server(contender) as server, contextlib.ExitStack() as stack:
        place = Place(server.folder, stack)
        add_console(server.client, place, size)  # what the first one needs is there for all
        if size > 5:
            wait_calm(contender, server.pid)
        before = resident(server.pid)
        for number in range(size):
            add_console(server.client, place, number)
        return [(resident(server.pid) - before) / size]


def add_console(client: QmpConnection, place: Place, number: int) -> None:
    """Add one, which has its history as soon as it needs it."""
    line, users = f"far{number}", f"users{number}"
    ring = {"type": "console", "data": {"history": 1 << 16}}
    path = f"{place.folder}/{number}"
    for message in (
        command("chardev-add", id=line, backend=serial(place, number)),
        command("chardev-add", id=users, backend=ring),
        command("device_add", driver="listener", id=f"door{number}", console=users, path=path),
        command("device_add", driver="bridge", id=f"bridge{number}", chardev=line, peer=users),
    ):
        client.execute(message)


def resident(pid: int) -> int:
    """Return how many bytes of a process are in RAM."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


def memory(contender: Contender, size: int, backend_of: BackendOf) -> list[float]:
    """Measure the bytes a chardev, when *size* of them are added."""
    need_files(2 * size + FILES)
    with qmp_server(contender) as server, contextlib.ExitStack() as stack:
        if size > 5:
            wait_calm(contender, server.pid)
        if backend_of in ON_BASES:
            server.client.fill(size, prefix="base")
        before = resident(server.pid)
        server.client.fill(size, partial(backend_of, Place(server.folder, stack)))
        return [(resident(server.pid) - before) / size]


def listen(addr: Backend) -> Backend:
    """Return a socket that listens."""
    return {"type": "socket", "data": {"addr": addr, "server": True, "wait": False}}


def unix_listener(place: Place, number: int) -> Backend:
    """Listen for one client at a path of its own."""
    return listen({"type": "unix", "data": {"path": f"{place.folder}/{number}.sock"}})


def tcp_listener(_place: Place, _number: int) -> Backend:
    """Listen at a port of the kernel's choice."""
    return listen({"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}})


def unix_client(place: Place, number: int) -> Backend:
    """Connect to a listener of ours, which the first one makes."""
    path = f"{place.folder}/ours.sock"
    if number == 0:
        listener = place.stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(4096)
    addr = {"type": "unix", "data": {"path": path}}
    return {"type": "socket", "data": {"addr": addr, "server": False}}


def serial(place: Place, _number: int) -> Backend:
    """Use the slave of a PTY of ours as a serial line."""
    master, slave = pty.openpty()
    for fd in (master, slave):
        place.stack.callback(os.close, fd)
    return {"type": "serial", "data": {"device": os.ttyname(slave)}}


def udp(_place: Place, _number: int) -> Backend:
    """Send to the discard port."""
    remote = {"type": "inet", "data": {"host": "127.0.0.1", "port": "9"}}
    return {"type": "udp", "data": {"remote": remote}}


def fifo(place: Place, number: int) -> Backend:
    """Use a pair of FIFOs, which are made first."""
    path = f"{place.folder}/{number}"
    for suffix in (".in", ".out"):
        os.mkfifo(path + suffix)
    return {"type": "pipe", "data": {"device": path}}


def mux(_place: Place, number: int) -> Backend:
    """Stand on a base of its own, a null chardev that is not counted."""
    return {"type": "mux", "data": {"chardev": f"base{number}"}}


def hub(_place: Place, number: int) -> Backend:
    """Stand on one member, made the same way."""
    return {"type": "hub", "data": {"chardevs": [f"base{number}"]}}


def simple(kind: str, **data: object) -> BackendOf:
    """Use the same backend for every number."""
    return lambda _place, _number: {"type": kind, "data": data}


ON_BASES = (mux, hub)


@attrs.frozen
class Kind:
    """A kind of backend to be measured."""

    name: str
    backend_of: BackendOf
    count: int = 1000
    limit: float | None = None
    """KiB that each may take at most."""

    rivals: tuple[Contender, ...] = (QSD,)


KINDS = (
    Kind("null", simple("null"), 2000, 14),
    Kind("unix listener", unix_listener, limit=24),
    Kind("unix client", unix_client),
    Kind("tcp listener", tcp_listener),
    Kind("pty", simple("pty"), limit=24),
    Kind("serial", serial),
    Kind("file", simple("file", out="/dev/null")),
    Kind("ringbuf", simple("ringbuf", size=4096)),
    Kind("udp", udp),
    Kind("pipe", fifo),
    Kind("mux", mux),
    Kind("hub", hub, rivals=()),  # QEMU has it since 10.0, and the same name for other options
)

KINDS_ALONE = tuple(
    Benchmark(
        name=f"memory-{kind.name.replace(' ', '-')}",
        title=f"memory of an idle chardev, {kind.name}",
        unit=KIBIBYTES,
        measure=partial(memory, backend_of=kind.backend_of),
        size=kind.count,
        smoke=5,
        most_rounds=1,
        rivals=kind.rivals,
        targets=(Target(kind.limit),) if kind.limit else (),
    )
    for kind in KINDS
)
BENCHMARKS = (
    *KINDS_ALONE,
    Benchmark(
        name="memory-console",
        title="memory of a console: serial line, empty history of 64 KiB, listener, bridge",
        unit=KIBIBYTES,
        measure=consoles,
        size=600,
        smoke=2,
        most_rounds=1,
        targets=(Target(48),),
    ),
)
