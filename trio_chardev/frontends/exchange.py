"""The fast path of two flows that answer each other: small pieces, there and back.

Where both sides are plain sockets, a piece that has gone one way at once is followed by what
comes from either side within a nap, see `trio_chardev.core.naps`: it is read from the one
socket and sent to the other directly, without the layers and the scheduler between. No other
task runs meanwhile, so nothing can come between, and what is looked at before the burst
(`Frontend.direct_source`, `direct_sink`) stays as it is. What is not as plain as that, such as a
large piece, one that is not taken at once, the end, an error, ends the burst and goes the plain
way.

A nap is of use where the kernel runs the peer on the same processor. If it does not, each piece
wakes another processor up, and looking again and again (`trio_chardev.core.polling`) is quicker:
then there are no bursts for a while.
"""

from __future__ import annotations

import socket
from time import perf_counter
from typing import TYPE_CHECKING

from trio_chardev.core.naps import BURST, Naps, nap

if TYPE_CHECKING:
    from trio_chardev.frontends.flow import Flow

PIECE = 1 << 10  # bytes; more at a time is for splicing, or for the plain way
SLOW = 30e-6  # seconds a piece; 5 on one processor, 50 if each nap has another one woken up

Ways = dict[int, tuple[socket.socket, socket.socket, "Flow"]]
"""By the descriptor of a source: that source, its sink, its flow."""


class Exchange:
    """Of the two flows of a bridge."""

    def __init__(self, *flows: Flow) -> None:
        self._flows = flows
        self._naps = Naps(SLOW)

    def piece_sent(self, size: int) -> None:
        """A flow that is not at work has sent all of the *size* bytes that came."""
        if size < PIECE and self._naps.input_came():
            if ways := self._ways():
                self._burst(ways)
            else:
                self._naps.ended(0, in_vain=True)  # not to look each time

    def _ways(self) -> Ways:
        """Empty if one of the flows has to go the plain way."""
        ways: Ways = {}
        for flow in self._flows:
            source, sink = flow.source.direct_source, flow.sink.direct_sink
            if flow.is_at_work or flow.source.pipe is not None or source is None or sink is None:
                return {}
            ways[source.fileno()] = (source, sink, flow)
        return ways

    def _burst(self, ways: Ways) -> None:
        """Send on what comes, while it comes quickly."""
        until = perf_counter() + BURST
        sources = tuple(ways)
        pieces = 0
        is_plain = True
        while is_plain and perf_counter() < until:
            if not (ready := nap(sources)[0]):
                return self._naps.ended(pieces, in_vain=True)
            pieces += len(ready)
            for fd in ready:
                is_plain &= _send_on(*ways[fd])
        return self._naps.ended(pieces, in_vain=False)


def _send_on(source: socket.socket, sink: socket.socket, flow: Flow) -> bool:
    """Send on the piece that has come. False: the plain way has to see what is next."""
    try:
        data = source.recv(PIECE)
    except OSError:
        return False
    try:
        sent = sink.send(data, socket.MSG_NOSIGNAL) if data else 0
    except OSError:  # the flow's task meets it
        sent = 0
    flow.sent += sent
    if sent < len(data):
        flow.source.put_back(data[sent:])
        flow.set_to_work()
    return 0 < sent == len(data) < PIECE
