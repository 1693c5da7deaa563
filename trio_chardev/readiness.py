"""Waiting for descriptors, also where the kernel is short of what it needs for that.

epoll(7) has no room when the user watches too many descriptors (/proc/sys/fs/epoll/max_user_watches:
ENOSPC), or no memory. A send may find no memory for a buffer (ENOBUFS, ENOMEM). None of that says
anything of who is at the other end: it is logged, and tried again a moment later.
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
"""What epoll_ctl(2) fails with when there is no place for one more."""
NO_MEMORY = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)
"""What a read or write fails with that can be tried again; the last one is for descriptors, of
which too many are on their way in UNIX sockets (unix(7))."""

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 1.0  # seconds between two looks at a descriptor
RETRY_INTERVAL = 1.0  # seconds until a read or write that found no memory is tried again
QUIET_TIME = 60.0  # seconds for which it is not told again

_quiet_until: trio.lowlevel.RunVar[float] = trio.lowlevel.RunVar("epoll's trouble was told of")


class HasFileno(Protocol):
    """A socket, for one."""

    def fileno(self) -> int:
        """The descriptor; -1, or ValueError, when it is closed."""


async def wait_readable(file: HasFileno) -> None:
    """As trio.lowlevel's, but where epoll has no room for it *file* is looked at now and then.

    Then it may go on up to a second late, also with the ClosedResourceError of one that was closed.
    Raises other OSErrors, such as PermissionError for what epoll does not take.
    """
    await _wait(trio.lowlevel.wait_readable, file, select.POLLIN)


async def wait_writable(file: HasFileno) -> None:
    """See `wait_readable`."""
    await _wait(trio.lowlevel.wait_writable, file, select.POLLOUT)


async def _wait(wait: Callable[[int], Awaitable[None]], file: HasFileno, mask: int) -> None:
    pause = FIRST_PAUSE
    while True:
        try:
            return await wait(_descriptor_of(file))
        except trio.BusyResourceError:
            if pause == FIRST_PAUSE:
                raise
            return  # it is another's by now, who waits for it
        except OSError as exc:
            if exc.errno not in NO_ROOM:
                raise
            _tell(exc)
        await trio.sleep(pause)
        if _is_ready(_descriptor_of(file), mask):
            return
        pause = min(2 * pause, LONGEST_PAUSE)


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
    """Whether a descriptor's reads or writes found no memory, and when to try again."""

    __slots__ = ("_quiet_until", "_until")

    def __init__(self) -> None:
        self._until = -math.inf
        self._quiet_until = -math.inf

    def meet(self, error: OSError, name: str) -> None:
        """Raise BlockingIOError if *error* is only that the kernel had no memory; have it told of.

        *name* is that of the descriptor, for the log.
        """
        if self.note(error, name):
            raise BlockingIOError(errno.EAGAIN, "no memory") from error

    def note(self, error: OSError, name: str) -> bool:
        """As `meet`, but then give True."""
        if error.errno not in NO_MEMORY:
            return False
        now = trio.current_time()
        self._until = now + RETRY_INTERVAL
        if now >= self._quiet_until:
            log.warning("%s: %s; trying again each second", name, error)
        self._quiet_until = now + QUIET_TIME
        return True

    @property
    def is_met(self) -> bool:
        """Is there something to `wait` for?"""
        return self._until != -math.inf

    async def wait(self) -> None:
        """Wait until it may be tried again."""
        await trio.sleep_until(self._until)
        self._until = -math.inf
