"""Sequences of steps on a line at exact times, such as a board's way into its boot loader.

The plan is made without I/O: the time of each step counts from the start, so that a late step does
not make those after it late.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from trio_chardev.core.line_change import HeldLine, LineChange
from trio_chardev.core.timer import open_timer
from trio_chardev.errors import OptionsError

MAX_STEPS = 1000
MAX_DURATION = 10.0  # seconds for which nobody else can use the line
US = 1e-6  # seconds


@attrs.frozen(kw_only=True)
class LineStep:
    """One step of a sequence: what it sets, all at once, and the pause after that."""

    speed: int | None = None
    """Bits per second."""

    dtr: bool | None = None
    """DTR on or off."""

    rts: bool | None = None
    """RTS on or off."""

    break_: bool | None = None
    """Break on or off; it is turned on after what was written before has been sent."""

    pause_us: int = 0
    """Microseconds until the next step, or the end."""

    @property
    def change(self) -> LineChange:
        """What it sets."""
        return LineChange(speed=self.speed, dtr=self.dtr, rts=self.rts, break_=self.break_)


@attrs.frozen(repr=False)
class Plan:
    """What to set when, in seconds from the start."""

    steps: tuple[tuple[float, LineChange], ...]
    duration: float
    """Until the end of the last pause."""

    @property
    def changes(self) -> list[LineChange]:
        """All that it sets, in order."""
        return [change for _, change in self.steps]


def plan_of(steps: Sequence[LineStep]) -> Plan:
    """Plan *steps*. Raises OptionsError."""
    if not 0 < len(steps) <= MAX_STEPS:
        raise OptionsError(f"'steps' must have from 1 to {MAX_STEPS} elements")
    planned: list[tuple[float, LineChange]] = []
    time_us = 0
    for step in steps:
        step.change.check()
        if step.pause_us < 0:
            raise OptionsError("'pause-us' must not be negative")
        planned.append((time_us * US, step.change))
        time_us += step.pause_us
    if time_us > MAX_DURATION / US:
        raise OptionsError(f"'steps' must not take more than {MAX_DURATION:g} seconds")
    return Plan(tuple(planned), time_us * US)


async def run_plan(plan: Plan, held: HeldLine) -> None:
    """Do what *plan* says with a line that `HeldLine.look` has looked at. Raises as `HeldLine.do`."""
    with open_timer() as timer:
        start = trio.current_time()
        for at, change in plan.steps:
            await timer.wait_until(start + at)
            await held.do(change)
        await timer.wait_until(start + plan.duration)
