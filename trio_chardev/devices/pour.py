"""The fast path of a flow whose sink takes little at once, and more at once after that.

So does a terminal: the kernel has room for some 8 KB, and where it is no real line but one side of
a PTY its worker has carried that to the other side, and its user read it, within 50 us. To wait for
room takes two turns of the scheduler. So where little was taken a few times in a row who has sent
that, the task that brings the bytes or the flow's, offers the rest again, see
`trio_chardev.core.bursts`; what is left then has to wait, as all else does.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from trio_chardev.core.bursts import Burst, Bursts
from trio_chardev.devices.direction import Direction
from trio_chardev.errors import ChardevError


class Pour:
    """Of one flow."""

    def __init__(self, flow: Direction) -> None:
        self._flow = flow
        self._bursts = Bursts()

    def send_rest(self, rest: memoryview) -> int:
        """Have the sink take of *rest*, which it did not take at once, what it soon takes.

        How many bytes that is. It never raises: what is wrong the flow's task finds out.
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
