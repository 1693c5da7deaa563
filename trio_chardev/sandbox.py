"""Which paths may be named by who is not the operator (``serve --sandbox``).

A path is resolved first, symbolic links and all, and is then opened folder by folder without
following any: so what a link is turned into meanwhile can't lead out. `check` is for what the
kernel takes by path only (sockets, symbolic links); there a moment is left for who may rename
folders within the sandbox.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from trio_chardev.errors import BackendError, OptionsError, strerror

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Sandbox:
    """Paths in *folders*, which may also be files or devices; None: everywhere."""

    __slots__ = ("_folders",)

    def __init__(self, folders: Iterable[str] | None = None) -> None:
        """Raises OptionsError for one that does not exist."""
        self._folders = None if folders is None else tuple(map(_existing, folders))

    def open(self, path: str, flags: int) -> int:
        """Open a file; one that O_CREAT makes is 0666 & ~umask.

        Raises OSError, ValueError as os.open does, BackendError if it is outside.
        """
        if self._folders is None or not path:
            return os.open(path, flags, 0o666)
        real = os.path.realpath(path)
        self._find(real, path)
        folder, name = os.path.split(real)
        parent = _open_folder(folder)
        try:
            return os.open(name or ".", flags | os.O_NOFOLLOW, 0o666, dir_fd=parent)
        finally:
            os.close(parent)

    def check(self, path: str, *, follow: bool = True) -> None:
        """Raise BackendError if *path* is outside; unless *follow* a link there is not followed."""
        if self._folders is None:
            return
        folder, name = os.path.split(path)
        try:
            if follow or name in ("", ".", ".."):
                self._find(os.path.realpath(path), path)
            else:
                self._find(os.path.join(os.path.realpath(folder), name), path)
        except ValueError as exc:
            raise BackendError.from_os_error(f"Could not open '{path}'", exc) from exc

    def _find(self, real: str, path: str) -> None:
        """Raise BackendError if *real*, as which *path* was resolved, is in no folder."""
        for folder in self._folders or ():
            if real == folder or real.startswith(os.path.join(folder, "")):
                return
        raise BackendError(f"'{path}' is outside of the sandbox")


EVERYWHERE = Sandbox()


def _existing(folder: str) -> str:
    if not folder:  # as which the working directory would be taken
        raise OptionsError("Could not open '': No such file or directory")
    try:
        return os.path.realpath(folder, strict=True)
    except (OSError, ValueError) as exc:
        raise OptionsError(f"Could not open '{folder}': {strerror(exc)}") from exc


def _open_folder(path: str) -> int:
    """A descriptor of the folder *path*, which is absolute, without a link on the way."""
    fd = os.open("/", _FOLDER)
    try:
        for name in filter(None, path.split("/")):
            inner = os.open(name, _FOLDER, dir_fd=fd)
            os.close(fd)
            fd = inner
    except BaseException:
        os.close(fd)
        raise
    return fd
