"""What a monitor sends to its client: replies and events, in one queue.

`flush` sends at once what the peer takes; the task of `run` sends the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import attrs
import trio

from trio_chardev.core.frontend import Frontend
from trio_chardev.errors import BackendDisconnectedError, ChardevClosedError, ChardevError
from trio_chardev.qmp.json.codec import encode, encode_pretty
from trio_chardev.readiness import RETRY_INTERVAL

log = logging.getLogger(__name__)

SEND_CHUNK = 1 << 16  # bytes
FLUSH_CHUNK = 1 << 20  # bytes; far more than a socket takes at once
ON_LEAVING = BackendDisconnectedError, ChardevClosedError, trio.ClosedResourceError


@attrs.define(eq=False, repr=False)
class Output:
    """The output queue; its length is in bytes."""

    pretty: bool = False
    frontend: Frontend | None = None
    """Where the output goes; None while there is no frontend yet."""
    on_put: Callable[[dict[str, Any]], None] | None = None
    """Called with each message."""
    _trouble: str = attrs.field(default="", init=False)
    _unsent: bytearray = attrs.field(factory=bytearray, init=False)
    _client: object = attrs.field(factory=object, init=False)  # replaced when the client changes
    _send_scope: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _writer: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _drained: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __len__(self) -> int:
        return len(self._unsent)

    def put(self, message: dict[str, Any]) -> None:
        """Append *message*; `flush` sends it."""
        self._unsent += encode_pretty(message) if self.pretty else encode(message)
        if self.on_put is not None:
            self.on_put(message)

    def flush(self) -> None:
        """Send what the peer takes at once."""
        if not self._unsent or self.frontend is None:
            return
        client = self._client
        try:
            sent = self.frontend.try_send(bytes(self._unsent[:FLUSH_CHUNK]))
        except ON_LEAVING:
            sent = len(self._unsent)  # the client has left: CLOSED comes soon, or came just now
        except ChardevError:
            sent = 0  # `run` tries again
        if client is self._client:
            del self._unsent[:sent]
        if self._unsent:
            self._writer.unpark_all()
        elif self._drained:
            self._drained.unpark_all()

    def clear(self) -> None:
        """Drop the output of a client that has gone; what is put from now on is for the next."""
        self._client = object()
        self._unsent.clear()
        self._send_scope.cancel()
        self._drained.unpark_all()

    async def wait_drained(self) -> None:
        """Wait until all is sent."""
        while self._unsent:
            await self._drained.park()

    async def run(self, on_sent: Callable[[], None]) -> None:
        """Send what `flush` could not; *on_sent* is called whenever some of it was sent."""
        assert self.frontend is not None
        while True:
            if not self._unsent:
                self._drained.unpark_all()
                await self._writer.park()
                on_sent()  # `flush` may have sent it meanwhile, or that client is gone
                continue
            client = self._client
            sent = 0
            with trio.CancelScope() as self._send_scope:
                try:
                    sent = await self.frontend.send_some(bytes(self._unsent[:SEND_CHUNK]))
                except ON_LEAVING:
                    sent = len(self._unsent)
                except ChardevError as exc:
                    self._tell(exc)
                    await trio.sleep(RETRY_INTERVAL)
                else:
                    self._trouble = ""
            if client is self._client:  # else the queue has the output of another client
                del self._unsent[:sent]
            on_sent()

    def _tell(self, error: ChardevError) -> None:
        """Log *error*, but only once if it repeats."""
        if str(error) != self._trouble:
            self._trouble = str(error)
            id = "" if self.frontend is None else self.frontend.id
            log.warning("monitor '%s': %s; trying again each second", id, error)
