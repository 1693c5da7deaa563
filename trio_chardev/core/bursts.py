"""When the thread looks again and again for what is about to come, in place of turns of Trio's.

A turn of Trio's scheduler takes 7 us and more; a peer that answers at once needs less. Between two
looks the thread gives the processor up, sched_yield(2): if the peer waits for it, or the kernel's
worker that carries what was written to a PTY, that runs at once. To sleep in place of it is no
better: a processor on which nobody runs halts, and on a virtual machine takes 20 to 50 us to be
woken, of the waker's time.

A burst may begin when input has come `QUICKLY` after the one before it, and did so `IN_A_ROW`
times. After one in vain there is none for `PAUSE` quick inputs. All others in this thread wait for
a burst, `BURST` at most, and have their turn before the next one. Where they have much to do input
comes late, and there are no bursts; where other programs have, a burst ends far too late, and
counts as in vain.
"""

from __future__ import annotations

import os
from time import perf_counter

from trio_chardev.core.fast import ways

BURST = 400e-6  # seconds; about what the reads in a row of one pump take
IDLE = 200e-6  # seconds without success that end a burst
LATE = 1e-3  # seconds; who ends so much later did not have the processor meanwhile
QUICKLY = 200e-6  # seconds between two inputs; a console that prints is slower than that
IN_A_ROW = 8  # quick inputs before the first burst
PAUSE = 16  # quick inputs


class Burst:
    """One, which begins now."""

    __slots__ = ("_last", "_until", "in_vain")

    def __init__(self) -> None:
        self._last = perf_counter()
        self._until = self._last + BURST
        self.in_vain = False
        """Did it end because nothing moved, or because other programs had the processor?"""

    def goes_on(self, *, moved: bool) -> bool:
        """Look again? *moved*: the last look was a success, so there may be more at once."""
        now = perf_counter()
        if moved:
            self._last = now
        self.in_vain = now - self._last > IDLE or now > self._until + LATE
        if now >= self._until or self.in_vain:
            return False
        if not moved:
            os.sched_yield()
        return True


class Bursts:
    """Of one flow of bytes, or of two that answer each other."""

    __slots__ = ("_last", "_missing")

    def __init__(self) -> None:
        self._missing = IN_A_ROW  # quick inputs until there may be a burst
        self._last = 0.0

    def input_came(self) -> bool:
        """Note it. May there be a burst now?"""
        now = perf_counter()
        is_quick = now - self._last < QUICKLY
        self._last = now
        if not is_quick or not ways.are_taken:
            return False
        self._missing -= 1
        return self._missing < 0

    def ended(self, *, in_vain: bool) -> None:
        """A burst is over, which began with the last `input_came`."""
        self._last = perf_counter()
        self._missing = PAUSE if in_vain else 0
