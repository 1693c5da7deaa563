"""Opens a path in the event loop, if that can't wait for a disk or a network.

A thread for one look-up takes several times as long as the look-up, and beside a busy task up to the 5 ms
after which the interpreter changes threads. openat2(2) with RESOLVE_CACHED (Linux 5.12) gives a file only
if the kernel has all of its path in memory. That is not enough, as what is done with the file then asks a
file system whose server may be gone for permission: so it also has to be on one of `LOCAL`. Its type is
told by proc(5), since fstat(2) and fstatfs(2) would ask the server, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import struct

from trio_chardev.libc import call

LOCAL = {b"tmpfs", b"ramfs", b"rootfs", b"ext2", b"ext3", b"ext4", b"xfs", b"btrfs", b"f2fs"}
"""File systems that ask nobody. An overlay is not among them: it may be of any two others."""

MAX_MOUNTINFO = 1 << 16  # bytes, about 500 mounts: to read more takes too long
_OPENAT2 = 437  # on all architectures but alpha
_AT_FDCWD = -100
_RESOLVE_CACHED = 0x20
_OPEN_HOW = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_CACHED)  # <linux/openat2.h>

_MOUNT = re.compile(rb"^(\d+) .*? - (\S+) ", re.MULTILINE)  # proc_pid_mountinfo(5)
_MOUNT_ID = re.compile(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)  # proc_pid_fdinfo(5)


class LocalMounts:
    """The mounts of `LOCAL` file systems that there are now; it keeps a descriptor open."""

    __slots__ = ("_fd", "_ids", "_poll")

    def __init__(self) -> None:
        self._fd: int | None = None
        self._poll = select.poll()
        self._ids: frozenset[bytes] = frozenset()

    def have(self, fd: int) -> bool:
        """Is the open file *fd* on one of them? Raises OSError.

        Its mount keeps its number as long as *fd* is open, even if it is unmounted meanwhile.
        """
        found = _MOUNT_ID.search(_read(f"/proc/self/fdinfo/{fd}"))
        if found is None:
            return False
        if self._fd is None or self._poll.poll(0):  # it reports each change of what is mounted
            self._look()
        return found[1] in self._ids

    def forget(self) -> None:
        """Forget them after a fork(2): the two processes would share the descriptor's state."""
        fd, self._fd = self._fd, None
        if fd is not None:
            self._poll.unregister(fd)
            os.close(fd)

    def _look(self) -> None:
        if self._fd is None:
            fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
            self._poll.register(fd, select.POLLPRI)
            self._fd = fd
        self._ids = frozenset()
        os.lseek(self._fd, 0, os.SEEK_SET)
        text = bytearray()
        while len(text) < MAX_MOUNTINFO and (piece := os.read(self._fd, MAX_MOUNTINFO)):
            text += piece  # a page of whole lines
        self._ids = frozenset(bytes(id) for id, kind in _MOUNT.findall(text) if kind in LOCAL)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


_mounts = LocalMounts()
os.register_at_fork(after_in_child=_mounts.forget)


def open_cached(path: str) -> int | None:
    """Return an O_PATH descriptor of the existing file *path*; None if that could wait, or fails.

    Why it fails is for the call that may wait to say.
    """
    with contextlib.suppress(OSError, ValueError):
        raw = os.fsencode(path)
        fd = call("syscall", _OPENAT2, _AT_FDCWD, raw, _OPEN_HOW, len(_OPEN_HOW))
        try:
            if _mounts.have(fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    return None
