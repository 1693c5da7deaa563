"""Measures how much is done in one step of a task, as other tasks have to wait for that.

It counts what does not depend on the machine: the calls of functions, Python's and C's.
"""

from __future__ import annotations

import cProfile
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from trio.abc import Instrument


class Meter(Instrument):
    """Counts in each step of all tasks but *own*; `most` is the longest step's count."""

    def __init__(self, own: trio.lowlevel.Task) -> None:
        self._own = own
        self._calls = cProfile.Profile(subcalls=False)
        self.most = 0
        self.whose = ""
        """The task of that step."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is not self._own:
            self._calls.enable()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._own:
            return
        self._calls.disable()
        count = sum(row.callcount for row in self._calls.getstats())
        self._calls.clear()
        if count > self.most:
            self.most, self.whose = count, task.name


@contextmanager
def metering() -> Iterator[Meter]:
    """Count within the block, except for the caller's task."""
    meter = Meter(trio.lowlevel.current_task())
    trio.lowlevel.add_instrument(meter)
    try:
        yield meter
    finally:
        trio.lowlevel.remove_instrument(meter)
