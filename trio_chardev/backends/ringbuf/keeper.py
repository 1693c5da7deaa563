"""Keeps the file of a ring up to date, in a thread, as its disk may hang.

The ring in memory changes at once. One thread at a time brings the changes to the file, in steps,
as long as there are more; only callers of `Keeper.kept` wait for it. If a disk hangs while the
ring goes on, the bytes that the ring loses meanwhile never get into the file, so no queue is
needed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from trio_chardev.backends.ringbuf.file import Bounds, RingFile
from trio_chardev.errors import strerror
from trio_chardev.files import CLOSE_TIMEOUT, FILE_TIMEOUT, end_on_files
from trio_chardev.workers import call_in_loop, do_in_worker, real_timeout

log = logging.getLogger(__name__)

STEP = 1 << 18  # bytes that are copied for the thread while the ring is locked


class Source(Protocol):
    """The ring in memory."""

    lock: threading.Lock
    """Held while the ring changes or is copied, and never for long."""

    @property
    def bounds(self) -> Bounds:
        """The position of its oldest byte, and the position after the newest."""

    note: bytes
    """What its owner keeps in the file beside the bytes."""

    def copy(self, begin: int, size: int) -> bytes:
        """Copy *size* of its bytes, from position *begin* on."""


@attrs.frozen
class _Waiter:
    """A task that waits for the file to reach *bounds*; *wake* is called in the thread.

    With None it waits until there is nothing left to write.
    """

    bounds: Bounds | None
    wake: Callable[[], object]

    def is_served(self, now: Bounds) -> bool:
        wanted = self.bounds
        return wanted is not None and now[0] >= wanted[0] and now[1] >= wanted[1]


class Keeper:
    """Keeps *file* up to date with *ring*."""

    def __init__(self, ring: Source, file: RingFile) -> None:
        self.file = file
        self._ring = ring
        self._is_busy = False  # a thread is at work; these are guarded by the ring's lock
        self._is_closed = False
        self._waiters: list[_Waiter] = []
        self._is_failing = False
        self._is_hanging = False
        self._written_note = ring.note

    def note(self) -> None:
        """Note that the ring has changed."""
        with self._ring.lock:
            if self._is_busy or self._is_closed:
                return
            self._is_busy = True
        do_in_worker(self._work)

    async def kept(self, *, is_last: bool = False) -> None:
        """Wait until the file has the ring's present content, unless writing fails or hangs.

        If that *is_last*, wait for the note, too, which comes after the bytes.
        It hangs if it takes longer than FILE_TIMEOUT; then no call waits until writing goes on.
        """
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()
        with self._ring.lock:
            if not self._is_busy or self._is_hanging:
                return
            bounds = None if is_last else self._ring.bounds
            waiter = _Waiter(bounds, lambda: call_in_loop(token, done.set))
            self._waiters.append(waiter)
        try:
            with trio.move_on_after(real_timeout(FILE_TIMEOUT)):
                await done.wait()
                return
            self._is_hanging = True
            log.warning("Could not write to '%s': it takes its time", self.file.path)
        finally:
            with self._ring.lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    async def aclose(self) -> None:
        """Close the file when it is up to date, shielded; if the disk hangs, the thread does."""
        with trio.move_on_after(real_timeout(CLOSE_TIMEOUT), shield=True):
            await self.kept(is_last=True)
        with self._ring.lock:
            self._is_closed = True
            is_busy = self._is_busy
        if is_busy:
            log.warning("'%s' lacks what was written last: its disk hangs", self.file.path)
            return
        await end_on_files(f"'{self.file.path}'", self.file.close)

    # ------------------------------------------------------------ in the thread

    def _work(self) -> None:
        """Bring the file up to date. Raises nothing."""
        error: Exception | None = None
        try:
            while (step := self._next_step(error)) is not None:
                if isinstance(step, bytes):
                    self.file.write_note(step)
                    self._written_note = step
                else:
                    self.file.follow(*step)
                self._is_hanging = False
        except Exception as exc:
            error = exc
            self._next_step(error)
        if error is not None and not self._is_failing:
            reason = strerror(error) if isinstance(error, OSError) else repr(error)
            log.warning("Could not write to '%s': %s", self.file.path, reason)
        self._is_failing = error is not None

    def _next_step(self, error: Exception | None) -> tuple[int, int, bytes] | bytes | None:
        """The next arguments for `RingFile.follow`, or a note; None if it is up to date, or broken."""
        with self._ring.lock:
            start, end = bounds = self._ring.bounds
            has = self.file.bounds
            note = self._ring.note
            is_noted = note == self._written_note
            is_over = error is not None or (has == bounds and is_noted)
            served = [w for w in self._waiters if is_over or (has and w.is_served(has))]
            self._waiters = [w for w in self._waiters if w not in served]
            step: tuple[int, int, bytes] | bytes | None = None
            if is_over:
                self._is_busy = False
            elif has == bounds:
                step = note
            else:
                begin = start if has is None else max(has[1], start)
                step = start, begin, self._ring.copy(begin, min(STEP, end - begin))
            is_closed = is_over and self._is_closed
        for waiter in served:
            waiter.wake()
        if is_closed:
            self.file.close()
        return step
