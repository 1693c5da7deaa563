"""The file of a listening UNIX socket: binding it, moving it into place, removing it.

A path is not taken from who listens there, and what is not a socket is not removed. A
socket that its owner left behind is, and the socket file of the listener that is to be
replaced is renamed over. Nobody unlinks what another has bound: inodes are compared.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import stat

from trio_chardev.backends.addresses import SUN_PATH_SIZE, path_for_kernel, path_of_descriptor
from trio_chardev.errors import BackendError

log = logging.getLogger(__name__)

Inode = tuple[int, int]


class SocketFile:
    """A socket file, for *path*; bound there, or beside it until `place`."""

    __slots__ = ("_bound", "_inode", "_mode", "path", "replaced_inode")

    def __init__(self, path: bytes, mode: int | None = None) -> None:
        """It gets the permissions *mode*, less the umask; None: what the kernel gives."""
        self.path = path
        self._mode = mode
        self.replaced_inode: Inode | None = None
        """What `place` may rename it over: the file of the listener that is replaced."""
        self._bound = path  # where it is now
        self._inode: Inode | None = None

    def choose_place(self, replaced: SocketFile | None) -> None:
        """Decide where to bind, and clear that place of a socket left behind.

        Raises BackendError if the path is in use, OSError.
        """
        if replaced is not None and replaced.is_at(self.path):
            self.replaced_inode = replaced._inode
            self._bound = _beside(self.path)
            return
        _make_way(self.path)
        if len(self.path) >= SUN_PATH_SIZE:  # one byte too long for bind(2)
            self._bound = _beside(self.path)

    def bind(self, sock: socket.socket) -> None:
        """Bind *sock* at the place chosen. Raises BackendError, OSError."""
        if self._mode is not None:
            os.fchmod(sock.fileno(), self._mode)  # bind(2) makes the file with the socket's mode
        if len(self._bound) < SUN_PATH_SIZE:
            sock.bind(self._bound)
        else:
            directory, name = os.path.split(self._bound)
            with path_of_descriptor(directory or b".") as short:
                sock.bind(os.path.join(short, name))
        self._inode = _inode(self._bound)
        if self.replaced_inode is None:
            self.place()

    def place(self) -> None:
        """Rename it to its path, unless it is there already. Raises BackendError."""
        if self._bound == self.path:
            return
        if _inode(self.path) not in (None, self.replaced_inode):
            raise _in_use(self.path, "somebody has taken it meanwhile")
        try:
            os.rename(self._bound, self.path)
        except OSError as exc:
            raise self.failed_to_bind(exc) from exc
        self._bound = self.path

    def restrict(self, mode: int) -> None:
        """Give it the permissions *mode* now. Raises OSError."""
        fd = os.open(self._bound, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == self._inode:
                os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)

    def is_at(self, path: bytes) -> bool:
        """Is this the file at *path*?"""
        return self._inode is not None and _inode(path) == self._inode

    def unlink(self) -> None:
        """Remove it, if it is still there. Never fails."""
        if self.is_at(self._bound):
            try:
                os.unlink(self._bound)
            except OSError as exc:
                log.warning("can't remove socket %s: %s", os.fsdecode(self._bound), exc)

    def failed_to_bind(self, error: OSError) -> BackendError:
        """*error* in QEMU's words."""
        return _failed_to_bind(self.path, error)


def _beside(path: bytes) -> bytes:
    """A path that nobody uses, in the same directory, with a short name."""
    return os.path.join(os.path.dirname(path), b".%b" % secrets.token_hex(6).encode())


def _make_way(path: bytes) -> None:
    """Unlink a socket that its owner has left behind. Raises BackendError, OSError.

    connect(2) tells whether the owner lives. With another type of socket it does so without
    giving that owner a client: EPROTOTYPE, or success if the types match after all.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise BackendError.from_os_error(
            f"Failed to unlink socket {os.fsdecode(path)}", IsADirectoryError(errno.EISDIR, "")
        )
    if not stat.S_ISSOCK(mode):
        raise _in_use(path, "what is there is not a socket")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe,
        path_for_kernel(path) as short,
    ):
        code = probe.connect_ex(short)
    if code != errno.ECONNREFUSED:
        is_alive = code in (0, errno.EPROTOTYPE)
        raise _in_use(path, "somebody listens there" if is_alive else os.strerror(code))
    os.unlink(path)


def _inode(path: bytes) -> Inode | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _failed_to_bind(path: bytes, error: OSError) -> BackendError:
    return BackendError.from_os_error(f"Failed to bind socket to {os.fsdecode(path)}", error)


def _in_use(path: bytes, why: str) -> BackendError:
    return BackendError(f"{_failed_to_bind(path, OSError(errno.EADDRINUSE, ''))} ({why})")
