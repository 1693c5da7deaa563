"""Opens the device that an option names, now or when it comes, in threads.

A thread does it as the driver of an adaptor that hangs may block, and so may the disk of its name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import attrs

from trio_chardev.backends.descriptor import FdHolder, open_fd, slow_errors
from trio_chardev.backends.holder import owned
from trio_chardev.backends.serial.arrivals import ANY_TTY, Arrivals, Places, places_of, watch
from trio_chardev.backends.serial.modem import NO_SUCH_CONTROL
from trio_chardev.backends.serial.same_line import Links, OtherPtyError, check_meant, links_at
from trio_chardev.backends.serial.usb import (
    PREFIX,
    NotPluggedInError,
    Roots,
    check_is_named,
    find_node,
)
from trio_chardev.backends.serial.wanted import Found
from trio_chardev.errors import BackendError
from trio_chardev.files import work_on_files

NULL_DEVICE = os.makedev(1, 3)  # devices.txt of the kernel
ABSENT = (errno.ENOENT, errno.ENODEV, errno.ENXIO)  # ENXIO: the node is there, but no hardware
BUSY = (errno.EBUSY, errno.EWOULDBLOCK)


def is_absent(error: BackendError) -> bool:
    """Is *error*, of opening a line, that the device which is meant is not there?"""
    cause = error.__cause__
    if isinstance(cause, NotPluggedInError | OtherPtyError):
        return True
    return isinstance(cause, OSError) and cause.errno in ABSENT


def may_come(error: BackendError) -> bool:
    """Is *error* that, or that another program has the device?"""
    cause = error.__cause__
    return is_absent(error) or (isinstance(cause, OSError) and cause.errno in BUSY)


@attrs.frozen
class Seen:
    """A device that was looked at."""

    status: os.stat_result
    links: Links
    """Those that led to it."""


@attrs.frozen
class Opened:
    """A device that was opened and not altered yet."""

    holder: FdHolder
    found: Found | None
    """Its state; None if it is /dev/null."""
    links: Links
    """Those that led to it."""

    def close(self) -> None:
        """Close it, in a thread."""
        self.holder.close()


@attrs.define(eq=False, repr=False)
class Device:
    """The device that *path* names."""

    path: str
    _open_path: Callable[[str, int], int]
    _roots: Roots = attrs.Factory(Roots)
    links: Links | None = None
    """The links that led to it when it was opened last; None if it was not yet."""

    async def look(self) -> Seen | None:
        """Look at it without opening it; None if it can't be opened, as that is reported then.

        Raises BackendError, also if it is outside of the sandbox.
        """
        with slow_errors(self._failed):
            return await work_on_files(self._look)

    async def open(self) -> Opened:
        """Open it. Raises BackendError, also if it is not the one that is meant."""
        with slow_errors(self._failed):
            return await work_on_files(self._open, discard=Opened.close)

    async def watch(self) -> Arrivals:
        """Watch for it from now on; without inotify nothing is told."""
        return await watch(self._places)

    @property
    def _failed(self) -> str:
        return f"Could not open '{self.path}'"

    # ------------------------------------------------------------ in a thread

    def _node(self) -> str:
        """The path of the device. Raises OSError."""
        return find_node(self.path, self._roots) if self.path.startswith(PREFIX) else self.path

    def _look(self) -> Seen | None:
        try:
            node = self._node()
            fd = self._open_path(node, os.O_PATH | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        try:
            return Seen(os.fstat(fd), links_at(node))
        finally:
            os.close(fd)

    def _open(self) -> Opened:
        if (seen := self._look()) is not None:  # opening another's PTY would be noticed
            self._check(seen.status, seen.links)
        node = self._node()
        links = links_at(node)
        holder = open_fd(node, os.O_RDWR, self._open_path)
        with owned(holder.close):
            status = os.fstat(holder.fd)
            self._check(status, links)
            return Opened(holder, self._state_of(holder.fd, status), links)

    def _check(self, status: os.stat_result, links: Links) -> None:
        """Raise OSError if what has *status* is not the device that is meant."""
        check_meant(status, links, self.links)
        for link in links:
            if os.path.basename(os.path.dirname(link.path)) == "by-id":
                check_is_named(link.path, status, self._roots)

    def _state_of(self, fd: int, status: os.stat_result) -> Found | None:
        try:
            return Found.at(fd)
        except OSError as exc:
            if status.st_rdev == NULL_DEVICE:
                return None
            if exc.errno in NO_SUCH_CONTROL:
                raise BackendError(f"{self._failed}: it is not a tty") from exc
            raise  # such as EIO from a serial port that the machine lacks

    def _places(self) -> Places:
        is_usb = self.path.startswith(PREFIX)
        return {self._roots.dev: {ANY_TTY}} if is_usb else places_of(self.path)
