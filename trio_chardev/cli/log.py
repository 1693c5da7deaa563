"""Writing lines without waiting: what the service prints, and its log.

A terminal stopped by ctrl-S, a pipe whose reader is stuck, a disk that is full or hangs must not
block the service. So each descriptor is written by a thread of its own, with plain write(2), from
a bounded queue; callers never wait. Lines that find no room, or fail, are dropped and counted, and
how many is told when writing works again.

Where no thread can be started, a line is written if the descriptor is ready for it, and is dropped
otherwise; starting a thread is tried again each second.
"""

from __future__ import annotations

import _thread
import io
import os
import queue
import select
import threading
import time
from collections.abc import Callable

MAX_PENDING = 1 << 18  # bytes of lines that wait to be written
MAX_LINE = 1 << 14  # bytes of a text that is put at once, such as a traceback
PIECE = 4096  # bytes (PIPE_BUF): a pipe that poll(2) reports as writable has room for them
POLL_INTERVAL = 1.0  # seconds; only for a descriptor that others have made non-blocking
START_INTERVAL = 1.0  # seconds until starting a thread is tried again
FLUSH_TIMEOUT = 1.0  # seconds to write what is left at the end


def note_of(lines: int) -> bytes:
    """The line that tells how many were not written."""
    what = "1 line" if lines == 1 else f"{lines} lines"
    return f"trio-chardev: {what} could not be written\n".encode()


class LineWriter:
    """Writes lines to a descriptor, which it does not own. Only `close` ever waits."""

    def __init__(
        self,
        fd: int,
        *,
        start: Callable[..., object] = _thread.start_new_thread,
        on_idle: Callable[[], float | None] = lambda: None,
        note: Callable[[int], bytes] = note_of,
    ) -> None:
        """*on_idle*, called in the thread when all is written, returns when to call it again.

        *note* makes what tells how many lines were not written.
        """
        self._fd = fd
        self._note = note
        self._start = start
        self._on_idle = on_idle
        self._lines: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._turn = threading.RLock()  # of callers; reentrant, as a finalizer may print in `put`
        self._has_thread = False
        self._start_again = 0.0  # when to try again, by the monotonic clock
        # Each of these is changed by one side only: by callers ...
        self._put = 0  # bytes
        self._dropped = 0  # lines
        # ... and by the thread; without a thread, by callers.
        self._taken = 0  # bytes
        self._failed = 0  # lines
        self._told = 0  # lines, of those dropped or failed, whose loss has been printed
        self._is_torn = False  # is only a part of the last line written?
        self._ensure_thread()

    def put(self, text: str) -> None:
        """Have *text*, which ends in a newline, written soon, or drop it."""
        data = text.encode("utf-8", "backslashreplace")
        if len(data) > MAX_LINE:
            data = data[:MAX_LINE] + b"...\n"
        self.put_data(data)

    def put_data(self, data: bytes) -> None:
        """Have *data*, whole lines, written soon, or drop it."""
        with self._turn:
            if not self._ensure_thread():
                self._write_line(self._dropped, data, wait=False)
            elif self._put - self._taken + len(data) > MAX_PENDING:
                self._dropped += 1
            else:
                self._put += len(data)
                self._lines.put((self._dropped, data))

    def wake(self) -> None:
        """Have `on_idle` called soon."""
        if self._has_thread:
            self._lines.put((self._dropped, b""))

    def close(self) -> None:
        """Wait until all is written, for FLUSH_TIMEOUT at most. Call nothing after this."""
        if self._has_thread:
            self._lines.put(None)
            self._done.acquire(timeout=FLUSH_TIMEOUT)

    def _ensure_thread(self) -> bool:
        """Is there a thread, or can one be started now?"""
        if self._has_thread:
            return True
        now = time.monotonic()
        if now < self._start_again:
            return False
        self._start_again = now + START_INTERVAL
        try:
            self._start(self._run, ())
        except (RuntimeError, MemoryError):
            return False
        self._has_thread = True
        return True

    # ------------------------------------------------------------ in the thread

    def _run(self) -> None:
        timeout: float | None = None
        while True:
            try:
                item = self._lines.get(timeout=timeout)
            except queue.Empty:
                pass
            else:
                if item is None:
                    break
                dropped, data = item
                self._write_line(dropped, data, wait=True)
                self._taken += len(data)
            if self._lines.empty():
                self._write_line(self._dropped, b"", wait=True)
                timeout = self._on_idle()
        self._write_line(self._dropped, b"", wait=True)
        self._done.release()

    def _write_line(self, dropped: int, data: bytes, *, wait: bool) -> None:
        """Write *data*; before it *dropped* lines were dropped, which is printed first."""
        lost = dropped + self._failed
        if lost > self._told and self._write(self._note(lost - self._told), wait=wait):
            self._told = lost
        if data and not self._write(data, wait=wait):
            self._failed += 1

    def _write(self, data: bytes, *, wait: bool) -> bool:
        """Write all of *data*; False if that fails, or without *wait* if there is no room."""
        rest = memoryview(b"\n" + data if self._is_torn else data)
        try:
            while rest:
                if not wait and not self._has_room(0):
                    break
                try:
                    rest = rest[self._send(rest, wait=wait) :]
                except BlockingIOError:
                    if not wait:
                        break
                    self._has_room(POLL_INTERVAL)
        except (OSError, MemoryError):  # closed, full, gone
            pass
        if len(rest) < len(data) or not rest:
            self._is_torn = bool(rest)
        return not rest

    def _send(self, data: memoryview, *, wait: bool) -> int:
        """Write some of *data*; return how much. Raises OSError."""
        return os.write(self._fd, data[:PIECE])

    def _has_room(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(timeout * 1000))


class LineStream(io.TextIOBase):
    """Replaces sys.stdout or sys.stderr, for all that print: click, warnings, Python."""

    def __init__(self, put: Callable[[str], object]) -> None:
        """*put* is given each line with its end, as `LineWriter.put` is."""
        self._put = put
        self._begun = ""  # the beginning of a line

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # this tells click that it is a text stream
            raise TypeError(f"it writes text, not {type(text).__name__}")
        lines = (self._begun + text).splitlines(keepends=True)
        self._begun = lines.pop() if lines and not lines[-1].endswith("\n") else ""
        for line in lines:
            self._put(line)
        return len(text)

    def flush(self) -> None:
        """Do nothing: a complete line is on its way already."""
