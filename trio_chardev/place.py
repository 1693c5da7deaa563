"""Names in folders that are open: where sockets, links and the like are made, moved and removed.

What others rename on the way to such a name, or put a link in its stead, leads nowhere else: all
is done below the descriptor of the folder. Those who are in one folder share that descriptor.
"""

from __future__ import annotations

import contextlib
import os
import threading

FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""The flags to open a folder with that is only a place."""


class _Folder:
    """An open folder; *users* places are in it."""

    __slots__ = ("fd", "key", "users")

    def __init__(self, key: tuple[int, int], fd: int) -> None:
        self.key = key
        self.fd = fd
        self.users = 0


_folders: dict[tuple[int, int], _Folder] = {}
_lock = threading.Lock()


def _join(fd: int) -> _Folder:
    """The folder *fd*, which is owned also if this raises OSError."""
    try:
        status = os.fstat(fd)
    except BaseException:
        _close(fd)
        raise
    with _lock:
        key = status.st_dev, status.st_ino
        folder = _folders.get(key)
        if folder is None:
            folder = _folders[key] = _Folder(key, fd)
        else:
            _close(fd)
        folder.users += 1
        return folder


def _leave(folder: _Folder) -> None:
    with _lock:
        folder.users -= 1
        if not folder.users:
            del _folders[folder.key]
            _close(folder.fd)


def _close(fd: int) -> None:
    with contextlib.suppress(OSError):  # it is closed all the same, close(2)
        os.close(fd)


class Place:
    """A name in an open folder; nothing, or anything, is there. It is to be closed.

    A link there is never followed. All methods raise OSError.
    """

    __slots__ = ("_folder", "is_limited", "name", "path")

    def __init__(self, folder: int, path: str, *, is_limited: bool = False) -> None:
        """The place *path* in *folder*, a descriptor, which is owned."""
        self.path = path
        """As it was named; what is there by now may be something else."""
        self.is_limited = is_limited
        """It must not be reached by its path: that may lead out of a sandbox."""
        self.name = os.path.basename(path) or "."
        self._folder: _Folder | None = _join(folder)

    def close(self) -> None:
        """Do without it. A second time does nothing."""
        folder, self._folder = self._folder, None
        if folder is not None:
            _leave(folder)

    @property
    def _fd(self) -> int:
        assert self._folder is not None
        return self._folder.fd

    @property
    def short(self) -> str:
        """A path that leads here whatever becomes of the folders, by way of proc(5)."""
        return f"/proc/self/fd/{self._fd}/{self.name}"

    def beside(self, name: str) -> Place:
        """The place *name* in the same folder."""
        path = os.path.join(os.path.dirname(self.path), name)
        return Place(os.dup(self._fd), path, is_limited=self.is_limited)

    def is_same(self, other: Place) -> bool:
        """Are the two the same name in the same folder? Not if one is closed."""
        return (self._folder, self.name) == (other._folder, other.name) and bool(self._folder)

    def check_reached(self) -> None:
        """Raise OSError unless the path still leads here."""
        folder = os.stat(os.path.dirname(self.path) or ".")
        if not os.path.samestat(folder, os.fstat(self._fd)):
            raise OSError("Its folder is another one by now")

    def stat(self) -> os.stat_result:
        return os.stat(self.name, dir_fd=self._fd, follow_symlinks=False)

    def open(self, flags: int, mode: int = 0o666) -> int:
        return os.open(self.name, flags | os.O_NOFOLLOW, mode, dir_fd=self._fd)

    def symlink(self, target: str) -> None:
        os.symlink(target, self.name, dir_fd=self._fd)

    def readlink(self) -> str:
        return os.readlink(self.name, dir_fd=self._fd)

    def unlink(self) -> None:
        os.unlink(self.name, dir_fd=self._fd)

    def rename_to(self, other: Place) -> None:
        """Move what is here to *other*, over what is there."""
        os.rename(self.name, other.name, src_dir_fd=self._fd, dst_dir_fd=other._fd)
