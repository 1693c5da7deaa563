"""The file of a listening UNIX socket: binding it, moving it into place, removing it.

A path is not taken from who listens there, and what is not a socket is not removed. A
socket that its owner left behind is, and the socket file of the listener that is to be
replaced is renamed over. Nobody unlinks what another has bound: inodes are compared. All of it is
done in the folder that is opened first; see `trio_chardev.place`.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import stat

from trio_chardev.backends.addresses import SUN_PATH_SIZE
from trio_chardev.errors import BackendError
from trio_chardev.place import Place
from trio_chardev.sandbox import EVERYWHERE, Sandbox

log = logging.getLogger(__name__)

Inode = tuple[int, int]


class SocketFile:
    """A socket file, for *path*; bound there, or beside it until `place`."""

    __slots__ = ("_bound", "_inode", "_mode", "_place", "_sandbox", "path", "replaced_inode")

    def __init__(self, path: bytes, mode: int | None = None, sandbox: Sandbox = EVERYWHERE) -> None:
        """It gets the permissions *mode*, less the umask; None: what the kernel gives."""
        self.path = path
        self._mode = mode
        self._sandbox = sandbox
        self.replaced_inode: Inode | None = None
        """What `place` may rename it over: the file of the listener that is replaced."""
        self._place: Place | None = None  # where it is to be
        self._bound: Place | None = None  # where it is now
        self._inode: Inode | None = None

    def choose_place(self, replaced: SocketFile | None) -> None:
        """Decide where to bind, and clear that place of a socket left behind.

        Raises BackendError if the path is in use or outside of the sandbox, OSError.
        """
        self._place = self._bound = place = self._sandbox.locate(os.fsdecode(self.path))
        if replaced is not None and replaced._is_in(place):
            self.replaced_inode = replaced._inode
            self._bound = _beside(place)
            return
        self._make_way(place)
        if len(_kernel_name(place)) >= SUN_PATH_SIZE:
            self._bound = _beside(place)

    def bind(self, sock: socket.socket) -> None:
        """Bind *sock* at the place chosen. Raises BackendError, OSError."""
        assert self._bound is not None
        if self._mode is not None:
            os.fchmod(sock.fileno(), self._mode)  # bind(2) makes the file with the socket's mode
        sock.bind(_kernel_name(self._bound))
        self._inode = _inode(self._bound)
        if self.replaced_inode is None:
            self.place()

    def place(self) -> None:
        """Rename it to its path, unless it is there already. Raises BackendError."""
        bound, place = self._bound, self._place
        if bound is place or bound is None or place is None:
            return
        if _inode(place) not in (None, self.replaced_inode):
            raise self._in_use("somebody has taken it meanwhile")
        try:
            place.check_reached()
            bound.rename_to(place)
        except OSError as exc:
            raise self.failed_to_bind(exc) from exc
        self._bound = place
        bound.close()

    def restrict(self, mode: int) -> None:
        """Give it the permissions *mode* now. Raises OSError."""
        assert self._bound is not None
        fd = self._bound.open(os.O_PATH | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == self._inode:
                os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)

    @property
    def is_there(self) -> bool:
        """Is it still where it was put?"""
        return self._bound is not None and self._is_in(self._bound)

    def _is_in(self, place: Place) -> bool:
        return self._inode is not None and _inode(place) == self._inode

    def unlink(self) -> None:
        """Remove it, if it is still there, and be done with it. Never fails."""
        if self.is_there and self._bound is not None:
            try:
                self._bound.unlink()
            except OSError as exc:
                log.warning("can't remove socket %s: %s", self._bound.path, exc)
        for place in (self._bound, self._place):
            if place is not None:
                place.close()
        self._bound = self._place = None

    def _make_way(self, place: Place) -> None:
        """Unlink a socket that its owner has left behind. Raises BackendError, OSError.

        connect(2) tells whether the owner lives. With another type of socket it does so without
        giving that owner a client: EPROTOTYPE, or success if the types match after all.
        """
        try:
            fd = place.open(os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                raise BackendError.from_os_error(
                    f"Failed to unlink socket {os.fsdecode(self.path)}",
                    IsADirectoryError(errno.EISDIR, ""),
                )
            if not stat.S_ISSOCK(mode):
                raise self._in_use("what is there is not a socket")
            kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
            with socket.socket(socket.AF_UNIX, kind) as probe:
                code = probe.connect_ex(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        if code != errno.ECONNREFUSED:
            is_alive = code in (0, errno.EPROTOTYPE)
            raise self._in_use("somebody listens there" if is_alive else os.strerror(code))
        place.unlink()

    def failed_to_bind(self, error: OSError) -> BackendError:
        """*error* in QEMU's words."""
        return BackendError.from_os_error(
            f"Failed to bind socket to {os.fsdecode(self.path)}", error
        )

    def _in_use(self, why: str) -> BackendError:
        return BackendError(f"{self.failed_to_bind(OSError(errno.EADDRINUSE, ''))} ({why})")


def _beside(place: Place) -> Place:
    """A place that nobody uses, in the same folder, with a short name."""
    return place.beside(f".{secrets.token_hex(6)}")


def _kernel_name(place: Place) -> bytes:
    """What to give to bind(2), which takes a path only.

    Its own path if that will do, for ss(8) and the socket's peers are told it.
    """
    path = os.fsencode(place.path)
    if not place.is_limited and len(path) < SUN_PATH_SIZE:
        return path
    return os.fsencode(place.short)


def _inode(place: Place) -> Inode | None:
    try:
        status = place.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
