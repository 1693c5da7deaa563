"""Tells by inotify(7) that a name on the way to a device was made.

The kernel makes /dev/ttyUSB0 when an adaptor is plugged in, udev the links that lead there, and
then it sets their permissions. Each look has an instance of its own, as the folders in question
change; where none is to be had (sysctl fs.inotify.max_user_instances), looking now and then does.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial

import attrs
import trio

from trio_chardev.backends.holder import owned
from trio_chardev.backends.inotify import (
    IN_ATTRIB,
    IN_CREATE,
    IN_IGNORED,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    Record,
    add_watch,
    new_instance,
    read_records,
)
from trio_chardev.backends.serial.same_line import links_at
from trio_chardev.readiness import wait_readable
from trio_chardev.workers import do_in_worker

LONGEST_PAUSE = 5.0  # seconds between two looks for a line
SETTLE_TIME = 0.02  # seconds from its name to a look, as udev goes on to make links and permissions
ANY_TTY = "tty*"
"""In place of a name: all that begin so."""

EVENTS = IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_ONLYDIR
Places = Mapping[str, set[str]]
"""Names to be waited for, by folder."""


def pauses_from(first: float) -> Iterator[float]:
    """The seconds from one look for a line to the next."""
    longest = max(first, LONGEST_PAUSE)
    while True:
        yield first
        first = min(2 * first, longest)


def places_of(path: str) -> Places:
    """Where a name has to be made for *path* to lead to a device. Works in a thread.

    Of a folder that is missing it is that folder's name, in the nearest one that exists.
    """
    places: dict[str, set[str]] = defaultdict(set)
    links = links_at(path)
    last = os.path.join(os.path.dirname(links[-1].path), links[-1].target) if links else path
    for end in (*(link.path for link in links), last):
        folder, name = os.path.split(os.path.abspath(end))
        while not os.path.isdir(folder) and folder != "/":
            folder, name = os.path.split(folder)
        places[folder].add(name)
    return places


@attrs.define(eq=False)
class Arrivals:
    """A watch on some places."""

    _fd: int
    """The instance of inotify, or -1."""
    _names: Mapping[int, set[str]]
    """The names to be waited for, by the number of the watch on their folder."""

    @classmethod
    def at(cls, places: Places) -> Arrivals:
        """Begin to watch. Raises OSError; works in a thread, as a folder's disk may hang."""
        fd = new_instance()
        with owned(partial(os.close, fd)):
            return cls(fd, {add_watch(fd, folder, EVENTS): places[folder] for folder in places})

    @classmethod
    def of_nothing(cls) -> Arrivals:
        """Return one whose `wait` has no end."""
        return cls(-1, {})

    def fileno(self) -> int:
        """The descriptor of the instance, or -1."""
        return self._fd

    async def wait(self) -> None:
        """Wait until one of the names was made, or its permissions have changed."""
        if self._fd == -1:
            await trio.sleep_forever()
        while True:
            await wait_readable(self)
            if any(map(self._is_awaited, read_records(self._fd))):
                await trio.sleep(SETTLE_TIME)
                return

    def _is_awaited(self, record: Record) -> bool:
        names = self._names.get(record.watch, set())
        is_tty = ANY_TTY in names and record.name.startswith(b"tty")
        is_end = bool(record.mask & (IN_Q_OVERFLOW | IN_IGNORED))  # of the folder itself
        return is_tty or is_end or os.fsdecode(record.name) in names

    def close(self) -> None:
        """Close it, in a thread: the kernel waits for everyone who may be looking at it."""
        fd, self._fd = self._fd, -1
        if fd != -1:
            trio.lowlevel.notify_closing(fd)
            do_in_worker(partial(os.close, fd))

    def discard(self) -> None:
        """Close one that nobody has waited for; may be called in a thread."""
        os.close(self._fd)
