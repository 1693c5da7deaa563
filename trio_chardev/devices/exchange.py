"""A fast path of a bridge, for two flows that answer each other: small pieces, there and back.

Where both sides are plain sockets, after a piece was sent on whole at once, what comes next from
either side is sent on in a burst, see `trio_chardev.core.look_again`: it is read from one socket
and sent to the other directly, without the layers and the scheduler in between. No other task runs
meanwhile, so nothing can be inserted, and what is checked before the burst (`Frontend.direct`)
stays true. Anything else, such as a large piece, one that is not taken at once, the end, or an
error, ends the burst and takes the plain path.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from trio_chardev.core.backend import Backend
from trio_chardev.core.counts import Counts
from trio_chardev.core.look_again import Burst, Bursts
from trio_chardev.devices.direction import Direction

PIECE = 1 << 10  # bytes; longer pieces are spliced, or take the plain path


class Way(NamedTuple):
    """One of the two directions, by its sockets."""

    source: socket.socket
    sink: socket.socket
    flow: Direction
    source_counts: Counts
    sink_counts: Counts


class Exchange:
    """Sends on what comes from either source of the two *flows* of a bridge."""

    def __init__(self, *flows: Direction) -> None:
        self._flows = flows
        self._bursts = Bursts()
        self.is_possible = True
        """Are there sockets at both sides, as far as the kinds of the backends tell?"""

    def look_anew(self) -> None:
        """Note that one of the backends may be another."""
        kinds = [type(flow.source.backend) for flow in self._flows]
        self.is_possible = all(kind.direct is not Backend.direct for kind in kinds)

    def piece_sent(self, flow: Direction, size: int) -> None:
        """*flow*, whose task is not sending, has sent all of the *size* bytes that came."""
        if size < PIECE and self._bursts.input_came():
            ways = self._ways(flow)
            # Without ways count a burst in vain, so that they are not looked for each time.
            self._bursts.ended(in_vain=self._burst(*ways) if ways else True)

    def _ways(self, last: Direction) -> list[Way]:
        """Return both directions, *last* second, as the other one is likely to be next.

        Returns none if one of them can't be direct, or is spliced.
        """
        ways = []
        for flow in sorted(self._flows, key=lambda flow: flow is last):
            source, sink = flow.source.direct, flow.sink.direct
            if flow.is_at_work or source is None or sink is None or source.pipe is not None:
                return []
            from_socket, to_socket = source.receive_socket, sink.send_socket
            if from_socket is None or to_socket is None:
                return []
            ways.append(Way(from_socket, to_socket, flow, source.counts, sink.counts))
        return ways

    def _burst(self, way: Way, other: Way) -> bool:
        """Send on what comes, while it comes quickly. Returns whether the burst was in vain."""
        burst = Burst()
        sent: int | None = 0
        while sent is not None and burst.goes_on(moved=sent > 0):
            sent = _send_on(way)
            if sent:
                os.sched_yield()  # to the process that has it now, and will answer
            way, other = other, way
        return burst.in_vain


def _send_on(way: Way) -> int | None:
    """Send on the piece that has come, if there is one. Returns its size.

    None means that the plain path has to handle what comes next.
    """
    source, sink, flow, source_counts, sink_counts = way
    try:
        data = source.recv(PIECE)
    except BlockingIOError:
        return 0
    except OSError:
        return None
    try:
        sent = sink.send(data, socket.MSG_NOSIGNAL) if data else 0
    except OSError:  # the flow's task will meet and handle it
        sent = 0
    source_counts.received += len(data)
    flow.sent += sent
    sink_counts.sent += sent
    if sent < len(data):
        flow.source.relay.put_back(data[sent:])
        flow.set_to_work()
    return sent if 0 < sent == len(data) < PIECE else None
