"""Takes all watches of epoll and inotify that its user may have: ``python -m tests.soak.hog``.

It answers each line that it reads with a line: after ``take`` it has taken all watches there are,
and goes on to take those that others give back; after ``give`` it has left some.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import attrs

MANY: Final = 2000  # watches of one instance
SPARE: Final = 1000  # watches that are left for others
LOOK_INTERVAL: Final = 0.01  # seconds between two attempts to take what others have given back
IN_DELETE_SELF: Final = 0x400  # inotify(7)

libc: Final = ctypes.CDLL(None, use_errno=True)


class Instance(Protocol):
    """An instance of epoll or inotify."""

    def add(self, number: int) -> None:
        """Add watch *number*. Raises OSError."""

    def close(self) -> None:
        """Give all its watches back."""


class Epoll:
    """Watches a pipe that is never written to, by many descriptors."""

    fds: Final[list[int]] = []

    def __init__(self) -> None:
        if not self.fds:
            source, _ = os.pipe()
            self.fds.extend(os.dup(source) for _ in range(MANY))
        self._epoll = select.epoll()

    def add(self, number: int) -> None:
        self._epoll.register(self.fds[number], select.EPOLLIN)

    def close(self) -> None:
        self._epoll.close()


class Inotify:
    """Watches files that nobody uses."""

    folder: Final = tempfile.TemporaryDirectory(prefix="soak.hog.")
    paths: Final[list[bytes]] = []

    def __init__(self) -> None:
        if not self.paths:
            self.paths.extend(os.fsencode(f"{self.folder.name}/{number}") for number in range(MANY))
            for path in self.paths:
                Path(os.fsdecode(path)).touch()
        self._fd = libc.inotify_init1(os.O_CLOEXEC)
        if self._fd == -1:
            raise_errno()

    def add(self, number: int) -> None:
        if libc.inotify_add_watch(self._fd, self.paths[number], IN_DELETE_SELF) == -1:
            raise_errno()

    def close(self) -> None:
        os.close(self._fd)


def raise_errno() -> None:
    """Raise OSError for the C library's errno."""
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


@attrs.define
class Hoard:
    """Instances of one kind; each but the last is full."""

    make: Callable[[], Instance]
    _instances: list[Instance] = attrs.Factory(list)
    _count: int = 0
    """The number of the last one's watches."""

    def take(self) -> None:
        """Take all watches there are."""
        while True:
            if not self._instances or self._count == MANY:
                self._instances.append(self.make())
                self._count = 0
            try:
                while self._count < MANY:
                    self._instances[-1].add(self._count)
                    self._count += 1
            except OSError as exc:
                if exc.errno not in (errno.ENOSPC, errno.ENOMEM):
                    raise
                return

    def give(self) -> None:
        """Leave `SPARE` watches, or somewhat more."""
        given = 0
        while given < SPARE and self._instances:
            self._instances.pop().close()
            given, self._count = given + self._count, MANY


def main() -> None:
    hoards = Hoard(Epoll), Hoard(Inotify)
    is_taking = False
    while True:
        if not select.select([0], [], [], LOOK_INTERVAL if is_taking else None)[0]:
            for hoard in hoards:
                hoard.take()
            continue
        line = sys.stdin.readline()
        if not line:
            return
        is_taking = line == "take\n"
        for hoard in hoards:
            hoard.take() if is_taking else hoard.give()
        print(line, end="", flush=True)


if __name__ == "__main__":
    main()
