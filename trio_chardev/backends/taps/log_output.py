"""The file of a log: it is opened anew on demand, and old ones are kept as FILE.1, FILE.2 ...

All of this is done by the thread that writes. A file is renamed only while its name leads to it, so
whatever another program has put there, or has moved away, is left alone. What can't be renamed is
written on, for a log that is too large is better than none.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import stat
import time
from collections.abc import Callable
from functools import partial

import attrs

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.descriptor import slow_errors
from trio_chardev.backends.holder import owned
from trio_chardev.backends.limit import parse_mode
from trio_chardev.backends.taps.log_options import has_lines, is_rotated, kept_by
from trio_chardev.backends.taps.output import Output, create
from trio_chardev.core.backend import OpenRequest
from trio_chardev.errors import BackendError, reason_of
from trio_chardev.files import work_on_files
from trio_chardev.options.backend import BackendOptions
from trio_chardev.place import Place

log = logging.getLogger("trio_chardev.log")

RETRY_INTERVAL = 60.0  # seconds until a rotation that has failed is tried again


async def open_log_output(path: str, options: BackendOptions, request: OpenRequest) -> LogOutput:
    """Open the log file *path* in a thread. Raises BackendError, ``Could not create 'PATH': ...``."""
    with slow_errors(f"Could not create '{path}'"):
        return await work_on_files(_open, path, options, request, discard=Output.close)


def _open(path: str, options: BackendOptions, request: OpenRequest) -> LogOutput:
    keeping = Keeping(
        count=kept_by(options),
        max_size=options.log_rotate,
        max_age=options.log_rotate_age,
        sandbox=request.files.sandbox,
    )
    open_again = partial(
        create,
        path,
        request.files.open,
        parse_mode("log-mode", options.log_mode),
        options.log_max is not None or is_rotated(options),
    )
    output = LogOutput(open_again(), path, open_again, keeping, has_lines=has_lines(options))
    with owned(output.close):
        if is_rotated(options) or options.log_keep:
            output.check_can_be_kept()
    return output


@attrs.frozen
class Keeping:
    """How many old files are kept, and when a file becomes an old one."""

    count: int
    max_size: int | None = None
    max_age: float | None = None
    sandbox: Sandbox = EVERYWHERE

    @property
    def is_rotated(self) -> bool:
        """Does a file become an old one while it is written?"""
        return self.max_size is not None or self.max_age is not None


class LogOutput(Output):
    """The open file of a log; see `Output`."""

    def __init__(
        self,
        fd: int,
        path: str,
        open_again: Callable[[], int],
        keeping: Keeping,
        *,
        has_lines: bool = False,
    ) -> None:
        """*open_again* opens *path* as *fd* was opened, and makes a file if there is none.

        With *has_lines* what is written begins on a line of its own, even if a crash has cut the
        last one.
        """
        super().__init__(fd)
        self._path = path
        self._open_again = open_again
        self._keeping = keeping
        self._begun = time.monotonic()
        self._at_line_start = True
        self._retry_at = 0.0
        self._ends_last_line = has_lines
        self._looks_for_name = keeping.is_rotated
        """Is the file opened anew as soon as its name leads elsewhere?"""
        self._has_name = self._is_in_place
        """Is it a file with a name, rather than a passed descriptor?"""

    def check_can_be_kept(self) -> None:
        """Raise BackendError if the file can't be kept under another name."""
        if self._has_name and stat.S_ISREG(os.fstat(self.fd).st_mode):
            self._check_old(os.path.realpath(self._path), 1)
        else:
            raise BackendError(
                f"'{self._path}' is not the name of a regular file: it can't be kept"
            )

    def empty(self) -> None:
        """Begin a new file; the one with the last log is kept, or truncated if none are kept."""
        if not self._keeping.count or not self._has_name:
            super().empty()
        elif not self._is_in_place:  # it was rotated before this began
            self.reopen()
        elif os.fstat(self.fd).st_size and not self._rotate() and self._is_in_place:
            log.warning(
                "log file '%s' is appended to, as its last content can't be kept", self._path
            )

    def reopen(self) -> None:
        """Open what has the file's name now, or make a new file. Raises OSError, BackendError."""
        self._replace(self._open_again())

    def write(self, data: bytearray) -> None:
        """Write *data*, and rotate the files where it is time for that. Raises OSError."""
        if self._ends_last_line:
            self._ends_last_line = False
            if _is_cut(self.fd):
                data[:0] = b"\n"
        if self._looks_for_name and not self._is_in_place:
            with contextlib.suppress(OSError, BackendError):  # then it goes where it went before
                self.reopen()
        if not self._keeping.is_rotated:
            super().write(data)
            return
        while data:
            size = self._fitting_now(data)
            self._write_piece(data, size)
            if data and not self._rotate():
                self._write_piece(data, len(data))

    def _write_piece(self, data: bytearray, size: int) -> None:
        """Write the first *size* bytes of *data*, and remove what is written from it."""
        piece = data[:size]
        try:
            super().write(piece)
        finally:
            if written := size - len(piece):
                self._at_line_start = data[written - 1] == 0x0A
                del data[:written]

    def _fitting_now(self, data: bytearray) -> int:
        """How much of *data* belongs into this file: whole lines, unless one is longer than a file.

        All of it where rotating has failed lately.
        """
        now = time.monotonic()
        if now < self._retry_at:
            return len(data)
        size = os.fstat(self.fd).st_size
        max_size, max_age = self._keeping.max_size, self._keeping.max_age
        if size and max_age is not None and now - self._begun >= max_age:
            return 0 if self._at_line_start else data.find(b"\n") + 1 or len(data)
        if max_size is None or size + len(data) <= max_size:
            return len(data)
        room = max(0, max_size - size)
        whole_lines = data.rfind(b"\n", 0, room) + 1
        is_line_longer = not size or not self._at_line_start
        return whole_lines or (room if is_line_longer else 0)

    @property
    def _is_in_place(self) -> bool:
        """Does the path lead to this file?"""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self.fd))
        except OSError:
            return False

    def _rotate(self) -> bool:
        """Make the file FILE.1, and begin a new one; False if that fails, and is not tried again soon."""
        try:
            mode = self._shift() if self._is_in_place else None
            fd = self._open_again()
        except (OSError, BackendError) as exc:
            log.warning("Could not rotate log file '%s': %s", self._path, reason_of(exc))
            self._retry_at = time.monotonic() + RETRY_INTERVAL
            self._looks_for_name = True  # for it may have been renamed
            return False
        if mode is not None:
            with contextlib.suppress(OSError):  # others own it
                os.fchmod(fd, mode)
        self._replace(fd)
        return True

    def _shift(self) -> int:
        """Rename FILE.1 to FILE.2 and so on, and FILE to FILE.1; return its permissions.

        Raises OSError, BackendError.
        """
        path = os.path.realpath(self._path)
        with contextlib.ExitStack() as places:
            here = self._keeping.sandbox.locate(path)
            places.callback(here.close)
            chain = [here]
            for number in range(1, self._keeping.count + 1):
                self._check_old(path, number)
                chain.append(here.beside(f"{here.name}.{number}"))
                places.callback(chain[-1].close)
                if not _is_taken(chain[-1]):
                    break
            for old, older in reversed(list(itertools.pairwise(chain))):
                old.rename_to(older)
        return stat.S_IMODE(os.fstat(self.fd).st_mode)

    def _check_old(self, path: str, number: int) -> None:
        """Raise BackendError if the sandbox has no room for that old file."""
        self._keeping.sandbox.check(f"{path}.{number}", follow=False)

    def _replace(self, fd: int) -> None:
        self.fd, old = fd, self.fd
        self._begun = time.monotonic()
        self._at_line_start = True
        self._retry_at = 0.0
        self._looks_for_name = self._keeping.is_rotated
        with contextlib.suppress(OSError):  # as in `close`
            os.close(old)


def _is_cut(fd: int) -> bool:
    """Is the last line of the file, if it is a regular one, without an end?"""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    try:
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # it may only be written
        return False
    try:
        return os.pread(reader, 1, status.st_size - 1) != b"\n"
    finally:
        os.close(reader)


def _is_taken(place: Place) -> bool:
    try:
        place.stat()
    except FileNotFoundError:
        return False
    return True
