"""A file that is written in the background: a log file, a recording, the output of kind file.

The data path only appends to a bounded buffer. A task writes the buffer's content in a worker
thread, so a slow disk holds up nobody. If a backend is replaced by one with the same file, two
tasks have it open for a moment, and the new one waits for the old one to finish.

What can't be written is kept, and writing is tried again; of a recording it is lost.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from trio_chardev.backends.taps.output import Output
from trio_chardev.backends.taps.size_limit import SizeLimit
from trio_chardev.errors import BackendError, reason_of, strerror
from trio_chardev.workers import NoThreadError, run_in_worker

log = logging.getLogger("trio_chardev.log")

MAX_PENDING = 1 << 20  # bytes
RETRY_INTERVAL = 1.0  # seconds until a failed thread start, or failed write, is tried again
LAST_INTERVAL = 0.05  # seconds until a failed thread start is tried again while closing
LAST_TIME = 1.0  # seconds before the deadline from which data to keep is written without a thread
GATHER_TIME = 0.001  # seconds
GATHER_SIZE = 1 << 16  # bytes that are worth waking a thread for
FLUSH_TIMEOUT = 3.0  # seconds; less than the core waits for a backend to close


@attrs.define
class _Reopening:
    """What waits until the file is opened anew."""

    done: trio.Event = attrs.Factory(trio.Event)
    error: OSError | BackendError | None = None


class BackgroundFile:
    """The buffer in front of an output, and the task that writes it."""

    def __init__(
        self,
        what: str,
        output: Output,
        max_size: int | None = None,
        *,
        keeps: bool = False,
        is_only_copy: bool = False,
        gathers: bool = False,
        times: int = 1,
    ) -> None:
        """*what* names the file in log lines, as ``log file 'PATH'``; *max_size* limits it.

        With *keeps*, what can't be written is kept, and tried again. If it *is_only_copy*, its end
        is written without a thread where the system gives none. Such data, and what *gathers*, may
        wait for a moment for more. The buffer is *times* `MAX_PENDING`.
        """
        self.output: Output | None = output
        """None once it is closed, or has been given up because it hangs."""
        self.pending = bytearray()
        self.dropped = 0
        """How much is missing in the file because it was slow or full, in `Output.unit`."""
        self.on_failure: Callable[[bytearray], None] = lambda data: None
        """Called with what could not be written."""
        self.on_room: Callable[[], None] = lambda: None
        """Called when there is room again."""
        self.limit = SizeLimit(what, output.unit, max_size)
        self._what = what
        self._unit = output.unit
        self._is_full = False  # with old content, which has to go first
        self._reopening: _Reopening | None = None
        self._is_dropping = False
        self._max_pending = MAX_PENDING * times
        self._keeps = keeps
        self._is_only_copy = is_only_copy
        self._gathers = gathers or is_only_copy
        self._is_failing = False
        self._chunk = bytearray()  # what a thread is writing, or has failed to write
        self._is_writing = False
        self._wake = trio.Event()
        self._progress = trio.lowlevel.ParkingLot()
        self._closing = trio.Event()
        self._done = trio.Event()
        self._turn: trio.Event | None = None  # set when the old backend's file is finished
        self._scope = trio.CancelScope(shield=True)  # close() sets its deadline
        self._limiter = trio.CapacityLimiter(1)  # its own: slow disks would exhaust a shared one

    @property
    def room(self) -> int:
        """How many bytes may be put now."""
        return max(0, self._max_pending - len(self.pending))

    @property
    def is_idle(self) -> bool:
        """Is all written, or will nothing more be?"""
        return not (self.pending or self._chunk or self._is_full) or self.output is None

    async def wait_room(self) -> None:
        """Wait until there may be room."""
        if self.room:
            await trio.lowlevel.checkpoint()
        else:
            await self._progress.park()

    async def wait_idle(self, *, while_it_works: bool = False) -> None:
        """Wait until all is written; with *while_it_works*, or until writing fails."""
        while not (self.is_idle or (while_it_works and self._is_failing)):
            await self._progress.park()

    def take_back(self) -> bytes:
        """Take back what has not been written, except for what a thread is writing now."""
        data = bytearray()
        if not self._is_writing:
            data, self._chunk = self._chunk, data
        data += self.pending
        self.pending.clear()
        return bytes(data)

    def put(self, data: bytes | memoryview) -> None:
        """Have *data*, at most `room` bytes, written soon."""
        self.pending += data
        self._wake.set()

    def drop(self, count: int) -> None:
        """Count what there was no room for, and log that."""
        self.dropped += count
        if not self._is_dropping:
            log.warning("%s is too slow: what comes is dropped", self._what)
            self._is_dropping = True
        self._wake.set()

    def empty(self) -> None:
        """Have `Output.empty` called before anything else is written; a failure is only logged."""
        self._is_full = True
        self._wake.set()

    async def reopen(self) -> None:
        """Have `Output.reopen` called before more is written, and wait for it.

        Raises what that raises. It is done even if this is cancelled.
        """
        if self._done.is_set():
            await trio.lowlevel.checkpoint()
            return
        reopening = self.reopen_soon()
        await reopening.done.wait()
        if reopening.error is not None:
            raise reopening.error

    def reopen_soon(self) -> _Reopening:
        """Have `Output.reopen` called before more is written; if that fails, nothing changes."""
        if self._reopening is None:
            self._reopening = _Reopening()
        self._wake.set()
        return self._reopening

    def follow(self, before: BackgroundFile) -> None:
        """Write nothing before *before*, for the same file, has written everything."""
        self._turn = before._done

    @asynccontextmanager
    async def running(self, *beside: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """Write what is put during the block; then flush it, for FLUSH_TIMEOUT at most.

        *beside* runs as long as the block, and has to end by itself.
        """
        error: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            for task in beside:
                nursery.start_soon(task)
            try:
                yield
            except Exception as exc:
                error = exc  # raised below, outside of the nursery, which would make it a group
            finally:
                self.close()
        if error is not None:
            raise error

    def close(self) -> None:
        """Have the rest written; nothing may be put after this."""
        self._closing.set()
        self._scope.deadline = trio.current_time() + FLUSH_TIMEOUT
        self._wake.set()

    async def _run(self) -> None:
        """Write what is put, until closed and finished, or out of time."""
        try:
            with self._scope:
                while self.pending or self._is_full or not self._closing.is_set():
                    await self._wake.wait()
                    self._wake = trio.Event()
                    await self._write_pending()
                await self._close_output()
            if self._scope.cancelled_caught:
                count = len(self._chunk) + len(self.pending)
                log.error("%s hangs: its end is lost, %d bytes", self._what, count)
            elif self.limit.is_full:
                log.warning("%s lacks %d %s", self._what, self.dropped, self._unit)
        finally:
            self.output = None
            if self._reopening is not None:
                self._reopening.done.set()
            self._done.set()
            self._progress.unpark_all()

    async def _close_output(self) -> None:
        """Close it in a thread, because a network file system may write only then."""
        if self.output is not None:
            try:
                await run_in_worker(self.output.close, limiter=self._limiter)
            except NoThreadError:
                self.output.close()

    async def _write_pending(self) -> None:
        if self._turn is not None and (self.pending or self._is_full):
            await self._turn.wait()
            self._turn = None
        await self._empty()
        await self._reopen()
        while (self._chunk or self.pending) and self.output is not None:
            if not self._chunk:
                await self._gather()
                self._chunk, self.pending = self.pending, self._chunk
                self._progress.unpark_all()
                self.on_room()
            self._is_writing = True
            try:
                was_full = self.limit.is_full
                left = await run_in_worker(
                    self.limit.write, self.output, self._chunk, limiter=self._limiter
                )
            except OSError as exc:
                self._is_writing = False
                await self._cope(exc)
            else:
                self._is_writing = self._is_failing = False
                self._chunk = bytearray()
                self._note_left_out(left, was_full)
            self._progress.unpark_all()
            await self._reopen()
        if self._is_dropping:
            log.warning("%s lacks %d %s by now", self._what, self.dropped, self._unit)
            self._is_dropping = False

    async def _gather(self) -> None:
        """Let more bytes gather, if they come one by one: waking a thread costs 50 us."""
        if self._gathers and len(self.pending) < GATHER_SIZE:
            await self._pause(GATHER_TIME)

    async def _cope(self, error: OSError) -> None:
        """Handle *error*: the chunk, or the end of it, could not be written."""
        self._note_failure(error)
        has_tried = not isinstance(error, NoThreadError)
        if has_tried and not self._keeps:
            self.on_failure(self._chunk)
            self._chunk = bytearray()
        elif has_tried and self._closing.is_set():
            log.error("%s lacks its end: %d bytes are lost", self._what, len(self.take_back()))
        elif not has_tried and self._is_late:
            await self._write_here()
        else:
            self._progress.unpark_all()
            if has_tried:
                await self._pause(RETRY_INTERVAL)
            else:
                await self._wait_for_thread()

    @property
    def _is_late(self) -> bool:
        """Is the deadline for closing so near that the only copy can't wait for a thread?"""
        return self._is_only_copy and self._scope.deadline - trio.current_time() <= LAST_TIME

    async def _write_here(self) -> None:
        """Write the chunk without a thread, rather than lose it; a disk that hangs blocks all."""
        assert self.output is not None
        was_full = self.limit.is_full
        try:
            left = self.limit.write(self.output, self._chunk)
        except OSError as exc:
            await self._cope(exc)
        else:
            self._is_failing = False
            self._chunk = bytearray()
            self._note_left_out(left, was_full)

    async def _wait_for_thread(self) -> None:
        """Wait before starting a thread again: existing ones may be busy only for a moment."""
        await self._pause(RETRY_INTERVAL)
        if self._closing.is_set():
            await trio.sleep(LAST_INTERVAL)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until it is to be closed."""
        with trio.move_on_after(seconds):
            await self._closing.wait()

    def _note_left_out(self, left: bytearray, was_full: bool) -> None:
        """Account for *left*, which did not fit into the file."""
        count = 0
        if left and self.output is not None:
            count = self.output.count(left)
            self.dropped += count
            self.on_failure(left)
        self.limit.note(count, self.dropped, was_full=was_full)

    async def _empty(self) -> None:
        while self._is_full and self.output is not None:
            try:
                await run_in_worker(self.output.empty, limiter=self._limiter)
            except NoThreadError as exc:
                self._note_failure(exc)
                if not self._is_late:
                    await self._wait_for_thread()
                    continue
                with contextlib.suppress(OSError):  # as in `_write_here`
                    self.output.empty()
            except (OSError, BackendError) as exc:
                log.warning("Could not truncate %s: %s", self._what, reason_of(exc))
            self._is_full = False
            self._progress.unpark_all()

    async def _reopen(self) -> None:
        reopening, self._reopening = self._reopening, None
        if reopening is None:
            return
        try:
            if self.output is not None:
                await run_in_worker(self.output.reopen, limiter=self._limiter)
        except (OSError, BackendError) as exc:
            reopening.error = exc
        finally:
            reopening.done.set()

    def _note_failure(self, error: OSError) -> None:
        if not self._is_failing:
            log.warning("Could not write to %s: %s", self._what, strerror(error))
            self._is_failing = True
