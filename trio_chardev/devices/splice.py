"""The fast path of a flow: splice(2) moves its bytes, while nothing has to look at them.

It begins after a few large reads, where both backends are plain sockets, and ends with a few
small ones, for which a pipe would only be more system calls; or when anything is in the way: a
log, a protocol, an error, a closed or changed side. Then what is in the pipe goes the plain
way. As the pipe is the front of the source's queue (`InboxQueue.pipe`), the order of bytes and
events, changes and limits are those of the plain way.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from trio_chardev.core.bursts import Bursts
from trio_chardev.core.splicing import CannotSplice
from trio_chardev.devices.direction import Direction
from trio_chardev.errors import ChardevError

LARGE = 1 << 15  # bytes; half of what one plain read gives at most
SMALL = 1 << 13  # bytes
IN_A_ROW = 4  # reads; so many decide


class Splicing:
    """Of one flow."""

    def __init__(self, flow: Direction) -> None:
        self._flow = flow
        self._in_a_row = 0
        self._bursts = Bursts()

    def note_read(self, size: int) -> None:
        """One plain read has brought *size* bytes, while nothing else was waiting."""
        if size < LARGE:
            if size < SMALL:
                self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row == IN_A_ROW:
            self._in_a_row = 0
            self._start()

    def _start(self) -> None:
        if self._flow.source.can_splice and self._flow.sink.can_splice:
            with suppress(OSError):  # no descriptor to spare
                self._flow.source.open_pipe(self._on_piped)

    def _on_piped(self, size: int) -> None:
        """The ``on_piped`` of the source: *size* bytes have come."""
        flow = self._flow
        if not flow.is_at_work:
            self._move()
        if (pipe := flow.source.pipe) is None:
            return
        if pipe:
            flow.set_to_work()
        if size >= SMALL:
            self._in_a_row = 0
        elif size:
            self._in_a_row += 1
            if self._in_a_row >= IN_A_ROW and not pipe:
                self._stop()

    def _move(self) -> int:
        """Have the sink take what it takes at once, and what goes on coming, if it does."""
        return (self._bursts.input_came() and self._stream()) or self._splice()

    def _stream(self) -> int:
        """Move on without turns of the scheduler between, see `bursts`; 0 where that can't be."""
        flow = self._flow
        source, pipe, sink = flow.source.direct_source, flow.source.pipe, flow.sink.direct_sink
        if source is None or pipe is None or sink is None:
            return 0
        passed, in_vain = pipe.stream(source.fileno(), sink.fileno())
        flow.sent += passed
        self._bursts.ended(in_vain=in_vain)
        return passed

    def _splice(self) -> int:
        """Have the sink take what it takes at once of the pipe; if it can't, close the pipe."""
        flow = self._flow
        if not (pipe := flow.source.pipe):
            return 0
        try:
            sent = flow.sink.splice_nowait(pipe)
        except (CannotSplice, ChardevError, trio.ClosedResourceError):
            self._stop()
            flow.set_to_work()
            return 0
        flow.sent += sent
        return sent

    def _stop(self) -> None:
        self._in_a_row = 0
        self._flow.source.close_pipe()

    async def push(self) -> bool:
        """Have the sink take some of the pipe. False: there is nothing for it to take."""
        if not self._flow.source.pipe:
            return False
        if self._move():
            await trio.lowlevel.checkpoint()
        elif self._flow.source.pipe:
            try:
                await self._flow.sink.wait_send_all_might_not_block()
            except ChardevError:
                self._stop()
        return True
