"""An open file to which a thread writes, within a size."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select

from trio_chardev.backends.descriptor import slow_errors, truncate
from trio_chardev.backends.holder import owned
from trio_chardev.backends.limit import PRIVATE, check_has_size
from trio_chardev.core.environment import OpenPath
from trio_chardev.errors import BackendError
from trio_chardev.files import work_on_files


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


async def create_output(
    path: str,
    opener: OpenPath,
    kind: type[Output] = Output,
    *,
    mode: int = PRIVATE,
    is_limited: bool = False,
) -> Output:
    """Run `create` in a thread, as the disk may hang. Raises as it does; see `work_on_files`."""
    with slow_errors(f"Could not create '{path}'"):
        return kind(await work_on_files(create, path, opener, mode, is_limited, discard=os.close))


def create(path: str, opener: OpenPath, mode: int = PRIVATE, is_limited: bool = False) -> int:
    """Open *path* for appending, without waiting for a peer; a new file gets *mode*.

    With *is_limited* it must be a file whose size can be limited. Raises BackendError, ``Could not
    create 'PATH': strerror``.
    """
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
        fd = opener(path, flags | os.O_CLOEXEC, mode=mode)
        with owned(lambda: os.close(fd)):
            if is_limited:
                check_has_size(fd, path)
        return fd
    except (OSError, ValueError) as exc:
        raise BackendError.from_os_error(f"Could not create '{path}'", exc) from exc
