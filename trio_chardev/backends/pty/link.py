"""The symbolic link to the slave of a PTY, whose name stays when the slave's changes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from contextlib import AbstractContextManager

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.errors import backend_errors
from trio_chardev.place import Place

log = logging.getLogger(__name__)


class SlaveLink:
    """A symbolic link to a slave. Its methods are for threads, as its disk may hang.

    If the backend to be replaced has its own link at that path, this one is made with another name
    beside it, and renamed right before the commit; `remove` undoes that, if the commit did not
    come. All this is done in the folder that was opened first, see `trio_chardev.place`.
    """

    def __init__(
        self,
        path: str,
        slave: str,
        *,
        replaced: SlaveLink | None = None,
        sandbox: Sandbox = EVERYWHERE,
    ) -> None:
        """Make the link. *replaced* is the link of the PTY to be replaced.

        Raises BackendError, also if anything else is at *path*, or *path* is not in *sandbox*.
        """
        self._slave = slave
        self._is_removed = False
        self._lock = threading.Lock()  # one thread at a time; links at one path share it
        self._before: SlaveLink | None = None  # the one it replaces, until the commit
        with _link_errors(path):
            self._place = self._made = sandbox.locate(path)
        self.path = path
        try:
            with _link_errors(path):
                if replaced is not None and replaced.is_at(self._place):
                    self._lock = replaced._lock
                    self._before = replaced
                    self._made = _beside(self._place, slave)
                elif _is_left_behind(self._place, slave):
                    self._place.unlink()
                self._made.symlink(slave)
        except BaseException:
            self._close()
            raise

    def is_at(self, place: Place) -> bool:
        """Is it at *place*, and still the link that was made here?"""
        with self._lock:
            return self._is_ours() and self._made.is_same(place)

    def _is_ours(self) -> bool:
        """Has nobody put another link, or file, in its place?"""
        try:
            return self._made.readlink() == self._slave
        except OSError:
            return False

    def move(self) -> None:
        """Rename it to its path, over the replaced one. Raises BackendError."""
        with self._lock:
            if self._made is not self._place:
                with _link_errors(self.path):
                    self._place.check_reached()
                    self._made.rename_to(self._place)
                beside, self._made = self._made, self._place
                beside.close()

    def keep(self) -> None:
        """Leave it in place when it is removed; for the commit."""
        self._before = None

    def lead_to(self, slave: str) -> None:
        """Make it lead to *slave*, if nobody has replaced it. Raises BackendError."""
        with self._lock:
            if not self._is_removed and self._is_ours():
                with _link_errors(self.path):
                    self._replace(slave)
            self._slave = slave  # another link, in its place for now, may have to restore it

    def _replace(self, slave: str) -> None:
        with contextlib.closing(_beside(self._made, slave)) as beside:
            beside.symlink(slave)
            try:
                beside.rename_to(self._made)
            except OSError:
                beside.unlink()
                raise

    def remove(self) -> None:
        """Unlink it, unless it was replaced by others, or restore the one it replaced. Final."""
        with self._lock:
            if self._is_removed:
                return
            if self._is_ours():
                before = self._before if self._made is self._place else None
                with contextlib.suppress(OSError):
                    if before is None or before._is_removed:
                        self._made.unlink()
                    else:
                        self._replace(before._slave)
            self._is_removed = True
            self._close()

    def _close(self) -> None:
        self._made.close()
        self._place.close()


def _beside(place: Place, slave: str) -> Place:
    return place.beside(f"{place.name}.{os.path.basename(slave)}")


def _is_left_behind(place: Place, slave: str) -> bool:
    """Is it a link to a PTY that is gone, or to *slave*? A crash leaves links behind."""
    try:
        leads_to = place.readlink()
    except OSError:  # nothing is there, or it is not a link
        return False
    if os.path.dirname(leads_to) != "/dev/pts":
        return False
    if leads_to == slave or not os.path.exists(leads_to):
        return True
    if _is_older_than_its_pty(place, leads_to):
        text = "'%s' is replaced: it was for another PTY than '%s' is now"
        log.warning(text, place.path, leads_to)
        return True
    return False


def _is_older_than_its_pty(place: Place, leads_to: str) -> bool:
    """Was the PTY's number given to another one since the link was made? Raises OSError.

    A link to a PTY that was made before it and still exists is in use. All three times of a PTY
    begin with its creation. In case a clock was set back, a link that is from before this boot,
    or from the future, is taken for an old one.
    """
    made = place.stat().st_mtime_ns
    pty = os.stat(leads_to)
    now = time.time_ns()
    booted = now - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return (
        made < min(pty.st_atime_ns, pty.st_mtime_ns, pty.st_ctime_ns) or not booted <= made <= now
    )


def _link_errors(path: str) -> AbstractContextManager[None]:
    return backend_errors(f"Failed to create PTY symlink '{path}'")
