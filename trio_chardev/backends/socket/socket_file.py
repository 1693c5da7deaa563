"""The file of a listening UNIX socket: binding it, removing it.

A path is not taken from a process that listens there, and what is not a socket is not removed. A
socket that its owner left behind is. Nobody unlinks a socket that another process has bound: inodes
are compared. All of it is done in the folder that is opened first; see `trio_chardev.place`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import socket
import stat
import threading

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.socket.addresses import SUN_PATH_SIZE
from trio_chardev.errors import BackendError
from trio_chardev.place import Place

log = logging.getLogger(__name__)

Inode = tuple[int, int]


class SocketFile:
    """A socket file at *path*."""

    __slots__ = ("_inode", "_lock", "_mode", "_place", "_sandbox", "path")

    def __init__(self, path: bytes, mode: int | None = None, sandbox: Sandbox = EVERYWHERE) -> None:
        """The file gets the permissions *mode*, less the umask; None means the kernel's default."""
        self.path = path
        self._mode = mode
        self._sandbox = sandbox
        self._place: Place | None = None  # None again once the file was removed
        self._inode: Inode | None = None
        self._lock = threading.Lock()  # between the threads that change its mode and remove it

    # ------------------------------------------------------------ for threads: the disk may hang

    def bind(self, sock: socket.socket) -> None:
        """Bind *sock*, after removing a socket that was left behind at the path.

        Raises BackendError if the path is in use or outside of the sandbox, and OSError.
        """
        self._place = place = self._sandbox.locate(os.fsdecode(self.path))
        self._make_way(place)
        if self._mode is not None:
            os.fchmod(sock.fileno(), self._mode)  # bind(2) makes the file with the socket's mode
        if len(_kernel_name(place)) < SUN_PATH_SIZE:
            sock.bind(_kernel_name(place))
        else:
            self._bind_beside(sock, place)
        self._inode = _inode(place)

    def _bind_beside(self, sock: socket.socket, place: Place) -> None:
        """Bind at a short name in the same folder, and rename that."""
        with contextlib.closing(place.beside(f".{secrets.token_hex(6)}")) as beside:
            sock.bind(_kernel_name(beside))
            try:
                if _inode(place) is not None:
                    raise self._in_use("somebody has taken it meanwhile")
                beside.rename_to(place)
            except BaseException:
                beside.unlink()
                raise

    def is_at(self, path: bytes, sandbox: Sandbox) -> bool:
        """Is it at *path*, and still ours? Raises OSError, BackendError if not in *sandbox*."""
        with contextlib.closing(sandbox.locate(os.fsdecode(path))) as place:
            ours = self._place
            return ours is not None and place.is_same(ours) and self._is_in(place)

    def restrict(self, mode: int) -> None:
        """Give the file the permissions *mode*, if it is still there. Never fails."""
        with self._lock:
            if self._place is None:
                return
            try:
                self._restrict(self._place, mode)
            except OSError as exc:
                log.warning("can't protect socket %s: %s", self._place.path, exc)

    def _restrict(self, place: Place, mode: int) -> None:
        fd = place.open(os.O_PATH | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == self._inode:
                os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)

    def unlink(self) -> None:
        """Remove the file, if it is still there. Final. Never fails."""
        with self._lock:
            place, self._place = self._place, None
            if place is None:
                return
            try:
                if self._is_in(place):
                    place.unlink()
            except OSError as exc:
                log.warning("can't remove socket %s: %s", place.path, exc)
            place.close()

    def _is_in(self, place: Place) -> bool:
        return self._inode is not None and _inode(place) == self._inode

    def _make_way(self, place: Place) -> None:
        """Unlink a socket that its owner has left behind. Raises BackendError, OSError.

        connect(2) shows whether the owner lives. With another type of socket it does so without
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
        """Convert *error* to QEMU's text."""
        return BackendError.from_os_error(
            f"Failed to bind socket to {os.fsdecode(self.path)}", error
        )

    def _in_use(self, why: str) -> BackendError:
        return BackendError(f"{self.failed_to_bind(OSError(errno.EADDRINUSE, ''))} ({why})")


def _kernel_name(place: Place) -> bytes:
    """Return the name for bind(2), which takes a path only.

    That is the socket's own path if possible, as ss(8) and the socket's peers see it.
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
