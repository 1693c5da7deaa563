"""Decides whether a device is the line that is meant by its name.

A device that is plugged in again has the name that it had. A PTY has not: its number is given to
the next program that makes one, whose terminal must not be opened, set and read here. So of a PTY
that is reached by a link

* the link must not be older than the PTY, as far as that can be known: all three times of a PTY
  begin with its creation, and only chmod(2) or chown(2) moves the last of them;
* when a line has gone, the links must not be those that led to it: somebody has to make one anew.

Who names a PTY by its number can't be told that another one has it now, until that line goes.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

import attrs

from trio_chardev.backends.serial.line import UNIX98_PTY_SLAVES

MAX_LINKS = 40  # the kernel's limit, path_resolution(7)
SLACK_NS = 1_000_000_000  # a program may make the link, and then chmod(2) its PTY


class OtherPtyError(FileNotFoundError):
    """They: the PTY that was meant is gone. No errno is set, for a text of its own."""


@attrs.frozen
class Link:
    """A symbolic link on the way to a device."""

    path: str = attrs.field(eq=False)
    file_system: int
    inode: int
    changed_ns: int
    target: str


Links = tuple[Link, ...]


def links_at(path: str) -> Links:
    """Follow the links from *path* on; one that can't be read is the end. Works in a thread."""
    found: list[Link] = []
    with suppress(OSError, ValueError):
        while len(found) < MAX_LINKS and stat.S_ISLNK((status := os.lstat(path)).st_mode):
            target = os.readlink(path)
            found.append(Link(path, status.st_dev, status.st_ino, status.st_ctime_ns, target))
            path = os.path.join(os.path.dirname(path), target)
    return tuple(found)


def check_meant(device: os.stat_result, links: Links, before: Links | None) -> None:
    """Raise OtherPtyError if *device*, reached by *links*, is not the line that is meant.

    *before* are the links to a line that went away; None if this is the first time.
    """
    if os.major(device.st_rdev) not in UNIX98_PTY_SLAVES:
        return
    if links == before:
        raise OtherPtyError("it is another PTY now, which has the number of the first")
    made_ns = min(device.st_atime_ns, device.st_mtime_ns, device.st_ctime_ns)
    if links and links[-1].changed_ns + SLACK_NS < made_ns:
        raise OtherPtyError(
            f"the link to '{links[-1].target}' is older than the PTY that has this number now"
        )
