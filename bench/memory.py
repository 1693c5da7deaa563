"""What an idle chardev takes of the server's memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from bench.client import NULL, Backend
from bench.contenders import QSD, Contender
from bench.model import KIBIBYTES, Benchmark, Target
from bench.processes import qmp_server

PAGE = os.sysconf("SC_PAGE_SIZE")

BackendOf = Callable[[str, int], Backend]
"""Gives the backend of a number, with its files in a folder."""


def resident(pid: int) -> int:
    """Bytes of memory that a process has in RAM."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


def memory(contender: Contender, size: int, backend_of: BackendOf) -> list[float]:
    """Bytes a chardev, of *size* that are added."""
    with qmp_server(contender) as server:
        before = resident(server.pid)
        server.client.fill(size, partial(backend_of, server.folder))
        return [(resident(server.pid) - before) / size]


def unix_listener(folder: str, number: int) -> Backend:
    """Listens for one client at a path of its own."""
    addr = {"type": "unix", "data": {"path": f"{folder}/{number}.sock"}}
    return {"type": "socket", "data": {"addr": addr, "server": True, "wait": False}}


def tcp_listener(_folder: str, _number: int) -> Backend:
    """Listens at a port of the kernel's choice."""
    addr = {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}
    return {"type": "socket", "data": {"addr": addr, "server": True, "wait": False}}


def udp(_folder: str, _number: int) -> Backend:
    """Sends to the discard port."""
    return {
        "type": "udp",
        "data": {"remote": {"type": "inet", "data": {"host": "127.0.0.1", "port": "9"}}},
    }


def fifo(folder: str, number: int) -> Backend:
    """A pair of FIFOs, which it makes first."""
    path = f"{folder}/{number}"
    for suffix in (".in", ".out"):
        os.mkfifo(path + suffix)
    return {"type": "pipe", "data": {"device": path}}


def simple(kind: str, **data: object) -> BackendOf:
    """A backend that is the same for every number."""
    return lambda _folder, _number: {"type": kind, "data": data}


KINDS: dict[str, tuple[BackendOf, int, float | None]] = {
    "null": (lambda _folder, _number: NULL, 5000, 14),
    "unix-listener": (unix_listener, 2000, 24),
    "tcp-listener": (tcp_listener, 2000, None),
    "pty": (simple("pty"), 1000, 24),
    "file": (simple("file", out="/dev/null"), 2000, None),
    "ringbuf": (simple("ringbuf", size=4096), 2000, None),
    "udp": (udp, 2000, None),
    "pipe": (fifo, 2000, None),
}
"""Name -> (its backends, how many, KiB that it may take)."""

BENCHMARKS = tuple(
    Benchmark(
        name=f"memory-{name}",
        title=f"memory of an idle chardev, {name.replace('-', ' ')}",
        unit=KIBIBYTES,
        measure=partial(memory, backend_of=backend_of),
        size=size,
        smoke=5,
        rivals=(QSD,),
        targets=(Target(limit),) if limit else (),
    )
    for name, (backend_of, size, limit) in KINDS.items()
)
