"""When the whole thread sleeps for what is about to come, in place of a turn of the scheduler.

A turn of Trio's scheduler takes 7 us and more; a peer that answers at once needs less. And a
relay that sleeps as soon as it has sent lets the kernel run the one it woke on the same
processor, whose caches have the bytes; one that goes on for some us makes it wake another
processor, which takes 20 to 50 us on a virtual machine.

A burst of naps begins when input has come `QUICKLY` after the one before it, and did so `IN_A_ROW`
times. After a nap in vain, or a burst that was slow, there is none for `PAUSE` quick inputs. All
others in this thread wait for a burst, `BURST` and a nap at most, and have their turn before the
next one. Where they have much to do input comes late, and there are no bursts.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from time import perf_counter

# A timer that ends before the scheduler's next tick, at 250 Hz 4 ms away at most, has to be set in
# the processor. On a virtual machine that takes some 7 us, each time: a third of a nap and more.
NAP = 5e-3  # seconds
BURST = 500e-6  # seconds; about what the reads in a row of one pump take
QUICKLY = 200e-6  # seconds between two inputs; a console that prints is slower than that
IN_A_ROW = 8  # quick inputs before the first burst
PAUSE = 64  # quick inputs

Ready = tuple[list[int], list[int], list[int]]


def nap(readable: Sequence[int], writable: Sequence[int] = ()) -> Ready:
    """Sleep until one of the descriptors is ready, for `NAP` at most; which are.

    None is if one is beyond FD_SETSIZE, as in a service with a thousand chardevs.
    """
    try:
        return select.select(readable, writable, (), NAP)
    except ValueError:
        return [], [], []


class Naps:
    """Of one flow of bytes, or of two that answer each other."""

    __slots__ = ("_last", "_missing", "_slow")

    def __init__(self, slow: float) -> None:
        """*slow*: a burst that takes longer for each input, in seconds, was of no use."""
        self._slow = slow
        self._missing = IN_A_ROW  # quick inputs until there may be a burst
        self._last = 0.0

    def input_came(self) -> bool:
        """Note it. May there be a burst now?"""
        now = perf_counter()
        is_quick = now - self._last < QUICKLY
        self._last = now
        if not is_quick:
            return False
        self._missing -= 1
        return self._missing < 0

    def ended(self, inputs: int, *, in_vain: bool) -> None:
        """A burst is over, in which *inputs* came; *in_vain*: in its last nap nothing did.

        It began with the last `input_came`.
        """
        begin, self._last = self._last, perf_counter()
        is_slow = self._last - begin > inputs * self._slow
        self._missing = PAUSE if in_vain or is_slow else 0
