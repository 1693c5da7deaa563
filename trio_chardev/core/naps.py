"""When the whole thread sleeps for what is about to come, in place of a turn of the scheduler.

A turn of Trio's scheduler takes 7 us and more; a peer that answers at once needs less. And a
relay that sleeps as soon as it has sent lets the kernel run the one it woke on the same
processor, whose caches have the bytes; one that goes on for some us makes it wake another
processor, which takes 20 to 50 us on a virtual machine.

A burst of naps begins when input has come `QUICKLY` after the one before it, and there is
credit: each input that came quickly earns some, with or without a nap, and a nap in vain, which
ends the burst, costs `PRICE`. All others in this thread wait for a burst, `BURST` and a nap at
most, and have their turn before the next one. Where they have much to do input comes late, and there are
no bursts.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from time import perf_counter

NAP = 200e-6  # seconds; to be woken on another processor takes 50, and the timer's slack is 50
BURST = 500e-6  # seconds; about what the reads in a row of one pump take
QUICKLY = 1e-3  # seconds between two inputs; other programs may have had the processor
PRICE = 8  # quick inputs that earn one nap in vain
MAX_CREDIT = 4 * PRICE
PAUSE = 256  # quick inputs

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

    __slots__ = ("_credit", "_last")

    def __init__(self) -> None:
        self._credit = 0
        self._last = 0.0

    def input_came(self) -> bool:
        """Note it. May there be a burst now?"""
        now = perf_counter()
        is_quick = now - self._last < QUICKLY
        self._last = now
        if is_quick:
            self._earn(1)
        return is_quick and self._credit >= PRICE

    def ended(self, inputs: int, *, in_vain: bool) -> None:
        """A burst is over, in which *inputs* came; *in_vain*: after its last nap there was none."""
        self._last = perf_counter()
        self._earn(inputs)
        if in_vain:
            self._credit -= PRICE

    def pause(self) -> None:
        """Begin no burst for `PAUSE` quick inputs."""
        self._credit = PRICE - PAUSE

    def _earn(self, inputs: int) -> None:
        self._credit = min(self._credit + inputs, MAX_CREDIT)
