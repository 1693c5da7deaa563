"""A backend and its peer: how both are made, and what a check does at either end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.events import BackendEvent, Event

STUCK_AFTER = 0.02  # seconds; a sender that gets no further for so long is stuck
STUCK_BELOW = 1 << 26  # bytes; no kernel buffers that many
EVERY_BYTE = bytes(range(256))
END = b"<end>"
BULK = EVERY_BYTE * 256  # 64 KiB

Join = Callable[[Backend], Awaitable[trio.abc.AsyncResource]]
"""Comes to the other end of a backend that is open: connects to it, opens its PTY."""


@attrs.frozen(kw_only=True)
class Pair:
    """A backend that can be opened, and the peer that can come to it."""

    open: Opener

    join: Join | None = None
    """Gives the peer; None if there never is one.

    A `trio.abc.SendStream` sends to the backend, a `trio.abc.ReceiveStream` receives from it,
    and closing it is leaving.
    """

    blocks: bool = True
    """Sending waits for a peer that does not receive."""

    closes: bool = True
    """The backend reports CLOSED when the peer leaves."""

    keeps: bool = True
    """What the peer has sent before it left can be received; not so where a line hangs up."""

    folder: str | None = None
    """Where opening makes its files, if it does."""


@attrs.define(eq=False)
class Session:
    """A backend that is open."""

    seen: list[BackendEvent | bytes] = attrs.Factory(list)
    """What a reader meets: the events, and the bytes that `read` got, in order."""

    backend: Backend = attrs.field(init=False)
    peer: trio.abc.AsyncResource | None = None
    _reading: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _until: Event | None = None

    def on_event(self, event: BackendEvent) -> None:
        self.seen.append(event)
        if event is self._until:
            self._reading.cancel()

    def check_state(self) -> None:
        """What always holds."""
        openness = [event for event in self.seen if event in (Event.OPENED, Event.CLOSED)]
        in_turn = [Event.CLOSED if i % 2 else Event.OPENED for i in range(len(openness))]
        assert openness == in_turn, f"OPENED and CLOSED do not alternate: {openness}"
        assert self.backend.is_open == (openness[-1:] == [Event.OPENED]), "is_open does not follow"
        assert isinstance(self.backend.filename, str)

    async def read_until(self, event: Event) -> None:
        """Read as a chardev does, until *event* was reported."""
        self._until = event
        with trio.CancelScope() as self._reading:
            while True:
                self.seen.append(await self.receive_some(1 << 16))

    async def receive_some(self, max_bytes: int) -> bytes:
        data = await self.backend.receive_some(max_bytes)
        assert 1 <= len(data) <= max_bytes, f"{len(data)} bytes for max_bytes={max_bytes}"
        return data

    async def receive_to_end(self, max_bytes: int = 1 << 16) -> bytes:
        """What comes before `END`, to the chardev."""
        data = b""
        while not data.endswith(END):
            data += await self.receive_some(max_bytes)
        return data.removesuffix(END)

    def send_nowait(self, data: bytes | memoryview) -> int:
        sent = self.backend.send_nowait(memoryview(data))
        assert 0 <= sent <= len(data), f"says that it has sent {sent} of {len(data)} bytes"
        return sent

    async def send_some(self, data: bytes | memoryview) -> int:
        sent = await self.backend.send_some(memoryview(data))
        assert 1 <= sent <= len(data), f"says that it has sent {sent} of {len(data)} bytes"
        return sent

    async def send(self, data: bytes) -> None:
        """All of *data*, by either call in turn."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.send_nowait(rest) :]
            if rest:
                rest = rest[await self.send_some(rest) :]

    async def fill(self) -> int:
        """Send until nothing goes any more; how much went. Its last send was cancelled."""
        sent = 0
        while sent < STUCK_BELOW:
            bulk = memoryview(BULK)[sent % len(BULK) :]
            with trio.move_on_after(STUCK_AFTER) as cut:
                sent += await self.send_some(bulk)
            if cut.cancelled_caught:
                return sent
        raise AssertionError("it takes everything")

    async def peer_receives_to_end(self) -> bytes:
        """What comes before `END`, to the peer."""
        assert isinstance(self.peer, trio.abc.ReceiveStream)
        data = bytearray()
        while not data.endswith(END):
            more = await self.peer.receive_some()
            assert more, f"the end is missing after {len(data)} bytes"
            data += more
        return bytes(data.removesuffix(END))


@asynccontextmanager
async def opened(pair: Pair) -> AsyncIterator[Session]:
    session = Session()
    request = OpenRequest(id="contract", on_event=session.on_event)
    async with pair.open(request) as session.backend:
        session.check_state()
        yield session
        session.check_state()
    assert isinstance(session.backend.filename, str), "a log line may name it once it is closed"


@asynccontextmanager
async def in_use(pair: Pair) -> AsyncIterator[Session]:
    """In place, with the peer there, if there can be one."""
    async with opened(pair) as session:
        session.backend.activate()
        if pair.join is not None:
            session.peer = await pair.join(session.backend)
        try:
            if pair.join is not None and not session.backend.is_open:
                await session.read_until(Event.OPENED)
            yield session
        finally:
            if session.peer is not None:
                await trio.aclose_forcefully(session.peer)
