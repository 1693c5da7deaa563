"""A fast path of a flow: splice(2) moves its bytes, while nothing has to look at them.

It begins after a few large reads, where both backends are plain sockets. It ends with a few
small ones, for which a pipe would only cost more system calls, or when anything else is needed: a
log, a protocol, an error, a closed or changed side. Then what is in the pipe takes the plain
path. As the pipe is an item of the source's queue (`InboxQueue.open_pipe`), the order of bytes and
events, changes and limits are those of the plain path.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from trio_chardev.core.direct_path import DirectPath
from trio_chardev.core.look_again import Bursts
from trio_chardev.core.splicing import CannotSplice, SplicePipe
from trio_chardev.devices.direction import Direction
from trio_chardev.errors import ChardevError

LARGE = 1 << 15  # bytes; half of what one plain read gives at most
SMALL = 1 << 13  # bytes
IN_A_ROW = 4  # reads, after which splicing begins or ends


class Splicing:
    """Splices the bytes of *flow*."""

    __slots__ = ("_bursts", "_flow", "_in_a_row")

    def __init__(self, flow: Direction) -> None:
        self._flow = flow
        self._in_a_row = 0
        self._bursts = Bursts()

    def note_read(self, size: int) -> None:
        """Note that a plain read has brought *size* bytes, while nothing else was waiting."""
        if size < LARGE:
            if size < SMALL:
                self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row == IN_A_ROW:
            self._in_a_row = 0
            self._start()

    def _start(self) -> None:
        source, sink = self._flow.source.direct, self._flow.sink.direct
        if source is not None and sink is not None:
            with suppress(OSError):  # no descriptor to spare
                source.open_pipe(self._on_piped)

    def _stop(self) -> None:
        self._in_a_row = 0
        if (source := self._flow.source.direct) is not None:  # else the inbox closes it
            source.close_pipe()

    def _pipe(self) -> SplicePipe | None:
        """Return the pipe, if there is something in it for the sink."""
        source = self._flow.source.direct
        return (source.pipe or None) if source is not None else None

    def _on_piped(self, size: int) -> None:
        """Move on *size* bytes that came into the pipe; 0 if only bytes from before are in it."""
        flow = self._flow
        if not flow.is_at_work:
            self._move()
        if (source := flow.source.direct) is None:
            flow.set_to_work()  # which takes what is in the pipe
            return
        if source.pipe is None:
            return
        if source.pipe:
            flow.set_to_work()
        if size >= SMALL:
            self._in_a_row = 0
        elif size:
            self._in_a_row += 1
            if self._in_a_row >= IN_A_ROW and not source.pipe:
                self._stop()

    def _move(self) -> int:
        """Move to the sink what it takes at once, and in a burst what goes on coming."""
        return (self._bursts.input_came() and self._stream()) or self._splice()

    def _stream(self) -> int:
        """Move bytes on in a burst, without the scheduler in between; 0 if that is impossible."""
        flow = self._flow
        source, sink = flow.source.direct, flow.sink.direct
        if source is None or source.pipe is None or sink is None:
            return 0
        from_socket, to_socket = source.receive_socket, sink.send_socket
        if from_socket is None or to_socket is None:
            return 0
        waiting = len(source.pipe)
        passed, in_vain = source.pipe.stream(from_socket.fileno(), to_socket.fileno())
        flow.sent += passed
        sink.counts.sent += passed
        source.counts.received += passed + len(source.pipe) - waiting
        self._bursts.ended(in_vain=in_vain)
        return passed

    def _splice(self) -> int:
        """Move to the sink what it takes of the pipe at once; close the pipe if it can't."""
        flow = self._flow
        if (pipe := self._pipe()) is None:
            return 0
        try:
            sent = _sendable(flow).send_from(pipe)
        except (CannotSplice, ChardevError, trio.ClosedResourceError):
            self._stop()
            flow.set_to_work()
            return 0
        flow.sent += sent
        return sent

    async def push(self) -> bool:
        """Move some of the pipe to the sink. Returns False if there is nothing to move."""
        if self._pipe() is None:
            return False
        if self._move():
            await trio.lowlevel.checkpoint()
        elif self._pipe() is not None:
            try:
                await self._flow.sink.wait_send_all_might_not_block()
            except ChardevError:
                self._stop()
        return True


def _sendable(flow: Direction) -> DirectPath:
    """Return the sink's direct path. Raises CannotSplice if its bytes have to be looked at."""
    if (sink := flow.sink.direct) is None:
        raise CannotSplice
    return sink
