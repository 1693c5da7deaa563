"""Names in open folders: where sockets, links and the like are made, moved and removed.

Every call is relative to the folder's descriptor (openat(2)), so others who rename a folder on the
path, or put a symbolic link there, can't lead it elsewhere. Places in one folder share its
descriptor.
"""

from __future__ import annotations

import contextlib
import os
import threading

FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""The flags to open a folder that is used only for calls relative to it."""


class _Folder:
    """An open folder that *users* places share."""

    __slots__ = ("fd", "key", "users")

    def __init__(self, key: tuple[int, int], fd: int) -> None:
        self.key = key
        self.fd = fd
        self.users = 0


_folders: dict[tuple[int, int], _Folder] = {}
_lock = threading.Lock()


def _join(fd: int) -> _Folder:
    """The open folder for the descriptor *fd*, which is taken over even if this raises OSError."""
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
    with contextlib.suppress(OSError):  # it is closed even then, see close(2)
        os.close(fd)


class Place:
    """A name in an open folder, whether or not anything has that name. Close it after use.

    A symbolic link of that name is never followed. All methods raise OSError.
    """

    __slots__ = ("_folder", "is_limited", "name", "path")

    def __init__(self, folder: int, path: str, *, is_limited: bool = False) -> None:
        """Make the place *path*; *folder* is a descriptor of its folder, which is taken over."""
        self.path = path
        """The path as the user named it; by now it may lead somewhere else."""
        self.is_limited = is_limited
        """Must the path not be used, because it may lead out of a sandbox?"""
        self.name = os.path.basename(path) or "."
        self._folder: _Folder | None = _join(folder)

    def close(self) -> None:
        """Give up the folder. Closing twice is harmless."""
        folder, self._folder = self._folder, None
        if folder is not None:
            _leave(folder)

    @property
    def _fd(self) -> int:
        assert self._folder is not None
        return self._folder.fd

    @property
    def short(self) -> str:
        """A path, through proc(5), that leads here even when folders are renamed."""
        return f"/proc/self/fd/{self._fd}/{self.name}"

    def beside(self, name: str) -> Place:
        """The place *name* in the same folder."""
        path = os.path.join(os.path.dirname(self.path), name)
        return Place(os.dup(self._fd), path, is_limited=self.is_limited)

    def is_same(self, other: Place) -> bool:
        """Are both the same name in the same folder? False if one is closed."""
        return (self._folder, self.name) == (other._folder, other.name) and bool(self._folder)

    def check_reached(self) -> None:
        """Raise OSError unless the path still leads to this folder."""
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
        """Rename what is here to *other*, replacing what is there."""
        os.rename(self.name, other.name, src_dir_fd=self._fd, dst_dir_fd=other._fd)
