"""The descriptors that the program was started with: which they are, and who gets one.

A number on the command line names a descriptor only if it was open when the program began:
any other may be by now, or be later, one of this process's own (Trio's epoll, a client's
socket). systemd gives names to those that it passes (sd_listen_fds(3)).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterable, Mapping

import attrs

from trio_chardev.errors import BackendError

FIRST = 3  # the first that systemd passes (SD_LISTEN_FDS_START); 0 to 2 are the standard ones
SHOWN = "/proc/self/fd"
UNNAMED = "unknown"  # as sd_listen_fds_with_names(3) calls those that have no name


@attrs.define
class Inherited:
    """What there is to give, each once, by its number or by its name."""

    _left: set[int] = attrs.Factory(set)
    _given: set[int] = attrs.Factory(set)
    _named: list[tuple[str, int]] = attrs.Factory(list)
    """In systemd's order; several may have the same name, and are given in that order."""

    @classmethod
    def found(cls, environ: Mapping[str, str] = os.environ) -> Inherited:
        """Those that are open now, and the names that *environ* has for them.

        To be called before anything is opened.
        """
        return cls(set(_open_now()), set(), list(_names(environ)))

    def take(self, name: str) -> int:
        """Give one away; the caller owns it. Raises BackendError, in which case none was given."""
        fd = self._find(name)
        if fd in self._given:
            raise BackendError(f"File descriptor '{name}' has been given already")
        if fd not in self._left:
            raise BackendError(f"File descriptor '{name}' was not open when the program began")
        try:
            # 0, 1 and 2 stay what they are, or the next file to be opened would be one of them.
            own = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST) if fd < FIRST else fd
            os.set_inheritable(own, False)
        except OSError as exc:
            raise BackendError.from_os_error(
                f"Could not use file descriptor '{name}'", exc
            ) from exc
        self._left.remove(fd)
        self._given.add(fd)
        return own

    def is_listening(self, name: str) -> bool:
        """Is it a socket that listens? It is not given away by that."""
        with contextlib.suppress(BackendError, OSError):
            fd = self._find(name)
            if fd in self._left:
                sock = socket.socket(fileno=fd)  # which costs no descriptor if it is none
                try:
                    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
                finally:
                    sock.detach()
        return False

    def _find(self, name: str) -> int:
        """The number of the one of that name; of several the first that is left."""
        if name.isascii() and name.isdigit() and len(name) < 10:
            return int(name)
        numbers = [number for known, number in self._named if known == name]
        if not numbers:
            raise BackendError(f"File descriptor named '{name}' has not been found")
        return next((number for number in numbers if number in self._left), numbers[0])


def fill_standard() -> None:
    """Have /dev/null where 0, 1 or 2 is closed, or the next file to be opened would be that."""
    while True:
        try:
            fd = os.open(os.devnull, os.O_RDWR)
        except OSError:  # no /dev, or no descriptor left: then nothing can be opened in its place
            return
        if fd >= FIRST:
            os.close(fd)
            return


def _open_now() -> Iterable[int]:
    """All that are open; where there is no proc(5), those up to 1023."""
    try:
        numbers = [int(name) for name in os.listdir(SHOWN)]
    except OSError:
        numbers = [*range(1024)]
    for number in numbers:
        with contextlib.suppress(OSError):  # the one of that very listing
            os.fstat(number)
            yield number


def _names(environ: Mapping[str, str]) -> Iterable[tuple[str, int]]:
    """The names of those that systemd has passed to this very process, not to one above it."""
    try:
        is_ours = int(environ.get("LISTEN_PID", "")) == os.getpid()
        count = int(environ.get("LISTEN_FDS", "")) if is_ours else 0
    except ValueError:
        return
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    for index in range(min(count, 1 << 16)):
        has_name = index < len(names) and names[index]
        yield names[index] if has_name else UNNAMED, FIRST + index
