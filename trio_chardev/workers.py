"""Worker threads for calls that may block: files, name look-ups.

Why not Trio's: it starts threads by `threading`, which raises RuntimeError when the system has no
thread to give, and which waits in the event loop, without a deadline, for the new thread's first
steps: if that thread dies of a MemoryError there, the program freezes. Here a missing thread is
an OSError (`NoThreadError`), which code that works with files has to expect anyway, and only the
task that wants the thread waits for it.

An idle thread waits a while for another job, and the last one stays for good, so what has worked
once keeps working when threads become scarce.
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
    """They: the system gives no thread. No errno is set: EAGAIN would make it a BlockingIOError."""

    def __init__(self) -> None:
        super().__init__("no thread can be started")


class _Worker:
    """One thread: its job, and the lock that it waits on for the next one."""

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
        """Forget the threads after a fork(2): they belong to the parent process."""
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
                worker.work = worker.deliver = _nothing  # an idle thread keeps nothing alive
                self._idle[worker] = None  # before delivering: the task may want a thread at once
                deliver()
                del deliver
            elif len(self._idle) > 1 and self._idle.pop(worker, worker) is None:
                return  # a thread that is no longer in the dict was given a job, and waits for it


def _nothing() -> None:
    """Do nothing."""


POOL = Pool()
"""The pool of this process."""
os.register_at_fork(after_in_child=POOL.forget)


class _Job(Generic[T]):
    """A function that a thread is to run for a task."""

    def __init__(
        self,
        function: Callable[[], T],
        discard: Callable[[T], object] | None,
        release: Callable[[_Job[T]], None],
    ) -> None:
        """*discard* gets a result that nobody waits for; *release* is called at the end."""
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
        """Claim the job, for the thread that begins it or the task that gives it up before that."""
        return self._claim.acquire(blocking=False)

    # ------------------------------------------------------------ in the thread

    def work(self) -> None:
        """Run the function, unless the task has given up; then free what it refers to."""
        if self.claim():
            function = self._function
            del self._function
            self._raw = outcome.capture(function)

    def deliver(self) -> None:
        """Give the task the result."""
        raw, self._raw = self._raw, None
        if raw is not None and not call_in_loop(self._token, self._finish, raw):
            self._throw_away(raw)

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
        if self.claim():  # the new thread died before it began the job
            self._release(self)
            raise NoThreadError
        await self._done.wait()

    def unwrap(self) -> T:
        """The result of the function. Raises what it raised."""
        result, self._result = self._result, None
        assert result is not None
        try:
            return result.unwrap()
        finally:
            del result  # what it raises has a traceback with this frame

    def leave(self) -> None:
        """Give the job up: the task waits no longer."""
        self._is_left = True
        if self.claim():
            self._release(self)
        elif self._result is not None:
            self._hand_away(self._result)

    def _hand_away(self, result: outcome.Outcome[T]) -> None:
        """Discard the result in a thread, because closing a file may block."""
        do_in_worker(partial(self._throw_away, result))

    def _throw_away(self, result: outcome.Outcome[T]) -> None:
        if self._discard is not None and isinstance(result, outcome.Value):
            outcome.capture(self._discard, result.value)


def call_in_loop(
    token: trio.lowlevel.TrioToken, function: Callable[..., object], *arguments: Any
) -> bool:
    """From a thread, have the event loop call *function*; False if that run of Trio is over."""
    while True:
        try:
            token.run_sync_soon(function, *arguments)
        except trio.RunFinishedError:
            return False
        except MemoryError:  # giving up would leave the task waiting for ever
            time.sleep(NO_MEMORY_PAUSE)
            continue
        except OSError:  # Trio has queued the call, but found no buffer for the byte that wakes it
            _wake(token)
        return True


def _wake(token: trio.lowlevel.TrioToken) -> None:
    """Wake Trio's event loop, so that it runs what is queued."""
    while True:
        time.sleep(NO_MEMORY_PAUSE)
        with contextlib.suppress(trio.RunFinishedError):  # then the queued calls have run
            try:
                token.run_sync_soon(_nothing)
            except (OSError, MemoryError):
                continue
        return


def real_timeout(seconds: float) -> float:
    """*seconds* as a timeout for work in threads, which takes real time.

    Infinite under a clock that stands still or jumps, such as trio.testing.MockClock, where the
    timeout would be over at once.
    """
    now = trio.current_time()
    sleep = trio.lowlevel.current_clock().deadline_to_sleep_time(now + seconds)
    return seconds if sleep <= seconds + 1 else math.inf


def limiter_of_run(
    limiters: trio.lowlevel.RunVar[trio.CapacityLimiter], size: int
) -> trio.CapacityLimiter:
    """The limiter of this run of Trio; the first call makes it, for *size* threads at a time."""
    try:
        return limiters.get()
    except LookupError:
        limiter = trio.CapacityLimiter(size)
        limiters.set(limiter)
        return limiter


def do_in_worker(function: Callable[[], object]) -> None:
    """Have a thread call *function*, which must not raise; call it here if there is no thread."""
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

    Until it is done the thread counts in *limiter*, by default Trio's default thread limiter.
    Raises what *function* raises, and NoThreadError. When cancelled, this returns at once; a thread
    that has begun goes on, and its result is passed to *discard*, which must not raise.
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
