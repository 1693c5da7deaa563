"""The fast path of two flows that answer each other: small pieces, there and back.

Where both sides are plain sockets, a piece that has gone one way at once is followed by what
comes from either side in a burst, see `trio_chardev.core.bursts`: it is read from the one socket
and sent to the other directly, without the layers and the scheduler between. No other task runs
meanwhile, so nothing can come between, and what is looked at before the burst
(`Frontend.direct_source`, `direct_sink`) stays as it is. What is not as plain as that, such as a
large piece, one that is not taken at once, the end, an error, ends the burst and goes the plain
way.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from trio_chardev.core.bursts import Burst, Bursts
from trio_chardev.devices.direction import Direction

PIECE = 1 << 10  # bytes; more at a time is for splicing, or for the plain way


class Way(NamedTuple):
    """One of the two."""

    source: socket.socket
    sink: socket.socket
    flow: Direction


class Exchange:
    """Of the two flows of a bridge."""

    def __init__(self, *flows: Direction) -> None:
        self._flows = flows
        self._bursts = Bursts()

    def piece_sent(self, flow: Direction, size: int) -> None:
        """*flow*, which is not at work, has sent all of the *size* bytes that came."""
        if size < PIECE and self._bursts.input_came():
            ways = self._ways(flow)
            # If there can't be a burst that is not to be found out each time.
            self._bursts.ended(in_vain=self._burst(*ways) if ways else True)

    def _ways(self, last: Direction) -> list[Way]:
        """That of *last* and the other, which is likely to be next; [] if one can't be direct."""
        ways = []
        for flow in sorted(self._flows, key=lambda flow: flow is last):
            source, sink = flow.source.direct_source, flow.sink.direct_sink
            if flow.is_at_work or flow.source.pipe is not None or source is None or sink is None:
                return []
            ways.append(Way(source, sink, flow))
        return ways

    def _burst(self, way: Way, other: Way) -> bool:
        """Send on what comes, while it comes quickly. Was it in vain?"""
        burst = Burst()
        sent: int | None = 0
        while sent is not None and burst.goes_on(moved=sent > 0):
            sent = _send_on(way)
            if sent:
                os.sched_yield()  # to the one who has it now, and will answer
            way, other = other, way
        return burst.in_vain


def _send_on(way: Way) -> int | None:
    """Send on the piece that has come, if one has; how long it was.

    None: the plain way has to see what is next.
    """
    source, sink, flow = way
    try:
        data = source.recv(PIECE)
    except BlockingIOError:
        return 0
    except OSError:
        return None
    try:
        sent = sink.send(data, socket.MSG_NOSIGNAL) if data else 0
    except OSError:  # the flow's task meets it
        sent = 0
    flow.sent += sent
    if sent < len(data):
        flow.source.put_back(data[sent:])
        flow.set_to_work()
    return sent if 0 < sent == len(data) < PIECE else None
