"""inotify(7) by the C library, as Python's os module has none."""

from __future__ import annotations

import os
import struct

import attrs

from trio_chardev.libc import call

# <sys/inotify.h>
IN_ACCESS = 0x1
IN_ATTRIB = 0x4
IN_OPEN = 0x20
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000

READ_SIZE = 4096  # bytes; a record has at most 16, and a name of 255 and its NUL
_HEAD = struct.Struct("iIII")  # wd, mask, cookie, length of the name


def new_instance() -> int:
    """Return the descriptor of a new instance, non-blocking. Raises OSError."""
    return call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)


def add_watch(fd: int, path: str, mask: int) -> int:
    """Watch *path*, or change the mask of its watch; return the watch's number. Raises OSError."""
    return call("inotify_add_watch", fd, os.fsencode(path), mask)


def remove_watch(fd: int, watch: int) -> None:
    """Watch it no more; an IN_IGNORED follows. Raises OSError if it had ended."""
    call("inotify_rm_watch", fd, watch)


@attrs.frozen
class Record:
    """Something that happened."""

    watch: int
    mask: int
    name: bytes
    """The name in a folder that is watched; empty for the watched file itself."""


def read_records(fd: int) -> list[Record]:
    """Read what there is; nothing if that is nothing, or if *fd* was closed."""
    records: list[Record] = []
    size = READ_SIZE
    while size > READ_SIZE // 2:  # then the next record may not have found room
        try:
            raw = os.read(fd, READ_SIZE)
        except OSError:
            break
        size = len(raw)
        at = 0
        while at < size:
            watch, mask, _, length = _HEAD.unpack_from(raw, at)
            at += _HEAD.size + length
            records.append(Record(watch, mask, raw[at - length : at].rstrip(b"\0")))
    return records
