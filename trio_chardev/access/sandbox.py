"""The paths that QMP clients, rather than the operator, may name (``serve --sandbox``).

A path is first resolved, symbolic links included, and then opened folder by folder without
following any, so replacing a folder by a link meanwhile can't lead outside. Sockets and symbolic
links are made, moved and removed in a folder that is opened in this way and stays open
(`Sandbox.locate`). `Sandbox.check` only reports early what will be refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from trio_chardev.place import FOLDER, Place
from trio_chardev.plain_errors import BackendError, OptionsError, backend_errors, strerror

_FOLDERS = ("", ".", "..")  # names that are always folders


class Sandbox:
    """The paths below *folders*, which may also be files or devices; None allows all paths."""

    __slots__ = ("_folders",)

    def __init__(self, folders: Iterable[str] | None = None) -> None:
        """Raises OptionsError for a folder that does not exist."""
        self._folders = None if folders is None else tuple(map(_existing, folders))

    @property
    def is_limited(self) -> bool:
        """Are there paths outside of it?"""
        return self._folders is not None

    def open(self, path: str, flags: int, *, mode: int = 0o666) -> int:
        """Open a file; a new one (O_CREAT) gets *mode*, less the umask.

        Raises OSError and ValueError as os.open does, BackendError if *path* is outside.
        """
        if self._folders is None or not path:
            return os.open(path, flags, mode)
        real = os.path.realpath(path)
        self._find(real, path)
        folder, name = os.path.split(real)
        parent = _open_folder(folder)
        try:
            return os.open(name or ".", flags | os.O_NOFOLLOW, mode, dir_fd=parent)
        finally:
            os.close(parent)

    def contains(self, fd: int) -> bool:
        """Is the open file *fd* in it now, whatever path has led to it? Raises OSError."""
        return self._folders is None or self._has(os.readlink(f"/proc/self/fd/{fd}"))

    def locate(self, path: str) -> Place:
        """Find the place *path*, not following a link there. Raises what `open` raises."""
        folder, name = os.path.split(path)
        if self._folders is None:
            return Place(os.open(folder or ".", FOLDER), path)
        if name in _FOLDERS:
            self._find(os.path.realpath(path), path)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        real = os.path.realpath(folder)
        self._find(os.path.join(real, name), path)
        return Place(_open_folder(real), path, is_limited=True)

    def check(self, path: str, *, follow: bool = True) -> None:
        """Raise BackendError if *path* is outside; with *follow* a link there is followed."""
        if self._folders is None:
            return
        folder, name = os.path.split(path)
        with backend_errors(f"Could not open '{path}'"):  # a link may be replaced meanwhile
            if follow or name in _FOLDERS:
                self._find(os.path.realpath(path), path)
            else:
                self._find(os.path.join(os.path.realpath(folder), name), path)

    def _find(self, real: str, path: str) -> None:
        """Raise BackendError if *real*, to which *path* was resolved, is outside."""
        if not self._has(real):
            raise BackendError(f"'{path}' is outside of the sandbox")

    def _has(self, real: str) -> bool:
        return any(
            real == folder or real.startswith(os.path.join(folder, ""))
            for folder in self._folders or ()
        )


EVERYWHERE = Sandbox()


def _existing(folder: str) -> str:
    if not folder:  # realpath would make it the working directory
        raise OptionsError("Could not open '': No such file or directory")
    try:
        return os.path.realpath(folder, strict=True)
    except (OSError, ValueError) as exc:
        raise OptionsError(f"Could not open '{folder}': {strerror(exc)}") from exc


def _open_folder(path: str) -> int:
    """Open the folder at the absolute *path*, which must have no symbolic link in it."""
    flags = FOLDER | os.O_NOFOLLOW
    fd = os.open("/", flags)
    try:
        for name in filter(None, path.split("/")):
            inner = os.open(name, flags, dir_fd=fd)
            os.close(fd)
            fd = inner
    except BaseException:
        os.close(fd)
        raise
    return fd
