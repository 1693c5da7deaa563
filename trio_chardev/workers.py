"""Worker threads, for what may hold up who calls it: files, name look-ups.

Why not Trio's: it starts them by `threading`, which raises RuntimeError where the system has no
thread left to give, and which waits, in the event loop and without end, for the first steps of
the new one, so that one which dies of MemoryError in them freezes the program. Here no thread is
an OSError (`NoThreadError`), which whoever works with files has to expect anyway, and only the
task that wants the thread waits for it.

An idle thread waits for the next job for a while, and the last one stays: what has worked once
goes on working when threads become short.
"""

from __future__ import annotations

import _thread
import contextlib
import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import outcome
import trio

IDLE_TIMEOUT = 10.0  # seconds that a thread waits for another job
START_TIMEOUT = 10.0  # seconds that a thread may take to begin
NO_MEMORY_PAUSE = 0.05  # seconds until a result is reported again

T = TypeVar("T")


class NoThreadError(OSError):
    """They: the system gives no thread. It has no errno: EAGAIN would be a BlockingIOError."""

    def __init__(self) -> None:
        super().__init__("no thread can be started")


class _Worker:
    """One thread: what it has to do, and the lock that it waits for."""

    __slots__ = ("deliver", "wake", "work")

    def __init__(self, work: Callable[[], object], deliver: Callable[[], None]) -> None:
        self.work, self.deliver = work, deliver
        self.wake = _thread.allocate_lock()  # free when there is a job


class Pool:
    """Threads that are started when none is idle."""

    def __init__(self, start: Callable[..., object] = _thread.start_new_thread) -> None:
        self._start = start
        self._idle: dict[_Worker, None] = {}

    def run(self, work: Callable[[], object], deliver: Callable[[], None]) -> None:
        """Have a thread run *work*, and *deliver* when it is idle again; neither may raise.

        Raises NoThreadError.
        """
        try:
            worker, _ = self._idle.popitem()
        except KeyError:
            self._start_one(work, deliver)
        else:
            worker.work, worker.deliver = work, deliver
            worker.wake.release()

    def forget(self) -> None:
        """The threads are another process's: this one was forked from it."""
        self._idle.clear()

    def _start_one(self, work: Callable[[], object], deliver: Callable[[], None]) -> None:
        try:
            self._start(self._serve, (_Worker(work, deliver),))
        except (RuntimeError, MemoryError) as exc:
            raise NoThreadError from exc

    def _serve(self, worker: _Worker) -> None:
        while True:
            if worker.wake.acquire(timeout=IDLE_TIMEOUT):
                worker.work()
                deliver = worker.deliver
                worker.work = worker.deliver = _nothing  # keep nothing alive
                self._idle[worker] = None  # before others hear of it, and want the next
                deliver()
                del deliver
            elif len(self._idle) > 1 and self._idle.pop(worker, worker) is None:
                return  # and nobody was about to give it a job


def _nothing() -> None:
    """Do nothing."""


POOL = Pool()
"""One for the process, as threads are."""
os.register_at_fork(after_in_child=POOL.forget)


class _Job(Generic[T]):
    """A function that a thread is to run for a task."""

    def __init__(
        self,
        function: Callable[[], T],
        discard: Callable[[T], object] | None,
        release: Callable[[_Job[T]], None],
    ) -> None:
        """Of a result that nobody takes *discard* is told; *release* when no thread has the job."""
        self._function = function
        self._discard = discard
        self._release = release
        self._token = trio.lowlevel.current_trio_token()
        self._claim = _thread.allocate_lock()
        self._raw: outcome.Outcome[T] | None = None
        self._result: outcome.Outcome[T] | None = None
        self._is_left = False
        self._done = trio.Event()

    def claim(self) -> bool:
        """Decide who has it: a thread that begins, or the task that gives it up before that."""
        return self._claim.acquire(blocking=False)

    # ------------------------------------------------------------ in the thread

    def work(self) -> None:
        """Run the function, unless the task has given up; what it refers to may be freed here."""
        if self.claim():
            function = self._function
            del self._function
            self._raw = outcome.capture(function)

    def deliver(self) -> None:
        """Tell the task."""
        if self._raw is not None and not call_in_loop(self._token, self._finish, self._raw):
            self._throw_away(self._raw)

    # ------------------------------------------------------------ in the event loop

    def _finish(self, result: outcome.Outcome[T]) -> None:
        self._release(self)
        self._result = result
        self._done.set()
        if self._is_left:
            self._hand_away(result)

    async def wait(self) -> None:
        """Wait until the function has returned, or raised. Raises NoThreadError."""
        with trio.move_on_after(real_timeout(START_TIMEOUT)):
            await self._done.wait()
            return
        if self.claim():  # the new thread died before it came so far
            self._release(self)
            raise NoThreadError
        await self._done.wait()

    def unwrap(self) -> T:
        """The result of the function. Raises what it raised."""
        assert self._result is not None
        return self._result.unwrap()

    def leave(self) -> None:
        """Nobody waits any more."""
        self._is_left = True
        if self.claim():
            self._release(self)
        elif self._result is not None:
            self._hand_away(self._result)

    def _hand_away(self, result: outcome.Outcome[T]) -> None:
        """Throw the result away in a thread: to close a file may take its time."""
        do_in_worker(partial(self._throw_away, result))

    def _throw_away(self, result: outcome.Outcome[T]) -> None:
        if self._discard is not None and isinstance(result, outcome.Value):
            outcome.capture(self._discard, result.value)


def call_in_loop(
    token: trio.lowlevel.TrioToken, function: Callable[..., object], *arguments: Any
) -> bool:
    """Have the event loop call *function*, from a thread; False if that run of Trio is over."""
    while True:
        try:
            token.run_sync_soon(function, *arguments)
        except trio.RunFinishedError:
            return False
        except MemoryError:  # else the task would wait for ever
            time.sleep(NO_MEMORY_PAUSE)
            continue
        except OSError:  # Trio has it, but no buffer for the byte that wakes it
            _wake(token)
        return True


def _wake(token: trio.lowlevel.TrioToken) -> None:
    """Have Trio do what it has."""
    while True:
        time.sleep(NO_MEMORY_PAUSE)
        with contextlib.suppress(trio.RunFinishedError):  # then it has done it
            try:
                token.run_sync_soon(_nothing)
            except (OSError, MemoryError):
                continue
        return


def real_timeout(seconds: float) -> float:
    """*seconds* for a scope around what threads do, which takes real time.

    Without end by a clock that stands still or jumps, as trio.testing.MockClock: it would be over
    at once.
    """
    now = trio.current_time()
    sleep = trio.lowlevel.current_clock().deadline_to_sleep_time(now + seconds)
    return seconds if sleep <= seconds + 1 else math.inf


def limiter_of_run(
    limiters: trio.lowlevel.RunVar[trio.CapacityLimiter], size: int
) -> trio.CapacityLimiter:
    """That of this run of Trio; the first call makes it, for *size* threads at a time."""
    try:
        return limiters.get()
    except LookupError:
        limiter = trio.CapacityLimiter(size)
        limiters.set(limiter)
        return limiter


def do_in_worker(function: Callable[[], object]) -> None:
    """Have a thread call *function*, which must not raise; here, if there is none to be had."""
    try:
        POOL.run(function, _nothing)
    except NoThreadError:
        function()


async def run_in_worker(
    function: Callable[..., T],
    *arguments: Any,
    limiter: trio.CapacityLimiter | None = None,
    discard: Callable[[T], object] | None = None,
) -> T:
    """Run *function* in a worker thread, and return what it returns.

    The thread has a place in *limiter*, by default that of all threads of Trio, until it is done.
    Raises what *function* raises, and NoThreadError. Cancelled: nobody waits for the thread any
    more, which goes on if it has begun; what it then returns is given to *discard*, which must not
    raise.
    """
    if limiter is None:
        limiter = trio.to_thread.current_default_thread_limiter()
    job = _Job(partial(function, *arguments), discard, limiter.release_on_behalf_of)
    await limiter.acquire_on_behalf_of(job)
    try:
        POOL.run(job.work, job.deliver)
    except NoThreadError:
        limiter.release_on_behalf_of(job)
        raise
    try:
        await job.wait()
    except trio.Cancelled:
        job.leave()
        raise
    return job.unwrap()
