"""Reading a log file while it is written, truncated and rotated. All of it may block: use a thread."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path
from typing import Final

from trio_chardev.plain_errors import OptionsError, strerror

PIECE: Final = 1 << 16  # bytes at once
LOOKS: Final = 4
"""How often in a row nothing comes until a file that was renamed is taken to be finished."""


class LogReader:
    """The log file at *path*, from its beginning on."""

    def __init__(self, path: str) -> None:
        """Raises OptionsError if it can't be opened, or is no file."""
        self.path = path
        self.may_be_missing = False
        """Was it rotated so often that a file between two others is gone?"""
        self._fd = _open(path)
        self._looks = 0
        """How often nothing has come since another file was found at the path."""
        self._waiting: list[str] = []

    def close(self) -> None:
        """Read no more."""
        os.close(self._fd)

    def go_to_last(self, count: int) -> None:
        """Go to where the last *count* lines begin; one that has no end counts, too."""
        end = start = os.fstat(self._fd).st_size
        left = count + (os.pread(self._fd, 1, end - 1) == b"\n" if end else 0)
        while start > 0 and left > 0:
            size = min(PIECE, start)
            start -= size
            piece = os.pread(self._fd, size, start)
            at = len(piece)
            while left > 0 and (at := piece.rfind(b"\n", 0, at)) != -1:
                left -= 1
            if left == 0:
                start += at + 1
        os.lseek(self._fd, start if count else end, os.SEEK_SET)

    def read(self) -> bytes:
        """Read some; ``b""`` if there is no more for now. Raises OptionsError."""
        try:
            data = os.read(self._fd, PIECE)
        except OSError as exc:
            raise OptionsError(f"can't read '{self.path}': {strerror(exc)}") from exc
        if data:
            self._looks = 0
        return data

    def go_on(self) -> bool:
        """Go on where the log goes on, if not here; is there something to read?

        It is called again and again while nothing comes. A file that was renamed is read until
        nothing has come some times, as who writes it may not know of that yet.
        """
        if os.fstat(self._fd).st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            os.lseek(self._fd, 0, os.SEEK_SET)  # it was truncated
            return True
        if not self._waiting:
            self._looks = self._looks + 1 if self._is_replaced() else 0
            if self._looks < LOOKS:
                return False
            self._waiting = self._next_paths()
        try:
            fd = _open(self._waiting.pop(0))
        except OptionsError:  # they were renamed again just now
            self._waiting = []
            return False
        os.close(self._fd)
        self._fd, self._looks = fd, 0
        return True

    def _is_replaced(self) -> bool:
        """Is another file at the path now?"""
        try:
            return not os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except OSError:
            return False

    def _next_paths(self) -> list[str]:
        """The files that follow this one: it is FILE.N now, so FILE.N-1, ... FILE.1, FILE."""
        own = os.fstat(self._fd)
        for number in itertools.count(1):
            try:
                status = os.stat(f"{self.path}.{number}")
            except OSError:
                # Without numbers others rotate it in another way, and we can't know.
                self.may_be_missing = number > 1
                return [self.path]
            if os.path.samestat(status, own):
                return [*(f"{self.path}.{n}" for n in range(number - 1, 0, -1)), self.path]
        raise AssertionError("count() has no end")


def _open(path: str) -> int:
    """Open a regular file to be read. Raises OptionsError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:
        raise OptionsError(f"can't open '{path}': {strerror(exc)}") from exc
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OptionsError(f"'{Path(path)}' is no regular file, so it can't be read again")
