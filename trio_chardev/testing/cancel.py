"""Cancelling at a given step of the scheduler, so that a test can try every step."""

from __future__ import annotations

import attrs
import trio


@attrs.define(eq=False, repr=False)
class CancelAtStep(trio.abc.Instrument):
    """Cancel *scope* at the *k*-th scheduler step of any task, before or after it.

    It only counts and cancels, because an exception in an instrument is logged, not raised.
    """

    k: int
    when: str
    scope: trio.CancelScope
    armed: bool = False
    fired: bool = False
    _seen: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        self._step("before")

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        self._step("after")

    def _step(self, when: str) -> None:
        if self.armed and when == self.when:
            self._seen += 1
            if self._seen == self.k:
                self.fired = True
                self.scope.cancel()
