"""A pipe(7) in which bytes wait, and which they cross without entering this process.

splice(2) moves them from a descriptor into the pipe and from the pipe to another descriptor;
where both are sockets the kernel copies nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Callable, Iterator

from trio_chardev.core.look_again import Burst

SPLICE_CAPACITY = 1 << 20  # bytes; more than a socket's buffer holds
READ_SIZE = 1 << 16  # bytes
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class CannotSplice(Exception):  # noqa: N818 - it says that bytes have to be looked at
    """Bytes must take the plain path, which will also find the error, if there is one."""


class SplicePipe:
    """Owns both ends of a pipe; its length is the number of bytes in it."""

    __slots__ = ("_in", "_on_change", "_out", "_size")

    def __init__(self, on_change: Callable[[int], None] = lambda size: None) -> None:
        """*on_change* gets the number of bytes that came in, negative for those that went out.

        Raises OSError.
        """
        self._size = 0
        self._on_change = on_change
        self._in = self._out = -1
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # the user has many pipes: then less goes at once
            fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, SPLICE_CAPACITY)

    def __len__(self) -> int:
        return self._size

    def fill(self, fd: int, max_bytes: int) -> int:
        """Move up to *max_bytes* from *fd*, at least one; 0 if none have come, or none fit.

        Raises CannotSplice, also at the end of file.
        """
        if (size := _splice(fd, self._in, max_bytes)) == 0:
            raise CannotSplice
        if size < 0:
            return 0
        self._size += size
        self._on_change(size)
        return size

    @property
    def is_full(self) -> bool:
        """Is there no room? A few small pieces fill it, as each takes a page."""
        if not self._size:
            return False
        poll = select.poll()
        poll.register(self._in, select.POLLOUT)
        return not poll.poll(0)

    def empty_into(self, fd: int, max_bytes: int = SPLICE_CAPACITY) -> int:
        """Move up to *max_bytes* to *fd*; 0 if there are none, or it would block.

        Raises CannotSplice.
        """
        if not self._size or not max_bytes:
            return 0
        size = _splice(self._out, fd, min(self._size, max_bytes))
        if size <= 0:
            return 0
        self._size -= size
        self._on_change(-size)
        return size

    def stream(self, source: int, sink: int) -> tuple[int, bool]:
        """Move what comes from *source* to *sink*, in a `Burst`.

        Returns how many bytes the sink has taken, and whether the burst was in vain.
        """
        passed = 0
        moved = True
        burst = Burst()
        with contextlib.suppress(CannotSplice):  # the plain path will find the reason
            while burst.goes_on(moved=moved):
                if self._size:
                    passed += (sent := self.empty_into(sink))
                    moved = sent > 0
                else:
                    moved = self.fill(source, SPLICE_CAPACITY) > 0
            passed += self.empty_into(sink)
        return passed, burst.in_vain

    def read_all(self) -> Iterator[bytes]:
        """Take everything out, piece by piece."""
        while self._size:
            data = os.read(self._out, READ_SIZE)
            self._size -= len(data)
            yield data

    def close(self) -> None:
        """Close both ends, and drop what is in it. Never fails."""
        ends, self._in, self._out, self._size = (self._in, self._out), -1, -1, 0
        for fd in ends:
            if fd != -1:
                with contextlib.suppress(OSError):
                    os.close(fd)

    def __del__(self) -> None:
        self.close()


def _splice(source: int, sink: int, size: int) -> int:
    """Do splice(2). Returns how many bytes moved; 0 at the end, -1 if it would block."""
    try:
        return os.splice(source, sink, size, flags=_FLAGS)
    except BlockingIOError:
        return -1
    except OSError as exc:
        raise CannotSplice from exc
