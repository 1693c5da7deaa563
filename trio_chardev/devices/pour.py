"""A fast path of a flow whose sink takes little at once, and more right after that.

A terminal does so: the kernel has room for some 8 KB, and where the terminal is one side of a PTY
and no real line, a kernel worker moves that to the other side, and its user reads it, within 50 us.
Waiting for room takes two passes of the scheduler. So after several short writes in a row,
whichever task made them offers the rest again at once, see `trio_chardev.core.look_again`; what is
then left has to wait, as on the plain path.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from trio_chardev.core.look_again import Burst, Bursts
from trio_chardev.devices.direction import Direction
from trio_chardev.errors import ChardevError


class Pour:
    """Offers the sink of *flow* again what it did not take."""

    __slots__ = ("_bursts", "_flow")

    def __init__(self, flow: Direction) -> None:
        self._flow = flow
        self._bursts = Bursts()

    def send_rest(self, rest: memoryview) -> int:
        """Send what the sink takes soon of *rest*, which it did not take at once.

        Returns how many bytes. Raises nothing: the flow's task will meet and handle the error.
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
