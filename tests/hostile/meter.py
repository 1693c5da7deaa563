"""Measures how much is done in one step of a task, as other tasks have to wait for that.

It counts what does not depend on the machine: the calls of functions, Python's and C's.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import trio
from trio.abc import Instrument

CALLS = ("call", "c_call")


class Meter(Instrument):
    """Counts in each step of all tasks but *own*; `most` is the longest step's count."""

    def __init__(self, own: trio.lowlevel.Task) -> None:
        self._own = own
        self._count = 0
        self.most = 0
        self.whose = ""
        """The task of that step."""

    def _on_call(self, frame: FrameType, event: str, argument: object) -> None:
        if event in CALLS:
            self._count += 1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count = 0
        sys.setprofile(self._on_call)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        sys.setprofile(None)
        if task is not self._own and self._count > self.most:
            self.most, self.whose = self._count, task.name


@contextmanager
def metering() -> Iterator[Meter]:
    """Count within the block, except for the caller's task."""
    meter = Meter(trio.lowlevel.current_task())
    trio.lowlevel.add_instrument(meter)
    try:
        yield meter
    finally:
        sys.setprofile(None)
        trio.lowlevel.remove_instrument(meter)
