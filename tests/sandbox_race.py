"""Race for a way out of a sandbox: ``python -m tests.sandbox_race --seconds 20``; in ``just fuzz``.

A process swaps a folder for a link out of the sandbox and back, as fast as it can, while servers,
links, files, recordings and clients are made in that folder again and again. It prints how often
each was done and refused, and what was found outside: then the status is 1.
tests/test_sandbox_races.py checks each single step; this finds what no step was thought of.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from trio_chardev.access.sandbox import Sandbox
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.table import opener_of
from trio_chardev.errors import BackendError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry, open_registry_with

AT_FDCWD = -100
RENAME_EXCHANGE = 2  # renameat2(2): the two names are swapped at once


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Let another process swap the two names again and again."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    child = os.fork()
    if not child:
        with suppress(BaseException):
            while os.getppid() != 1:
                libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def ways_out(folder: str) -> dict[str, BackendOptions]:
    """Return the options that are tried in *folder*."""
    return {
        "server": SocketOptions(addr=UnixAddress(f"{folder}/s"), wait=False),
        "client": SocketOptions(addr=UnixAddress(f"{folder}/listens"), server=False),
        "pty": PtyOptions(path=f"{folder}/p"),
        "file": FileOptions(out=f"{folder}/f"),
        "log": NullOptions(logfile=f"{folder}/l"),
        "record": NullOptions(record=f"{folder}/r"),
        "ring": RingbufOptions(path=f"{folder}/ring"),
    }


async def try_one(registry: Registry, options: BackendOptions, sandbox: Sandbox) -> bool:
    """Add, change and remove a chardev. Returns whether that was done."""
    done = False
    with suppress(BackendError):
        await registry.add("x", options, sandbox=sandbox)
        done = True
        await registry.change("x", options, drain_timeout=0, sandbox=sandbox)
    if "x" in registry:
        await registry.remove("x")
    return done


async def race(seconds: float, inside: Path, outside: Path) -> int:
    """Print what was done, and return how many got out."""
    sandbox = Sandbox([str(inside)])
    done: collections.Counter[str] = collections.Counter()
    tried: collections.Counter[str] = collections.Counter()
    out: collections.Counter[str] = collections.Counter()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(outside / "listens"))
        server.listen()
        server.setblocking(False)
        before = set(os.listdir(outside))
        end = time.monotonic() + seconds
        async with open_registry_with(opener_of) as registry:
            while time.monotonic() < end:
                for name, options in ways_out(str(inside / "d")).items():
                    tried[name] += 1
                    done[name] += await try_one(registry, options, sandbox)
                    with suppress(BlockingIOError):
                        server.accept()[0].close()
                        out[name] += 1
                    for stray in set(os.listdir(outside)) - before:
                        out[name] += 1
                        os.unlink(outside / stray)
    for name, count in tried.items():
        print(f"sandbox_race: {name}: {count} tried, {done[name]} done, {out[name]} outside")
    return out.total()


def main() -> int:
    """Return the exit status: 1 if something got out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder:
        inside, outside = Path(folder, "inside"), Path(folder, "outside")
        (inside / "d").mkdir(parents=True)
        outside.mkdir()
        (inside / "link").symlink_to(outside)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(inside / "d" / "listens"))
            server.listen(4096)
            with swapping(inside / "d", inside / "link"):
                found = trio.run(race, seconds, inside, outside)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
