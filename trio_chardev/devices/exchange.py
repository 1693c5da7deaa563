"""A fast way of a bridge, for two flows that answer each other: small pieces, there and back.

Where both sides are plain sockets, a piece that has gone one way at once is followed by what
comes from either side in a burst, see `trio_chardev.core.look_again`: it is read from the one socket
and sent to the other directly, without the layers and the scheduler between. No other task runs
meanwhile, so nothing can come between, and what is looked at before the burst (`Frontend.direct`)
stays as it is. What is not as plain as that, such as a large piece, one that is not taken at once,
the end, an error, ends the burst and goes the plain way.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from trio_chardev.core.look_again import Burst, Bursts
from trio_chardev.devices.direction import Direction

PIECE = 1 << 10  # bytes; more at a time is for splicing, or for the plain way


class Way(NamedTuple):
    """One of the two directions."""

    source: socket.socket
    sink: socket.socket
    flow: Direction


class Exchange:
    """Sends on what comes from either of the two *flows* of a bridge."""

    def __init__(self, *flows: Direction) -> None:
        self._flows = flows
        self._bursts = Bursts()

    def piece_sent(self, flow: Direction, size: int) -> None:
        """*flow*, which is not at work, has sent all of the *size* bytes that came."""
        if size < PIECE and self._bursts.input_came():
            ways = self._ways(flow)
            # Where there can't be a burst this counts as one in vain: it is not tried each time.
            self._bursts.ended(in_vain=self._burst(*ways) if ways else True)

    def _ways(self, last: Direction) -> list[Way]:
        """Both directions, *last* behind the other, which is likely to be next; else none.

        None if one can't be direct, or is spliced.
        """
        ways = []
        for flow in sorted(self._flows, key=lambda flow: flow is last):
            source, sink = flow.source.direct, flow.sink.direct
            if flow.is_at_work or source is None or sink is None or source.pipe is not None:
                return []
            from_socket, to_socket = source.receive_socket, sink.send_socket
            if from_socket is None or to_socket is None:
                return []
            ways.append(Way(from_socket, to_socket, flow))
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
        flow.source.relay.put_back(data[sent:])
        flow.set_to_work()
    return sent if 0 < sent == len(data) < PIECE else None
