"""Tells by inotify(7) that a name on the way to a device was made.

The kernel makes /dev/ttyUSB0 when an adaptor is plugged in, udev the links that lead there, and
then it sets their permissions. One instance serves all lines of a Trio run, because a user may have
only 128 (sysctl fs.inotify.max_user_instances); where none is to be had, looking now and then does.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress

import attrs
import trio

from trio_chardev.backends.holder import FdHolder
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
    remove_watch,
)
from trio_chardev.backends.serial.same_line import links_at
from trio_chardev.errors import BackendError
from trio_chardev.files import work_on_files

log = logging.getLogger(__name__)

LONGEST_PAUSE = 5.0  # seconds between two looks for a line
LONGEST_IF_TOLD = 60.0  # seconds, if inotify would tell that it comes
SETTLE_TIME = 0.02  # seconds from its name to a look, as udev goes on to make links and permissions
ANY_TTY = "tty*"
"""In place of a name: all that begin so."""

EVENTS = IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_ONLYDIR
Places = Mapping[str, set[str]]
"""Names to be waited for, by folder."""


def next_pause(pause: float, first: float, *, is_told: bool) -> float:
    """The seconds to the next look for a line, after *pause*; *is_told*: in case nothing tells."""
    return max(first, min(2 * pause, LONGEST_IF_TOLD if is_told else LONGEST_PAUSE))


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


@attrs.define(eq=False, repr=False)
class Arrivals:
    """A watch on some places."""

    _watcher: FolderWatcher | None = None
    _came: trio.Event = attrs.Factory(trio.Event)

    @property
    def works(self) -> bool:
        """Will it tell? Without inotify it does not."""
        return self._watcher is not None and self._watcher.works

    async def wait(self) -> None:
        """Wait until one of the names was made, or its permissions have changed."""
        await self._came.wait()
        await trio.sleep(SETTLE_TIME)

    def tell(self) -> None:
        """End `wait`."""
        self._came.set()

    def close(self) -> None:
        """Watch no more."""
        if self._watcher is not None:
            self._watcher.forget(self)


class FolderWatcher:
    """Tells of names that are made in folders."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._inotify = FdHolder(new_instance())
        self._waiting: dict[int, dict[Arrivals, set[str]]] = {}
        self._adding = 0  # calls of `watch` under way: a watch without a waiter may be theirs

    @property
    def works(self) -> bool:
        """Does it still tell? Once it does not, it never does again."""
        return not self._inotify.closed

    async def watch(self, find: Callable[[], Places]) -> Arrivals:
        """Watch what *find* gives, which is called in a thread, as a folder's disk may hang.

        Raises OSError. What has come before this returns is to be looked for.
        """
        arrivals = Arrivals(self)
        self._adding += 1
        try:
            watched = await work_on_files(self._add, find)
        finally:
            self._adding -= 1
        for watch, names in watched.items():
            self._waiting.setdefault(watch, {})[arrivals] = names
        return arrivals

    def _add(self, find: Callable[[], Places]) -> dict[int, set[str]]:
        return {
            add_watch(self._inotify.fd, folder, EVENTS): names for folder, names in find().items()
        }

    def forget(self, arrivals: Arrivals) -> None:
        """Tell *arrivals* no more. A watch that nobody waits for ends at its next event."""
        for waiting in self._waiting.values():
            waiting.pop(arrivals, None)

    async def run(self) -> None:
        """Tell of what happens; a system task."""
        try:
            while self.works:
                await self._inotify.wait_readable()
                for record in read_records(self._inotify.fd):
                    self._tell(record)
        except BackendError as exc:
            log.warning("serial lines are looked for now and then: %s", exc)
        finally:
            self._inotify.close()
            self._tell_all()

    def _tell(self, record: Record) -> None:
        if record.mask & IN_Q_OVERFLOW:
            self._tell_all()
        waiting = self._waiting.get(record.watch, {})
        for arrivals, names in waiting.items():
            is_tty = ANY_TTY in names and record.name.startswith(b"tty")
            if is_tty or record.mask & IN_IGNORED or os.fsdecode(record.name) in names:
                arrivals.tell()
        if record.mask & IN_IGNORED:  # the folder itself is gone
            self._waiting.pop(record.watch, None)
        elif not waiting and not self._adding:
            self._waiting.pop(record.watch, None)
            with suppress(OSError):
                remove_watch(self._inotify.fd, record.watch)

    def _tell_all(self) -> None:
        for waiting in self._waiting.values():
            for arrivals in waiting:
                arrivals.tell()


_watcher_of_run: trio.lowlevel.RunVar[FolderWatcher | None] = trio.lowlevel.RunVar("folder watcher")


async def watch(find: Callable[[], Places]) -> Arrivals:
    """Do `FolderWatcher.watch` with that of this Trio run; without inotify nothing is told."""
    try:
        watcher = _watcher_of_run.get(None)
        if watcher is None or not watcher.works:
            watcher = FolderWatcher()
            _watcher_of_run.set(watcher)
            trio.lowlevel.spawn_system_task(watcher.run)
        return await watcher.watch(find)
    except OSError:
        return Arrivals()
