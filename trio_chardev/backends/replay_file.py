"""The file of a recording that is played: read in threads, as its disk may hang.

Several readers may read one recording, each at its own place. Its first piece is kept, so that most
recordings are read only once, when they are opened.
"""

from __future__ import annotations

import os

import trio

from trio_chardev.backends.ahead import NO_THREAD_PAUSE, PIECE, RegularFile
from trio_chardev.backends.holder import owned
from trio_chardev.errors import BackendError
from trio_chardev.protocols.asciicast import Decoder, Entry, FormatError
from trio_chardev.workers import NoThreadError, run_in_worker


class Recording:
    """The file of a recording, and its first piece."""

    def __init__(self, path: str, fd: int) -> None:
        """Take *fd* over, even if this raises OSError. For a thread."""
        self.path = path
        with owned(lambda: os.close(fd)):
            self.first = os.pread(fd, PIECE, 0)
        self.file = RegularFile(fd)


class Reader:
    """Reads a recording from its beginning."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._decoder = Decoder()
        self._data: bytes | None = recording.first  # read, but not decoded yet
        self._offset = len(recording.first)
        self._is_at_end = False  # of the file
        self._limiter = trio.CapacityLimiter(2)  # one thread may have been abandoned
        self.is_over = False
        """Are there no more entries?"""
        self.is_waiting = False
        """Must `read_on` be called for the next entry?"""

    @property
    def is_torn(self) -> bool:
        """Was an incomplete line at the end skipped?"""
        return self._decoder.is_torn

    def next(self) -> Entry | None:
        """The next entry; None if it `is_over`, `is_waiting`, or other tasks should run first.

        Raises BackendError.
        """
        try:
            entry = self._decoder.next_entry()
            if entry is None and self._data is not None:
                self._decode(self._data)
                entry = self._decoder.next_entry()
        except FormatError as exc:
            raise BackendError(f"Could not replay '{self._recording.path}': {exc}") from exc
        self.is_over = self._is_at_end and entry is None
        self.is_waiting = entry is None and not self._is_at_end
        return entry

    def _decode(self, data: bytes) -> None:
        self._data = None
        if data:
            self._decoder.receive_data(data)
        if len(data) < PIECE:
            self._is_at_end = True
            self._decoder.receive_data(b"")

    async def read_on(self) -> None:
        """Read the next piece; if cancelled, it can be read again. Raises BackendError."""
        read = self._recording.file.read
        try:
            data = await run_in_worker(read, self._offset, limiter=self._limiter)
        except NoThreadError:
            await trio.sleep(NO_THREAD_PAUSE)
        except OSError as exc:
            failed = f"Could not read '{self._recording.path}'"
            raise BackendError.from_os_error(failed, exc) from exc
        else:
            self._offset += len(data)
            self._data = data
            self.is_waiting = False

    def again(self) -> Reader:
        """A reader at the beginning of the same recording."""
        return Reader(self._recording)
