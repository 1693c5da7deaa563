"""Reports by inotify(7) that the slave of a PTY was opened or read.

One instance serves all PTYs of a Trio run, because a user may have only 128 (sysctl
fs.inotify.max_user_instances). From the first PTY to the end of the run a system task reads it:
closing it takes 0.3 to 10 ms, because the kernel waits for everyone who may be looking at it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import trio

from trio_chardev.backends.descriptor import FdHolder
from trio_chardev.backends.inotify import (
    IN_ACCESS,
    IN_OPEN,
    IN_Q_OVERFLOW,
    add_watch,
    new_instance,
    read_records,
    remove_watch,
)
from trio_chardev.errors import BackendError

log = logging.getLogger(__name__)


class OpenWatcher:
    """Tells PTYs that their slave was opened, and on request that it was read."""

    def __init__(self) -> None:
        self.inotify = FdHolder(new_instance())
        self._watches: dict[int, Callable[[], None]] = {}
        self._reads: dict[int, Callable[[], None]] = {}

    def add(self, slave: str, opened: Callable[[], None]) -> int:
        """Call *opened* when *slave* is opened. Returns what `remove` needs. Raises OSError."""
        wd = self._watch(slave, IN_OPEN)
        self._watches[wd] = opened
        return wd

    def hear_reads(self, slave: str, read: Callable[[], None]) -> None:
        """Call *read* when *slave*, an added one, is read: a wake-up for each. Raises OSError."""
        self._reads[self._watch(slave, IN_OPEN | IN_ACCESS)] = read

    def hear_no_reads(self, slave: str) -> None:
        """Undo `hear_reads`."""
        with contextlib.suppress(OSError):  # then it goes on to cost wake-ups
            self._reads.pop(self._watch(slave, IN_OPEN), None)

    def _watch(self, slave: str, mask: int) -> int:
        return add_watch(self.inotify.fd, slave, mask)

    @property
    def works(self) -> bool:
        """Does it still report? Once it does not, it never does again."""
        return not self.inotify.closed

    def catch_up(self) -> None:
        """Report the opens and reads until now at once."""
        self._read()

    def remove(self, wd: int) -> None:
        """Stop watching."""
        del self._watches[wd]
        self._reads.pop(wd, None)
        with contextlib.suppress(OSError):  # the watch ended when the slave's file did
            remove_watch(self.inotify.fd, wd)
            self._read()  # else its IN_IGNORED would wake the task

    async def run(self) -> None:
        """Wake the PTYs whose slave was opened or read; a system task."""
        try:
            while not self.inotify.closed:
                await self.inotify.wait_readable()
                self._read()
        except BackendError as exc:
            if not self.inotify.closed:  # else it was closed while it waited
                log.warning("opens of PTYs are looked for now and then: %s", exc)
        finally:
            self.inotify.close()
            for opened in self._watches.values():  # from now on they poll
                opened()

    def _read(self) -> None:
        for record in read_records(self.inotify.fd):
            self._tell(record.watch, record.mask)

    def _tell(self, wd: int, mask: int) -> None:
        if mask & IN_Q_OVERFLOW:  # some records were lost, so all have to look
            for told in (*self._watches.values(), *self._reads.values()):
                told()
        if mask & IN_OPEN and wd in self._watches:
            self._watches[wd]()
        if mask & IN_ACCESS and wd in self._reads:
            self._reads[wd]()


_watcher_of_run: trio.lowlevel.RunVar[OpenWatcher | None] = trio.lowlevel.RunVar("PTY watcher")


def get_watcher() -> OpenWatcher:
    """Return the watcher of this Trio run, started if there is none. Raises OSError."""
    watcher = _watcher_of_run.get(None)
    if watcher is None or watcher.inotify.closed:
        watcher = OpenWatcher()
        _watcher_of_run.set(watcher)
        trio.lowlevel.spawn_system_task(watcher.run)
    return watcher
