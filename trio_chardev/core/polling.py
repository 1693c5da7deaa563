"""When to look again for input before sleeping until it comes.

To sleep in epoll and to be woken takes 40 us and more, most of it the kernel's, and a peer
that sends its next command when it has the answer to the last needs about as long. So a
backend whose input keeps coming within `POLL_TIME` is looked at again and again instead, after
one turn for the other tasks: more would make the look come late. Between looks the thread gives
the processor up. It is QEMU's adaptive polling (``poll-max-ns`` of an iothread) with a budget in
place of its window: a short wait earns credit, looking in vain costs `PRICE`.

So a line that is idle or slow is not looked at, and looking in vain costs no more than
POLL_TIME / PRICE for each time that input came.
"""

from __future__ import annotations

from time import perf_counter

from trio_chardev.core.fast import ways

POLL_TIME = 100e-6  # seconds
PRICE = 8  # short waits that earn one look in vain, POLL_TIME long
MAX_CREDIT = 4 * PRICE


class Polling:
    """Of one backend. The clock is not Trio's, which a test may stop."""

    __slots__ = ("_credit", "_idle_since")

    def __init__(self) -> None:
        self._credit = 0
        self._idle_since: float | None = None

    def looks_again(self) -> bool:
        """Nothing has come: look again soon, rather than sleep until it comes?"""
        now = perf_counter()
        if self._idle_since is None:
            self._idle_since = now
        elif self._credit >= PRICE and now - self._idle_since >= POLL_TIME:
            self._credit -= PRICE
            return False
        return self._credit >= PRICE and ways.are_taken

    def input_came(self) -> None:
        """Take note of how long it took."""
        if self._idle_since is not None:
            if perf_counter() - self._idle_since < POLL_TIME and self._credit < MAX_CREDIT:
                self._credit += 1
            self._idle_since = None
