"""File descriptors that QMP clients pass: a monitor's named ones, and fd sets.

An option that takes a path also takes ``/dev/fdset/N``: opening it duplicates the descriptor of
set N that has the requested access mode. A duplicate shares status flags and offset with the
original, in whatever process that is.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re

import attrs

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.socket.rights import close_fds
from trio_chardev.errors import BackendError
from trio_chardev.qmp.server.session import QmpError

DIRECTORY = "/dev/fdset/"


def close_quietly(fd: int) -> None:
    """Close *fd* soon, ignoring errors; in a thread if that may block."""
    close_fds([fd])


@attrs.define(repr=False)
class NamedFds:
    """The descriptors given by getfd, by name."""

    _fds: dict[str, int] = attrs.Factory(dict)

    def add(self, name: str, fd: int) -> None:
        """Take *fd* over, even if this raises QmpError; a descriptor of the same name is closed."""
        if name[:1].isdigit():
            close_quietly(fd)
            raise QmpError("Parameter 'fdname' expects a name not starting with a digit")
        if name in self._fds:
            close_quietly(self._fds[name])
        self._fds[name] = fd

    def close(self, name: str) -> None:
        """Close a descriptor. Raises QmpError if there is none of that name."""
        if name not in self._fds:
            raise QmpError(f"File descriptor named '{name}' not found")
        close_quietly(self._fds.pop(name))

    def take(self, name: str) -> int:
        """Hand a descriptor over. Raises BackendError if there is none of that name."""
        try:
            return self._fds.pop(name)
        except KeyError:
            raise BackendError(f"File descriptor named '{name}' has not been found") from None

    def close_all(self) -> None:
        """Close all."""
        while self._fds:
            close_quietly(self._fds.popitem()[1])


@attrs.frozen
class FdsetFdInfo:
    """One descriptor of a set."""

    fd: int
    opaque: str | None = None


@attrs.frozen(kw_only=True)
class FdsetInfo:
    """A set of descriptors."""

    fdset_id: int
    fds: tuple[FdsetFdInfo, ...]


@attrs.frozen(kw_only=True)
class AddfdInfo:
    """What add-fd returns."""

    fdset_id: int
    fd: int


@attrs.define(repr=False)
class FdSets:
    """The fd sets of a service."""

    _sets: dict[int, list[FdsetFdInfo]] = attrs.Factory(dict)

    def add(self, fd: int, set_id: int | None, opaque: str | None) -> AddfdInfo:
        """Take *fd* over, into set *set_id* or a new one. Raises QmpError; *fd* is then closed."""
        if set_id is None:
            set_id = next(i for i in itertools.count() if i not in self._sets)
        elif set_id < 0:
            close_quietly(fd)
            raise QmpError("Parameter 'fdset-id' expects a non-negative value")
        self._sets.setdefault(set_id, []).append(FdsetFdInfo(fd, opaque))
        return AddfdInfo(fdset_id=set_id, fd=fd)

    def remove(self, set_id: int, fd: int | None) -> None:
        """Close one descriptor of a set, or all. Raises QmpError if there is none."""
        infos = self._sets.get(set_id, [])
        gone = [info for info in infos if fd is None or info.fd == fd]
        if not gone:
            what = f"fdset-id:{set_id}" + (f", fd:{fd}" if fd is not None else "")
            raise QmpError(f"File descriptor named '{what}' not found")
        for info in gone:
            infos.remove(info)
            close_quietly(info.fd)
        if not infos:
            del self._sets[set_id]

    def query(self) -> list[FdsetInfo]:
        """Return all sets."""
        return [FdsetInfo(fdset_id=i, fds=tuple(infos)) for i, infos in self._sets.items()]

    def open_path(
        self, path: str, flags: int, sandbox: Sandbox = EVERYWHERE, *, mode: int = 0o666
    ) -> int:
        """Open *path*, which may be ``/dev/fdset/N``. Raises what `Sandbox.open` raises."""
        if not path.startswith(DIRECTORY):
            return sandbox.open(path, flags, mode=mode)
        if flags & os.O_PATH:  # a place in a folder is wanted, which a descriptor is not
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        number = path.removeprefix(DIRECTORY)
        if not re.fullmatch(r"[0-9]{1,19}", number):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        infos = self._sets.get(int(number))
        if infos is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        for info in infos:
            if fcntl.fcntl(info.fd, fcntl.F_GETFL) & os.O_ACCMODE == flags & os.O_ACCMODE:
                return _duplicate(info.fd, flags)
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)

    def close_all(self) -> None:
        """Close all."""
        for set_id in list(self._sets):
            self.remove(set_id, None)


def _duplicate(fd: int, flags: int) -> int:
    """Duplicate *fd*, which gets O_APPEND if that is in *flags*. Raises OSError.

    O_APPEND is never cleared: another chardev may have opened the same descriptor with it.
    O_NONBLOCK is left to the user of the duplicate, see `hold_shared`.
    """
    before = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_APPEND & ~before:
        fcntl.fcntl(fd, fcntl.F_SETFL, before | os.O_APPEND)
    return os.dup(fd)
