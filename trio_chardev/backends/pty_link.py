"""The symbolic link to the slave of a PTY, under a name that stays."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from trio_chardev.errors import BackendError

log = logging.getLogger(__name__)


class SlaveLink:
    """A symbolic link to a slave.

    It is made beside its place if the backend to be replaced has its own there, and is moved
    by the commit.
    """

    def __init__(self, path: str, slave: str, *, takes_over: bool) -> None:
        """*takes_over*: the link at *path* is that of the PTY to be replaced.

        Raises BackendError, also if anything else is at *path*.
        """
        self.path = path
        self._slave = slave
        self._made = path
        if takes_over:
            self._made = f"{path}.{os.path.basename(slave)}"
        with _link_errors(path):
            if _is_left_behind(path, slave):
                os.unlink(path)
            os.symlink(slave, self._made)

    @property
    def is_ours(self) -> bool:
        """Nobody has put another link, or file, in its place."""
        try:
            return os.readlink(self._made) == self._slave
        except OSError:
            return False

    def move(self) -> None:
        """Put it in its place. Raises BackendError."""
        if self._made != self.path:
            with _link_errors(self.path):
                os.rename(self._made, self.path)
            self._made = self.path

    def lead_to(self, slave: str) -> None:
        """Have it lead to *slave* from now on, if it is still ours. Raises BackendError."""
        if self.is_ours:
            beside = f"{self._made}.{os.path.basename(slave)}"
            with _link_errors(self.path):
                os.symlink(slave, beside)
                try:
                    os.rename(beside, self._made)
                except OSError:
                    os.unlink(beside)
                    raise
            self._slave = slave

    def remove(self) -> None:
        """Unlink it, if it is still ours."""
        if self.is_ours:
            with contextlib.suppress(OSError):
                os.unlink(self._made)


def _is_left_behind(path: str, slave: str) -> bool:
    """Is it a link to a PTY that is gone, or is ours now? A crash leaves such."""
    try:
        leads_to = os.readlink(path)
    except OSError:  # nothing, or no link
        return False
    if not leads_to.startswith("/dev/pts/"):
        return False
    if leads_to == slave or not os.path.exists(path):
        return True
    if _is_older_than_its_pty(path):
        log.warning("'%s' is replaced: it was for another PTY than '%s' is now", path, leads_to)
        return True
    return False


def _is_older_than_its_pty(path: str) -> bool:
    """Was the number given to somebody else since the link was made? Raises OSError.

    A PTY that was there before its link, and is still, is in use. All three times of a PTY begin
    with its making. Where a clock was set back a link is old that is from before this boot, or
    from the future.
    """
    made = os.lstat(path).st_mtime_ns
    pty = os.stat(path)
    now = time.time_ns()
    booted = now - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return (
        made < min(pty.st_atime_ns, pty.st_mtime_ns, pty.st_ctime_ns) or not booted <= made <= now
    )


@contextmanager
def _link_errors(path: str) -> Iterator[None]:
    failed = f"Failed to create PTY symlink '{path}'"
    try:
        yield
    except (OSError, ValueError) as exc:
        raise BackendError.from_os_error(failed, exc) from exc
