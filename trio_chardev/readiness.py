"""Waiting for descriptors, also when the kernel lacks the resources for that.

epoll_ctl(2) fails with ENOSPC when the user watches too many descriptors
(/proc/sys/fs/epoll/max_user_watches), or with ENOMEM. A send may find no memory for a buffer
(ENOBUFS, ENOMEM). None of that says anything about the peer: it is logged, and tried again soon.
"""

from __future__ import annotations

import errno
import logging
import math
import select
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

log = logging.getLogger(__name__)

NO_ROOM = (errno.ENOSPC, errno.ENOMEM)
"""The errors of epoll_ctl(2) when there is no room for one more descriptor."""
NO_MEMORY = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)
"""The errors after which a read or write can be tried again. ETOOMANYREFS concerns passed
descriptors: too many of them are in flight in UNIX sockets (unix(7))."""

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0  # seconds between two polls of a descriptor
RETRY_INTERVAL = 1.0  # seconds until a read or write that found no memory is tried again
QUIET_TIME = 60.0  # seconds during which the same warning is not logged again

_quiet_until: trio.lowlevel.RunVar[float] = trio.lowlevel.RunVar("epoll's trouble was told of")


class HasFileno(Protocol):
    """A socket, or anything else with a descriptor."""

    def fileno(self) -> int:
        """The descriptor; -1, or ValueError, when it is closed."""


async def wait_readable(file: HasFileno) -> None:
    """Wait as trio.lowlevel.wait_readable does; where epoll has no room, poll *file* now and then.

    While it is polled, the return, or the ClosedResourceError if *file* is closed, may come up to
    a second late. Raises other OSErrors, such as PermissionError for files that epoll rejects.
    """
    try:
        await trio.lowlevel.wait_readable(_descriptor_of(file))
        return
    except OSError as exc:
        _check_for_room(exc)
    await _look_now_and_then(trio.lowlevel.wait_readable, file, select.POLLIN)


async def wait_writable(file: HasFileno) -> None:
    """Wait until *file* is writable; see `wait_readable`."""
    try:
        await trio.lowlevel.wait_writable(_descriptor_of(file))
        return
    except OSError as exc:
        _check_for_room(exc)
    await _look_now_and_then(trio.lowlevel.wait_writable, file, select.POLLOUT)


async def _look_now_and_then(
    wait: Callable[[int], Awaitable[None]], file: HasFileno, mask: int
) -> None:
    """Wait for *file*, for which epoll had no room, until it is ready or *wait* has found room."""
    pause = FIRST_PAUSE
    while True:
        await trio.sleep(pause)
        if _is_ready(_descriptor_of(file), mask):
            return
        pause = min(2 * pause, LONGEST_PAUSE)
        try:
            return await wait(_descriptor_of(file))
        except trio.BusyResourceError:
            return  # the number has been reused, and its new owner waits on it
        except OSError as exc:
            _check_for_room(exc)


def _check_for_room(error: OSError) -> None:
    """Log that epoll has no room, if *error* says that; else raise it."""
    if error.errno not in NO_ROOM:
        raise error
    _tell(error)


def _descriptor_of(file: HasFileno) -> int:
    try:
        fd = file.fileno()
    except ValueError:  # a closed epoll
        fd = -1
    if fd == -1:
        raise trio.ClosedResourceError("another task closed this descriptor")
    return fd


def _is_ready(fd: int, mask: int) -> bool:
    poll = select.poll()
    poll.register(fd, mask)
    return bool(poll.poll(0))


def _tell(error: OSError) -> None:
    now = trio.current_time()
    if now >= _quiet_until.get(-math.inf):
        _quiet_until.set(now + QUIET_TIME)
        log.warning("epoll has no room (%s): what has none is looked at now and then", error)


class Shortage:
    """Notes whether a descriptor's reads or writes found no memory, and when to try again."""

    __slots__ = ("_quiet_until", "_until", "is_met")

    def __init__(self) -> None:
        self.is_met = False
        """Is there something to `wait` for?"""
        self._until = -math.inf
        self._quiet_until = -math.inf

    def meet(self, error: OSError, name: str) -> None:
        """Log *error* and raise BlockingIOError, if it only says that the kernel has no memory.

        *name* names the descriptor in the log.
        """
        if self.note(error, name):
            raise BlockingIOError(errno.EAGAIN, "no memory") from error

    def note(self, error: OSError, name: str) -> bool:
        """Log *error* as `meet` does, and say whether it was lack of memory."""
        if error.errno not in NO_MEMORY:
            return False
        now = trio.current_time()
        self._until = now + RETRY_INTERVAL
        self.is_met = True
        if now >= self._quiet_until:
            log.warning("%s: %s; trying again each second", name, error)
        self._quiet_until = now + QUIET_TIME
        return True

    async def wait(self) -> None:
        """Wait until it may be tried again."""
        await trio.sleep_until(self._until)
        self.is_met = False
