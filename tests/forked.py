"""A process that has imported the program already, and becomes ``trio-chardev`` by fork(2).

Most of the time in which the program starts it imports modules, and so tests of hundreds of processes
took minutes. `tests.forking` runs this script, and asks it for processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import io
import os
import pickle
import pkgutil
import socket
import sys
import termios
import time
from collections.abc import Sequence
from typing import Any

NOT_OF_THE_PROGRAM = ("trio_chardev.testing", "trio_chardev.__main__")
MOST_BYTES, MOST_FDS = 1 << 20, 250


def import_program() -> None:
    """Import all modules that it may need."""
    import trio_chardev

    for module in pkgutil.walk_packages(trio_chardev.__path__, "trio_chardev."):
        if not module.name.startswith(NOT_OF_THE_PROGRAM):
            with contextlib.suppress(ImportError):  # of a library that is not installed
                importlib.import_module(module.name)


def wait_for_jobs(sock: socket.socket) -> tuple[dict[str, Any], Sequence[int]]:
    """Return in each new process, with what it is to be; the parent ends here.

    The new process's parent ends at once, so that it becomes a child of the one that asked, which is a
    subreaper meanwhile.
    """
    while True:
        data, fds, _, _ = socket.recv_fds(sock, MOST_BYTES, MOST_FDS)
        if not data:
            os._exit(0)
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child == 0:
                return pickle.loads(data), fds
            os.write(writing, b"%d" % child)
            os._exit(0)
        os.waitpid(between, 0)
        sock.send(os.read(reading, 64))
        for fd in (reading, writing, *fds):
            os.close(fd)


def take_descriptors(fds: Sequence[int], numbers: Sequence[int]) -> None:
    """Have *fds* at these *numbers*, and no other."""
    above = max(numbers) + 1
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in fds]
    for fd, number in zip(moved, numbers, strict=True):
        os.dup2(fd, number)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in numbers:
            with contextlib.suppress(OSError):  # that of the listing
                os.close(int(name))


def open_standard(number: int, name: str, mode: str, errors: str, unbuffered: bool) -> Any:
    """Make a standard stream as Python does when it starts."""
    raw = io.FileIO(number, mode, closefd=False)
    through = unbuffered and mode == "w"
    binary: Any = raw
    if not through:
        binary = io.BufferedWriter(raw) if mode == "w" else io.BufferedReader(raw)
    stream: Any = io.TextIOWrapper(
        binary,
        encoding=sys.__stdout__.encoding if sys.__stdout__ else "utf-8",
        errors=errors,
        newline="\n",
        line_buffering=not through and (number == 2 or raw.isatty()),
        write_through=through,
    )
    raw.name = name
    stream.mode = mode
    return stream


def become(job: dict[str, Any], fds: Sequence[int]) -> None:
    """Make of this process what exec(3) would have made of it."""
    os.umask(job["umask"])
    os.chdir(job["cwd"])
    if job["new_session"]:
        os.setsid()
    take_descriptors(fds, job["numbers"])
    if job["controls_terminal"]:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 1)
    os.environb.clear()
    os.environb.update(job["environ"])
    time.tzset()
    sys.argv = ["-c", *job["arguments"]]
    sys.path[0] = ""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    errors = sys.__stdin__.errors if sys.__stdin__ and sys.__stdin__.errors else "strict"
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        how = "backslashreplace" if number == 2 else errors
        stream = open_standard(number, f"<{name}>", mode, how, unbuffered)
        KEPT.append(getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


KEPT: list[Any] = []
"""Streams of before: collecting them would close nothing, but say so."""


if __name__ == "__main__":
    sys.path[0] = ""
    import_program()
    gc.collect()
    gc.freeze()
    become(*wait_for_jobs(socket.socket(fileno=int(sys.argv[1]))))
    from trio_chardev.cli import main

    main()
