"""A watch for stalls: steps of tasks that take long, while which all other tasks wait.

What another program did to the step is left out: if the kernel has taken the processor away in
between, the step's own processor time counts. A step that itself waits, for a disk or for a lock, is
counted with all of that.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from typing import Final

import attrs
import trio

LONG: Final = 1e-3  # seconds; of such steps it is noted where they were
MOST_KEPT: Final = 10
PER_DOUBLING: Final = 8  # classes of lengths between a number of microseconds and twice that


@attrs.frozen(order=True)
class Stall:
    """A long step."""

    seconds: float
    task: str
    where: str
    """Where the task waits after it."""

    def __str__(self) -> str:
        return f"{self.seconds * 1e3:.1f} ms: {self.task}, up to {self.where}"


class StallWatch(trio.abc.Instrument):
    """Measures each step of each task."""

    def __init__(self) -> None:
        self.is_on = True
        self.steps = 0
        self.longest: list[Stall] = []
        """The longest steps that were `LONG`, the longest first."""
        self._lengths: Counter[int] = Counter()
        self._begin = 0.0
        self._ran = 0.0
        self._preempted = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._preempted = preempted()
        self._ran = time.thread_time()
        self._begin = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        seconds = time.perf_counter() - self._begin
        if not self.is_on:
            return
        if seconds >= LONG:
            if preempted() != self._preempted:
                seconds = min(seconds, time.thread_time() - self._ran)
            if seconds >= LONG:
                self._note(Stall(seconds, task.name, place_of(task)))
        self.count(seconds)

    def count(self, seconds: float) -> None:
        """Count a step."""
        self.steps += 1
        self._lengths[_class_of(seconds)] += 1

    def _note(self, stall: Stall) -> None:
        self.longest = sorted([*self.longest, stall], reverse=True)[:MOST_KEPT]

    def quantile(self, share: float) -> float:
        """The seconds that *share* of the steps took at most; 0 if there was none."""
        left = self.steps * (1 - share)
        for length in sorted(self._lengths, reverse=True):
            left -= self._lengths[length]
            if left < 0:
                exponent, part = divmod(length, PER_DOUBLING)
                return (1 + (part + 1) / PER_DOUBLING) * (1 << exponent) * 1e-6
        return 0.0


def preempted() -> int:
    """How often the kernel has taken the processor away from this thread, for another."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def _class_of(seconds: float) -> int:
    """The class of a length, counted from a microsecond on."""
    microseconds = max(1, int(seconds * 1e6))
    exponent = microseconds.bit_length() - 1
    return exponent * PER_DOUBLING + ((microseconds * PER_DOUBLING) >> exponent) - PER_DOUBLING


def place_of(task: trio.lowlevel.Task) -> str:
    """Where *task* waits: the innermost line that is none of Trio's."""
    place = "its end"
    for frame, line in task.iter_await_frames():
        if "/trio/" not in frame.f_code.co_filename:
            place = f"{frame.f_code.co_qualname}:{line}"
    return place
