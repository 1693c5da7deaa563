"""How a PTY leaves: either its user reads everything first, or unread bytes are taken back.

Both need the slave open: the master does not report what is unread, and what its user has not
read is dropped when the master is closed.
"""

from __future__ import annotations

import errno
import logging
import os
import select

from trio_chardev.backends.holder import FdHolder
from trio_chardev.backends.pty.opens import OpenWatcher
from trio_chardev.backends.pty.unread import UserReads, take_all, wait_empty, wait_quiet
from trio_chardev.core.leaving import Leaving
from trio_chardev.errors import BackendError

log = logging.getLogger(__name__)


class PtyLeaving(Leaving):
    """How the PTY with *master* and its slave at *path* leaves chardev *id*."""

    def __init__(self, id: str, master: FdHolder, path: str) -> None:
        self._id = id
        self._master = master
        self._path = path
        self._watcher: OpenWatcher | None = None
        self._slave: int | None = None
        """Open from `prepare` until `stay`, to count unread bytes and to read them."""
        self._has_user = False
        """Somebody else had the slave open when it was opened here."""
        self._reads = UserReads()

    def move(self, master: FdHolder, path: str) -> None:
        """Serve another PTY from now on."""
        self._master, self._path = master, path

    def watch(self, watcher: OpenWatcher | None) -> None:
        """Learn of reads from *watcher* from now on; from none if it is None."""
        self._reads.end()
        self._watcher = watcher

    @property
    def has_slave(self) -> bool:
        """Is the slave open here?"""
        return self._slave is not None

    @property
    def is_only_user(self) -> bool:
        """Is the slave open here, and nowhere else?"""
        return self._slave is not None and not self._has_user

    async def settle(self, timeout: float) -> None:
        """Wait while the slave's user reads, as two concurrent readers get pieces by turns."""
        if is_hung_up(self._master):
            return
        slave = self._open_slave()
        if slave is None:
            return
        try:
            if self._watcher is not None:
                self._reads.begin(self._watcher, self._path)
            await wait_quiet(slave, self._reads, timeout)
        finally:
            os.close(slave)

    @property
    def is_taking(self) -> bool:
        return self._reads.have_come

    def prepare(self, *, carry: bool) -> None:
        """Open the slave, if it is needed, and its user has not locked it.

        Raises BackendError.
        """
        if not self._master.closed:
            self._has_user = not is_hung_up(self._master)
            if self._has_user or carry:  # not otherwise, as an open wakes the watcher
                self._slave = self._open_slave()

    def stay(self) -> None:
        """Close the slave."""
        self._reads.end()
        if self._slave is not None:
            os.close(self._slave)
            self._slave = None

    def take_back(self) -> bytes:
        """Read what is unread, as the slave's user, or the next one, gets no more from this PTY."""
        if self._slave is None:
            return b""
        data, is_torn = take_all(self._slave, self._reads)
        if is_torn:
            text = "chardev '%s': the user of '%s' has read in the midst of what is carried over"
            log.warning(text, self._id, self._path)
        return data

    @property
    def is_drained(self) -> bool:
        return self._slave is None or not self._has_user

    async def drain(self) -> None:
        """Wait until the slave's user has read everything, as closing the master drops the rest."""
        if self._slave is not None and self._has_user:
            await wait_empty(self._slave)

    def _open_slave(self) -> int | None:
        try:
            return os.open(self._path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as exc:
            if exc.errno == errno.EBUSY:  # TIOCEXCL (ioctl_tty(2)), as picocom and tio set it
                log.warning("'%s' is locked by its user: what is unread is lost", self._path)
                return None
            raise BackendError.from_os_error(f"Could not open '{self._path}'", exc) from exc


def is_hung_up(master: FdHolder) -> bool:
    """Does nobody have the slave open?"""
    if master.closed:
        return True
    poll = select.poll()
    poll.register(master.fd, 0)  # POLLHUP needs no asking for
    return bool(poll.poll(0))
