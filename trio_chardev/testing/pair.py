"""A backend and its peer: how both are made, and what a check does at each end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.events import BackendEvent, Event

STUCK_AFTER = 0.02  # seconds without progress after which a sender counts as stuck
STUCK_BELOW = 1 << 26  # bytes; more than any kernel buffers
EVERY_BYTE = bytes(range(256))
END = b"<end>"
BULK = EVERY_BYTE * 256  # 64 KiB

Join = Callable[[Backend], Awaitable[trio.abc.AsyncResource]]
"""Makes the peer of an open backend: connects to its socket, opens its PTY."""


@attrs.frozen(kw_only=True)
class Pair:
    """How to open a backend, and how to make its peer."""

    open: Opener

    join: Join | None = None
    """Makes the peer; None if there never is one.

    A peer that is a `trio.abc.SendStream` sends to the backend, one that is a
    `trio.abc.ReceiveStream` receives from it; closing it means leaving.
    """

    blocks: bool = True
    """Does sending wait for a peer that does not receive?"""

    closes: bool = True
    """Does the backend report CLOSED when the peer leaves?"""

    keeps: bool = True
    """Can what the peer sent be received after it has left? False for a line that hangs up."""

    folder: str | None = None
    """The folder in which opening makes files, if it does."""


@attrs.define(eq=False, repr=False)
class Session:
    """An open backend."""

    seen: list[BackendEvent | bytes] = attrs.Factory(list)
    """The events, and the bytes that `read_until` got, in order."""

    backend: Backend = attrs.field(init=False)
    peer: trio.abc.AsyncResource | None = None
    _reading: trio.CancelScope = attrs.Factory(trio.CancelScope)
    _until: Event | None = None

    def on_event(self, event: BackendEvent) -> None:
        self.seen.append(event)
        if event is self._until:
            self._reading.cancel()

    def check_state(self) -> None:
        """Assert what always holds."""
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
        data = await receive_some(self.backend, max_bytes)
        assert 1 <= len(data) <= max_bytes, f"{len(data)} bytes for max_bytes={max_bytes}"
        return data

    async def receive_to_end(self, max_bytes: int = 1 << 16) -> bytes:
        """Receive what the peer sends before `END`."""
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
        """Send all of *data*, by both calls in turn."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.send_nowait(rest) :]
            if rest:
                rest = rest[await self.send_some(rest) :]

    async def fill(self) -> int:
        """Send until that is stuck, and cancel the last send; return how many bytes were sent."""
        sent = 0
        while sent < STUCK_BELOW:
            bulk = memoryview(BULK)[sent % len(BULK) :]
            with trio.move_on_after(STUCK_AFTER) as cut:
                sent += await self.send_some(bulk)
            if cut.cancelled_caught:
                return sent
        raise AssertionError("it takes everything")

    async def peer_receives_to_end(self) -> bytes:
        """Have the peer receive what is sent before `END`."""
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
    """Open a backend, put it in place, and make its peer, if it can have one."""
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


async def receive_some(backend: Backend, max_bytes: int) -> bytes:
    """Wait, through disconnects too, for 1 to *max_bytes* bytes, as a chardev does.

    If cancelled, it has consumed nothing. Raises BackendError when the backend is dead.
    """
    await trio.lowlevel.checkpoint()
    while not (data := backend.receive_nowait(max_bytes)):
        await backend.wait_readable()
    return data
