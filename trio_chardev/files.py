"""Small files that a user has named: read whole, whatever they turn out to be.

Such a name may be that of a FIFO, a device or an endless file, and its disk may hang. So no open
waits for a peer, sizes are limited, and `work_on_files` runs in a thread that nobody waits for
longer than `FILE_TIMEOUT`.
"""

from __future__ import annotations

import _thread
import logging
import os
import select
import stat
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

from trio_chardev.workers import (
    NoThreadError,
    do_in_worker,
    limiter_of_run,
    real_timeout,
    run_in_worker,
)

log = logging.getLogger(__name__)

FILE_TIMEOUT = 5.0  # seconds
CLOSE_TIMEOUT = 3.0  # seconds; less than the core waits for a backend to close
MAX_HANGING = 16  # threads that work on files, and may hang, at a time
READ_SIZE = 1 << 16  # bytes

Opener = Callable[[str, int], int]
T = TypeVar("T")


class SlowFileError(OSError):
    """They: working on a file takes longer than `FILE_TIMEOUT`."""

    def __init__(self) -> None:
        super().__init__(f"its file takes longer than {FILE_TIMEOUT:g} s")


async def work_on_files(
    function: Callable[..., T], *arguments: Any, discard: Callable[[T], object] | None = None
) -> T:
    """Run *function*, which works on files, in a thread, and return what it returns.

    Raises SlowFileError, NoThreadError and what *function* raises. A result that comes when nobody
    waits any more is passed to *discard*.
    """
    with trio.move_on_after(real_timeout(FILE_TIMEOUT)):
        return await run_in_worker(function, *arguments, limiter=_places(), discard=discard)
    raise SlowFileError


async def in_time(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Await *function* for at most `FILE_TIMEOUT`. Raises SlowFileError, and what it raises."""
    with trio.move_on_after(real_timeout(FILE_TIMEOUT)):
        return await function(*arguments)
    raise SlowFileError


async def finish_on_files(
    function: Callable[..., T], *arguments: Any, discard: Callable[[T], object] | None = None
) -> T:
    """Do as `work_on_files`, but hold Cancelled back until *function* is done or takes too long.

    It is for functions that leave something behind that others see, a name or a connection:
    whoever cancels finds either all of it or nothing.
    """
    with trio.move_on_after(real_timeout(FILE_TIMEOUT), shield=True):
        return await run_in_worker(function, *arguments, limiter=_places(), discard=discard)
    raise SlowFileError


async def end_on_files(what: str, function: Callable[[], object]) -> None:
    """Run *function*, the last work on the file of *what*, in a thread, shielded from Cancelled.

    If it takes longer than `CLOSE_TIMEOUT`, a thread goes on with it and the log says so. Raises
    what *function* raises before that.
    """
    begun = _thread.allocate_lock()

    def do_once() -> None:
        if begun.acquire(blocking=False):
            function()

    def do_late() -> None:
        try:
            do_once()
        except Exception as exc:
            log.warning("%s: its file can't be left in order: %s", what, exc)

    try:
        with trio.move_on_after(real_timeout(CLOSE_TIMEOUT), shield=True):
            await run_in_worker(do_once, limiter=_places())
            return
    except NoThreadError:
        function()
        return
    log.warning("%s: its file takes longer than %g s, and is left", what, CLOSE_TIMEOUT)
    do_in_worker(do_late)  # the first thread, if it has not begun, lost the job when the wait ended


_file_places: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("file places")


def _places() -> trio.CapacityLimiter:
    return limiter_of_run(_file_places, MAX_HANGING)


def open_regular(path: str, max_size: int, opener: Opener) -> int:
    """Open the regular file *path* for reading, and return the descriptor.

    Raises OSError, also if it is no regular file or has more than *max_size* bytes; ValueError if
    *path* can't be a path.
    """
    fd = _open(path, opener)
    try:
        _check(fd, max_size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_file(path: str, max_size: int, opener: Opener) -> bytes:
    """Return the content of the file *path*. Raises what `open_regular` raises.

    A pipe without a name, such as a shell's ``<(...)``, is read to its end.
    """
    fd = _open(path, opener)
    try:
        if _is_unnamed_pipe(fd):
            return _read(fd, max_size, time.monotonic() + FILE_TIMEOUT)
        _check(fd, max_size)
        return _read(fd, max_size)
    finally:
        os.close(fd)


def _open(path: str, opener: Opener) -> int:
    return opener(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def check_own(status: os.stat_result) -> None:
    """Raise OSError unless *status* is that of a regular file that we, or root, own."""
    if not stat.S_ISREG(status.st_mode):
        raise OSError("Not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise OSError(f"It belongs to user {status.st_uid}")


def _check(fd: int, max_size: int) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("Not a regular file")
    if status.st_size > max_size:
        raise _too_large(max_size)


def _read(fd: int, max_size: int, deadline: float | None = None) -> bytes:
    data = bytearray()
    while True:
        if deadline is not None and not _is_readable(fd, deadline - time.monotonic()):
            raise SlowFileError
        piece = os.read(fd, READ_SIZE)
        if not piece:
            return bytes(data)
        data += piece
        if len(data) > max_size:  # it grows while it is read, or it is a pipe
            raise _too_large(max_size)


def _too_large(max_size: int) -> OSError:
    return OSError(f"It has more than {max_size} bytes")


def _is_readable(fd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout) * 1000))


def _is_unnamed_pipe(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:[")
