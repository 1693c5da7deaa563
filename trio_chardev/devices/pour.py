"""A fast way of a flow whose sink takes little at once, and more right after that.

A terminal does so: the kernel has room for some 8 KB, and where the terminal is no real line but one
side of a PTY, its worker carries that to the other side, and its user reads it, within 50 us. To
wait for room takes two turns of the scheduler. So after several short writes in a row, whichever task
made them offers the rest again at once, see `trio_chardev.core.look_again`; what is left then has to
wait, as all else does.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from trio_chardev.core.look_again import Burst, Bursts
from trio_chardev.devices.direction import Direction
from trio_chardev.errors import ChardevError


class Pour:
    """Offers the sink of *flow* again what it did not take."""

    def __init__(self, flow: Direction) -> None:
        self._flow = flow
        self._bursts = Bursts()

    def send_rest(self, rest: memoryview) -> int:
        """Have the sink take of *rest*, which it did not take at once, what it takes soon.

        Returns how many bytes that is. It never raises: the flow's task finds out what is wrong.
        """
        if not self._bursts.input_came():
            return 0
        sent = 0
        moved = False
        burst = Burst()
        with suppress(ChardevError, trio.ClosedResourceError):
            while sent < len(rest) and burst.goes_on(moved=moved):
                taken = self._flow.sink.try_send(rest[sent:])
                sent += taken
                moved = taken > 0
        self._bursts.ended(in_vain=burst.in_vain)
        return sent
