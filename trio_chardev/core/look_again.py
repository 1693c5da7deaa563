"""Decides when to poll again for input that is about to come, rather than wait to be woken.

Waiting is expensive. A pass of Trio's scheduler takes 7 us and more; sleeping in epoll and being
woken takes 40 us, most of it in the kernel; and an idle processor halts, and on a virtual machine
takes 20 to 50 us of the waker's time to go on. A peer that answers at once needs less than that. So
between two looks the thread only gives the processor up, sched_yield(2): a peer that waits for the
processor runs at once, and so does the kernel's worker that moves what was written to a PTY.

`Credit` says whether looking pays: input that comes quickly earns some, and a look in vain costs
some. So an idle or slow line is not polled, and the time lost by looking in vain is bounded.

* `Polling`, for each reader of a backend: it looks for up to `POLL_TIME`, after one pass for the
  other tasks (more would make the look come late), and reads in a row are bounded, so that others
  run. This is QEMU's adaptive polling (``poll-max-ns`` of an iothread) with credit in place of its
  window.
* `Bursts`, for each of a bridge's fast paths: in a `Burst` the thread moves bytes again and again,
  and no other task runs until it ends, after `BURST` at most. If the other tasks have much to do,
  input comes late, and there are no bursts. If other programs have, a burst ends far too late,
  and counts as in vain.

While the fast paths are off (`trio_chardev.core.fast`) no credit suffices.
"""

from __future__ import annotations

import enum
import os
from time import perf_counter  # not Trio's clock, which a test may stop

from trio_chardev.core.fast import ways

SHORT = 4095  # bytes; a terminal gives no more at once (n_tty.c), whatever has come
READS_IN_A_ROW = 16  # by one reader, before other tasks run
TURN = 400e-6  # seconds of reading and handing over, after which they run, too

POLL_TIME = 100e-6  # seconds of looking; input that comes sooner earns credit
PRICE = 8  # of looking for POLL_TIME in vain, in inputs that came soon; also what is needed first
MAX_CREDIT = 4 * PRICE

QUICKLY = 200e-6  # seconds between two inputs that earn credit; a console that prints is slower
IN_A_ROW = 8  # quick inputs before the first burst
PAUSE = 16  # quick inputs before the next burst, after one in vain
BURST = 400e-6  # seconds; about as long as a reader's turn
IDLE = 200e-6  # seconds without success that end a burst
LATE = 1e-3  # seconds; a burst that ends so much too late did not have the processor meanwhile


class Credit:
    """What quick input has earned and looking in vain has cost."""

    __slots__ = ("_most", "_price", "balance")

    def __init__(self, *, needed: int, price: int, most: int) -> None:
        """*needed* must be earned first; no more than *most* on top of that is kept."""
        self.balance = -needed
        """What is left; looking does not pay while it is negative."""
        self._price = price
        self._most = most

    @property
    def suffices(self) -> bool:
        """Does looking pay?"""
        return self.balance >= 0 and ways.are_taken

    def earn(self) -> None:
        """Note that input has come quickly."""
        if self.balance < self._most:
            self.balance += 1

    def pay(self) -> None:
        """Note that a look was in vain."""
        self.balance -= self._price


class Next(enum.Enum):
    """What a reader does after a look."""

    LOOK = enum.auto()
    """Look again at once."""
    TURN = enum.auto()
    """Let other tasks run, then look again."""
    WAIT = enum.auto()
    """Wait for input."""


_LOOK, _TURN, _WAIT = Next  # to find a member by its name takes 0.1 us with Python 3.11


class Polling:
    """Tells the reader of one backend what to do after each look."""

    __slots__ = ("_credit", "_idle_since", "_is_on", "_now", "_reads", "_turn_began")

    def __init__(self, *, is_on: bool = True) -> None:
        """*is_on* says whether it is worthwhile to look again for input that has not come."""
        self._is_on = is_on
        self._credit = Credit(needed=PRICE, price=PRICE, most=MAX_CREDIT - PRICE)
        self._reads = 0  # in a row, since other tasks last ran
        self._now = self._turn_began = 0.0
        self._idle_since: float | None = None

    def look_begins(self) -> None:
        """Note the time: what a look finds may take long to be handed over."""
        self._now = perf_counter()
        if not self._reads:
            self._turn_began = self._now

    def look_ended(self, *, found: bool, is_all: bool = False) -> Next:
        """Decide what is next. *is_all* says that what was found is all that has come until now."""
        if not found:
            return self._after_nothing()
        if self._idle_since is not None:
            if self._now - self._idle_since < POLL_TIME:
                self._credit.earn()
            self._idle_since = None
        if is_all and not (self._is_on and self._credit.balance >= 0 and ways.are_taken):
            # Another look would be a system call in vain; if more has come, the wait ends at once.
            self._reads = 0
            self._idle_since = perf_counter()
            return _WAIT
        self._reads += 1
        if self._reads < READS_IN_A_ROW and perf_counter() - self._turn_began <= TURN:
            return _LOOK
        self._reads = 0
        return _TURN

    def _after_nothing(self) -> Next:
        reads, self._reads = self._reads, 0
        if not self._is_on or not self._looks_on():
            return _WAIT
        if reads:
            return _TURN
        os.sched_yield()
        return _LOOK

    def _looks_on(self) -> bool:
        """Is the input that has not come worth another look?"""
        if self._idle_since is None:
            self._idle_since = self._now
        elif self._now - self._idle_since >= POLL_TIME and self._credit.suffices:
            self._credit.pay()
            return False
        return self._credit.suffices


class Burst:
    """A time in which bytes are moved again and again; it begins now."""

    __slots__ = ("_last", "_until", "in_vain")

    def __init__(self) -> None:
        self._last = perf_counter()
        self._until = self._last + BURST
        self.in_vain = False
        """Did it end because nothing moved, or because other programs had the processor?"""

    def goes_on(self, *, moved: bool) -> bool:
        """Look again? *moved* says that the last look found something, so more may come at once."""
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
    """Decides when a burst may begin, for one flow of bytes or for two that answer each other."""

    __slots__ = ("_credit", "_last")

    def __init__(self) -> None:
        self._credit = Credit(needed=IN_A_ROW, price=PAUSE, most=0)
        self._last = 0.0

    def input_came(self) -> bool:
        """Note that input has come. May there be a burst now?"""
        now = perf_counter()
        is_quick = now - self._last < QUICKLY
        self._last = now
        if not is_quick:
            return False
        suffices = self._credit.suffices
        self._credit.earn()
        return suffices

    def ended(self, *, in_vain: bool) -> None:
        """Note the end of the burst that the last `input_came` allowed."""
        self._last = perf_counter()
        if in_vain:
            self._credit.pay()
