"""A monitor's state for one client: messages that are not answered yet, and descriptors."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs
import trio

from trio_chardev.backends.socket.http_guard import HttpGuard
from trio_chardev.qmp.commands.context import Context
from trio_chardev.qmp.json.codec import Decoder, Limits, Malformed
from trio_chardev.qmp.server.session import NOTHING, QmpError, Request

MESSAGE: Final = Limits(size=1 << 20, tokens=64 << 10)
"""The limits of one message: it is decoded, run and answered in a few steps, while others wait."""


@attrs.frozen(repr=False)
class PassedFds:
    """An entry of the backlog: descriptors that belong to the messages after it."""

    fds: list[int]


@attrs.define(eq=False, repr=False)
class MonitorClient:
    """The state of one connection."""

    context: Context
    who: str = ""
    """Its process and user, or its address."""
    decoder: Decoder = attrs.Factory(lambda: Decoder(MESSAGE))
    http_guard: HttpGuard = attrs.Factory(HttpGuard)
    backlog: deque[object] = attrs.Factory(deque)
    """Messages that were decoded but not taken yet."""
    queue: deque[Request] = attrs.Factory(deque)
    """Requests for the worker; the first is being run."""
    came: float = attrs.Factory(trio.current_time)
    is_leaving: bool = False
    """Has it sent its last, though it may wait for answers?"""
    is_read_on: bool = False
    """Does its command take so long that input is read to notice whether it leaves?"""
    ahead: int = 0
    """Bytes that were read while it was suspended."""
    pending: int = 0
    """About how many bytes the messages in `backlog` and `queue` had."""

    def feed(self, data: bytes, pos: int) -> int:
        """Decode *data* from *pos* on into the backlog; see `Decoder.feed_some`."""
        before = self.decoder.held
        end = self.decoder.feed_some(data, pos, self.backlog)
        self.pending += end - pos + max(0, before - self.decoder.held)
        return end

    def next_request(self) -> Request | None:
        """Take the next entry of the backlog; None if it was no message."""
        message = self.backlog.popleft()
        if isinstance(message, PassedFds):
            self.context.keep_passed(message.fds)
            return None
        if isinstance(message, Malformed):
            return Request("", {}, NOTHING, error=QmpError(message.desc))
        return self.context.session.parse(message)

    @property
    def held(self) -> int:
        """How many bytes are kept for it, as messages finished or not."""
        if not self.backlog and not self.queue:
            self.pending = 0
        return self.decoder.held + self.pending

    def set_fds_aside(self, *, first: bool) -> None:
        """Put received descriptors into the backlog, before or after the messages there."""
        if fds := self.context.take_read_fds():
            if first:
                self.backlog.appendleft(PassedFds(fds))
            else:
                self.backlog.append(PassedFds(fds))

    def close(self) -> None:
        """Close the descriptors that no command has taken."""
        for message in self.backlog:
            if isinstance(message, PassedFds):
                self.context.keep_passed(message.fds)
        self.context.keep_passed([])
