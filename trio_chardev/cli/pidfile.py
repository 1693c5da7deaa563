"""``serve --pidfile``: the process id in a locked file, which is removed at exit.

Others may be able to write to its folder. So no symbolic link is followed, nothing blocks, a file
that is no PID file is left alone, and the file is removed only if it still is the one we made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from trio_chardev.errors import OptionsError, strerror
from trio_chardev.files import check_own

TRIES = 10  # somebody may remove the file each time
LONGEST = 32  # bytes of a PID file
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


@contextmanager
def keeping_pid(path: str) -> Iterator[None]:
    """Keep the process id in the file *path* during the block. Raises OptionsError."""
    try:
        fd = _take(path)
    except (OSError, ValueError) as exc:
        raise OptionsError(f"cannot create PID file '{path}': {strerror(exc)}") from exc
    try:
        yield
    finally:
        _remove(path, fd)
        with contextlib.suppress(OSError):  # it is closed even then, see close(2)
            os.close(fd)


def _take(path: str) -> int:
    """Open, lock and write the file. Raises OSError, ValueError; it is then as before, or gone."""
    for _ in range(TRIES):
        fd, is_new = _open(path)
        try:
            if not is_new:
                _check(fd)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_at(path, fd):
                    is_new = True  # the old content is lost from here on, so remove it on errors
                    _write(fd)
                    return fd
            except BaseException:
                if is_new:
                    _remove(path, fd)
                raise
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise OSError("Others remove it again and again")


def _open(path: str) -> tuple[int, bool]:
    """Open the file; return the descriptor, and whether the file is new."""
    for _ in range(TRIES):
        with contextlib.suppress(FileExistsError):
            return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), True
        if os.path.islink(path):
            raise OSError("It is a symbolic link")
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, _FLAGS), False
    raise OSError("Others remove it again and again")


def _check(fd: int) -> None:
    """Raise OSError unless it is our own user's, or root's, PID file."""
    check_own(os.fstat(fd))
    if not re.fullmatch(rb"\s*[0-9]*\s*", os.pread(fd, LONGEST, 0)):
        raise OSError("What is in it is not a process id")


def _write(fd: int) -> None:
    os.ftruncate(fd, 0)
    text = b"%d\n" % os.getpid()
    if os.pwrite(fd, text, 0) != len(text):
        raise OSError("It can't be written whole")


def is_at(path: str, fd: int) -> bool:
    """Is the open file *fd* the one at *path*?"""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def _remove(path: str, fd: int) -> None:
    if is_at(path, fd):
        with contextlib.suppress(OSError):
            os.unlink(path)
