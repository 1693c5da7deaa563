"""What a monitor keeps of one client: what it has sent and is not answered, its descriptors."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs
import trio

from trio_chardev.backends.socket.http_guard import HttpGuard
from trio_chardev.qmp.commands.context import Context
from trio_chardev.qmp.json.codec import Decoder, Limits
from trio_chardev.qmp.server.session import Request

MESSAGE: Final = Limits(size=1 << 20, tokens=64 << 10)
"""Of one message. It is decoded, run and answered in a few steps, and others wait for each."""


@attrs.frozen
class PassedFds:
    """Descriptors in the backlog: those of the messages behind them."""

    fds: list[int]


@attrs.define(eq=False)
class MonitorClient:
    """What belongs to one connection and ends with it."""

    context: Context
    decoder: Decoder = attrs.Factory(lambda: Decoder(MESSAGE))
    http_guard: HttpGuard = attrs.Factory(HttpGuard)
    backlog: deque[object] = attrs.Factory(deque)
    """Messages that have come but are not taken yet."""
    queue: deque[Request] = attrs.Factory(deque)
    """Requests for the worker; the first is being run."""
    came: float = attrs.Factory(trio.current_time)
    is_leaving: bool = False
    """It sends no more, but may wait for answers."""
    is_read_on: bool = False
    """Its command takes so long that its leaving is looked for."""
    ahead: int = 0
    """Bytes that were taken while it was suspended."""
    pending: int = 0
    """About the bytes of the messages in `backlog` and `queue`."""

    def feed(self, data: bytes, pos: int) -> int:
        """Put messages that *data* has from *pos* on into the backlog; see `Decoder.feed_some`."""
        before = self.decoder.held
        end = self.decoder.feed_some(data, pos, self.backlog)
        self.pending += end - pos + max(0, before - self.decoder.held)
        return end

    @property
    def held(self) -> int:
        """Bytes that it has us keep: of messages, finished or not."""
        if not self.backlog and not self.queue:
            self.pending = 0
        return self.decoder.held + self.pending

    def set_fds_aside(self, *, first: bool) -> None:
        """Have descriptors wait with the messages that they came with."""
        if fds := self.context.take_read_fds():
            if first:
                self.backlog.appendleft(PassedFds(fds))
            else:
                self.backlog.append(PassedFds(fds))

    def close(self) -> None:
        """Close the descriptors that it has not taken."""
        for message in self.backlog:
            if isinstance(message, PassedFds):
                self.context.keep_passed(message.fds)
        self.context.keep_passed([])
