"""Decides whether a device is the line that went away from the same name.

A device that is plugged in again has the name that it had. A PTY has not: its number is given to
the next program that makes one, whose terminal must not be opened, set and read here. Only a
link that somebody has made anew says which PTY is meant.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from trio_chardev.backends.descriptor import slow_errors
from trio_chardev.backends.serial.line import UNIX98_PTY_SLAVES
from trio_chardev.errors import BackendError
from trio_chardev.files import work_on_files

MAX_LINKS = 40  # the kernel's limit, path_resolution(7)

Links = tuple[tuple[int, int, int, str], ...]
"""The symbolic links on the way to a device: the file system, inode, ctime and target of each."""


async def links_to(device: str) -> Links:
    """Return the links that are followed from *device* on. Raises BackendError."""
    with slow_errors(f"Could not open '{device}'"):
        return await work_on_files(_links_at, device)


async def links_to_return(device: str, before: Links) -> Links:
    """Return the links of now; *before* are those of the line that went away.

    Raises BackendError if a PTY is reached by its number only, or by the same links as before.
    """
    with slow_errors(f"Could not open '{device}'"):
        links, is_pty = await work_on_files(_look, device)
    if is_pty and links == before:
        raise BackendError(f"'{device}' is another PTY now, which has the number of the first")
    return links


def _look(device: str) -> tuple[Links, bool]:
    links = _links_at(device)
    with suppress(OSError, ValueError):  # opening it reports what is wrong
        return links, os.major(os.stat(device).st_rdev) in UNIX98_PTY_SLAVES
    return links, False


def _links_at(path: str) -> Links:
    """Follow the links; one that can't be read is the end."""
    found: list[tuple[int, int, int, str]] = []
    with suppress(OSError, ValueError):
        while len(found) < MAX_LINKS and stat.S_ISLNK((status := os.lstat(path)).st_mode):
            target = os.readlink(path)
            found.append((status.st_dev, status.st_ino, status.st_ctime_ns, target))
            path = os.path.join(os.path.dirname(path), target)
    return tuple(found)
