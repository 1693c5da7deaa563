"""Waiting that takes memory only while somebody waits.

A service has many chardevs, most of them idle, and each has a dozen places to wait at. An Event, a
ParkingLot or a Lock of Trio takes 300 bytes for its empty list of tasks; these take 48.
"""

from __future__ import annotations

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, enable_ki_protection


class Waiters:
    """Those who wait until they are woken, as in a `trio.lowlevel.ParkingLot`."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: list[Task] | None = None

    def __bool__(self) -> bool:
        """Does anybody wait?"""
        return bool(self._tasks)

    @enable_ki_protection
    async def wait(self) -> None:
        """Wait until `wake`, whatever has happened before."""
        task = trio.lowlevel.current_task()
        if self._tasks is None:
            self._tasks = [task]
        else:
            self._tasks.append(task)

        def leave(_: RaiseCancelT) -> Abort:
            assert self._tasks is not None
            self._tasks.remove(task)
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    @enable_ki_protection
    def wake(self) -> None:
        """Wake all who wait."""
        tasks, self._tasks = self._tasks, None
        for task in tasks or ():
            trio.lowlevel.reschedule(task)


class Once:
    """Something that happens once, as a `trio.Event`."""

    __slots__ = ("_is_set", "_waiters")

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: Waiters | None = None

    def is_set(self) -> bool:
        """Has it happened?"""
        return self._is_set

    @enable_ki_protection
    def set(self) -> None:
        """Let it have happened, and wake all who wait for it."""
        self._is_set = True
        waiters, self._waiters = self._waiters, None
        if waiters is not None:
            waiters.wake()

    async def wait(self) -> None:
        """Wait until it has happened."""
        if self._is_set:
            await trio.lowlevel.checkpoint()
        else:
            if self._waiters is None:
                self._waiters = Waiters()
            await self._waiters.wait()


class Lock:
    """A `trio.Lock` that is made when it is first held."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: trio.Lock | None = None

    def locked(self) -> bool:
        """Does somebody hold it?"""
        return self._lock is not None and self._lock.locked()

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return 0 if self._lock is None else self._lock.statistics().tasks_waiting

    def acquire_nowait(self) -> None:
        """Hold it. Raises WouldBlock."""
        self._made().acquire_nowait()

    async def acquire(self) -> None:
        """Hold it, once all who have asked before have released it."""
        await self._made().acquire()

    def release(self) -> None:
        """Hold it no more; the first who waits holds it then."""
        self._made().release()

    @enable_ki_protection
    async def __aenter__(self) -> None:
        await self.acquire()

    @enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        self.release()

    def _made(self) -> trio.Lock:
        if self._lock is None:
            self._lock = trio.Lock()
        return self._lock
