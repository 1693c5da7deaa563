"""An open file to which a thread writes, within a size."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select

from trio_chardev.backends.descriptor import truncate


class Output:
    """A descriptor that is closed when nothing refers to it any more, if not before.

    An abandoned thread may still be writing to it.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd

    unit = "bytes"
    """The unit of `count`, for log lines."""

    def count(self, data: bytes | bytearray) -> int:
        """How many units *data* is."""
        return len(data)

    def fitting(self, data: bytearray, room: int) -> int:
        """How many bytes of *data* to write if there is *room* for that many."""
        return room

    def size(self) -> int:
        """The file's size, or position if it is not appended to. Raises OSError."""
        if fcntl.fcntl(self.fd, fcntl.F_GETFL) & os.O_APPEND:
            return os.fstat(self.fd).st_size
        return os.lseek(self.fd, 0, os.SEEK_CUR)

    def write(self, data: bytearray) -> None:
        """Write *data*, however long that takes, removing from it what is written.

        Raises OSError.
        """
        while data:
            try:
                del data[: os.write(self.fd, data)]
            except BlockingIOError:  # others share the flag, so it is not changed
                poll = select.poll()
                poll.register(self.fd, select.POLLOUT)
                poll.poll()

    def empty(self) -> None:
        """Truncate the file, if it is a regular one. Raises OSError."""
        truncate(self.fd)

    def reopen(self) -> None:
        """Open the file anew, if this can; another may have its name by now. Raises OSError."""

    def close(self) -> None:
        """Close it, if it is open. Raises nothing."""
        if self.fd != -1:
            fd, self.fd = self.fd, -1
            with contextlib.suppress(OSError):  # close(2) reports errors of earlier writes
                os.close(fd)

    def __del__(self) -> None:
        self.close()
