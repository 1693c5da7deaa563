"""The descriptors that the program has inherited: which they are, and who gets them.

A number on the command line is valid only if that descriptor was open when the program began: any
other may have become one of this process's own (Trio's epoll, a client's socket), now or later.
systemd gives names to the descriptors that it passes (sd_listen_fds(3)).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterable, Mapping

from trio_chardev.plain_errors import BackendError, backend_errors

FIRST = 3  # the first that systemd passes (SD_LISTEN_FDS_START), after the standard ones
SHOWN = "/proc/self/fd"
UNNAMED = "unknown"  # sd_listen_fds_with_names(3)'s name for those without one


class Inherited:
    """The inherited descriptors, each of which is given away once, by number or name.

    But a listening socket with a name stays open, as it does in systemd: when its user has closed
    it, as a listener does that a reload makes anew, it can be given away again.
    """

    def __init__(self, left: Iterable[int] = (), named: Iterable[tuple[str, int]] = ()) -> None:
        """*named* has names and numbers in systemd's order; those of one name are given away in it."""
        self._left = set(left)
        self._named = list(named)
        self._given: set[int] = set()
        self._listening: dict[str, bool] = {}
        self._lent: dict[int, int] = {}  # listening sockets that stay -> what was given away

    @classmethod
    def found(cls, environ: Mapping[str, str] = os.environ) -> Inherited:
        """Find the descriptors that are open now, and their names in *environ*.

        Call it before anything is opened.
        """
        return cls(_open_now(), _names(environ))

    def take(self, name: str) -> int:
        """Give a descriptor away; the caller then owns it. Raises BackendError, and keeps it."""
        fd = self._find(name)
        if fd in self._given or not self._is_back(fd):
            raise BackendError(f"File descriptor '{name}' has been given already")
        if fd not in self._left:
            raise BackendError(f"File descriptor '{name}' was not open when the program began")
        with backend_errors(f"Could not use file descriptor '{name}'"):
            # 0, 1 and 2 stay open, or the next file to be opened would get the number.
            stays = any(fd == number for _, number in self._named) and _listens(fd)
            is_copy = stays or fd < FIRST
            own = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST) if is_copy else fd
            os.set_inheritable(fd if stays else own, False)
        if stays:
            self._lent[fd] = own
            return own
        self._left.remove(fd)
        self._given.add(fd)
        return own

    def is_listening(self, name: str) -> bool:
        """Is it a listening socket? Does not give it away; the answer stays, also when it is given."""
        if name not in self._listening:
            self._listening[name] = self._looks_listening(name)
        return self._listening[name]

    def _looks_listening(self, name: str) -> bool:
        with contextlib.suppress(BackendError):
            fd = self._find(name)
            return fd in self._left and _listens(fd)
        return False

    def _is_back(self, fd: int) -> bool:
        """Is it with nobody, so that it can be given away?"""
        if fd in self._lent and not _is_same(fd, self._lent[fd]):
            del self._lent[fd]
        return fd not in self._lent

    def _find(self, name: str) -> int:
        """The descriptor called *name*; if there are several, the first that is left."""
        if name.isascii() and name.isdigit() and len(name) < 10:
            return int(name)
        numbers = [number for known, number in self._named if known == name]
        if not numbers:
            raise BackendError(f"File descriptor named '{name}' has not been found")
        left = (number for number in numbers if number in self._left and self._is_back(number))
        return next(left, numbers[0])


def _listens(fd: int) -> bool:
    """Is *fd*, which stays open, a listening socket?"""
    try:
        sock = socket.socket(fileno=fd)  # if it fails, *fd* stays open
    except OSError:
        return False
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False
    finally:
        sock.detach()


def _is_same(fd: int, other: int) -> bool:
    """Are they the same socket? A number that was closed may be another file's by now."""
    try:
        return os.path.sameopenfile(fd, other)
    except OSError:
        return False


def fill_standard() -> None:
    """Open /dev/null as 0, 1 or 2 if closed, so that no other file gets the number."""
    while True:
        try:
            fd = os.open(os.devnull, os.O_RDWR)
        except OSError:  # no /dev, or no descriptor left: then no other file gets the number either
            return
        if fd >= FIRST:
            os.close(fd)
            return


def _open_now() -> Iterable[int]:
    """Find all open descriptors; without proc(5), only those up to 1023."""
    try:
        numbers = [int(name) for name in os.listdir(SHOWN)]
    except OSError:
        numbers = [*range(1024)]
    for number in numbers:
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            os.fstat(number)
            yield number


def _names(environ: Mapping[str, str]) -> Iterable[tuple[str, int]]:
    """Yield the names of the descriptors that systemd has passed, if to this very process."""
    try:
        is_ours = int(environ.get("LISTEN_PID", "")) == os.getpid()
        count = int(environ.get("LISTEN_FDS", "")) if is_ours else 0
    except ValueError:
        return
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for index in range(min(count, 1 << 16)):
        has_name = index < len(names) and names[index]
        yield names[index] if has_name else UNNAMED, FIRST + index
