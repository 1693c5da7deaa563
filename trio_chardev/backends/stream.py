"""A backend on any `trio.abc.Stream`: for your own kinds, such as a process or an SSH channel.

Two tasks mediate between it and the core, which does not wait: one reads a piece ahead, the other
sends what was accepted. Until that is sent nothing more is accepted.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.leaving import Leaving
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.core.runner import CLEANUP_TIMEOUT, DRAIN_TIMEOUT
from trio_chardev.errors import BackendDisconnectedError

log = logging.getLogger(__name__)

MAX_PIECE = 1 << 16  # bytes that are read ahead, or accepted, at once


class StreamBackend(Backend):
    """Made by `open_stream`. It is open until the stream's end, or until it breaks."""

    def __init__(self, request: OpenRequest, stream: trio.abc.Stream, filename: str) -> None:
        super().__init__(request)
        self._stream = stream
        self._filename = filename
        self._received = b""
        self._to_send = b""
        self._takes_more = True  # the stream has not broken while sending
        self._looking = trio.lowlevel.ParkingLot()  # for bytes, or for room
        # What was accepted is sent even if the backend is cancelled; `open_stream` bounds that.
        self._sending = trio.CancelScope(shield=True)

    @property
    def filename(self) -> str:
        return self._filename

    @property
    def leaving(self) -> Leaving:
        return _StreamLeaving(self)

    def receive_nowait(self, max_bytes: int) -> bytes:
        data, self._received = self._received[:max_bytes], self._received[max_bytes:]
        if data and not self._received:
            self._looking.unpark_all()
        return data

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()
        while not self._received:
            await self._looking.park()

    def send_nowait(self, data: memoryview) -> int:
        if not (self.is_open and self._takes_more):
            raise BackendDisconnectedError(f"{self.filename} is closed")
        if self._to_send:
            return 0
        self._to_send = bytes(data[:MAX_PIECE])
        self._looking.unpark_all()
        return len(self._to_send)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._to_send and self.is_open and self._takes_more:
            await self._looking.park()

    @property
    def unsent(self) -> int:
        """How many accepted bytes the stream has not taken as a whole."""
        return len(self._to_send)

    async def read_ahead(self) -> None:
        """Read the stream, a piece at a time, until its end."""
        try:
            while data := await self._stream.receive_some(MAX_PIECE):
                self._received = bytes(data)
                self._looking.unpark_all()
                while self._received:
                    await self._looking.park()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            log.info("%s: it broke: %r", self.filename, exc, extra={"fields": {"chardev": self.id}})
        self._end()

    async def send_on(self) -> None:
        """Send what was accepted, until the stream breaks, or `give_up` is called."""
        try:
            with self._sending:
                while True:
                    while not self._to_send:
                        await self._looking.park()
                    await self._stream.send_all(self._to_send)
                    self._to_send = b""
                    self._looking.unpark_all()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            log.info(
                "%s: it takes no more: %r",
                self.filename,
                exc,
                extra={"fields": {"chardev": self.id}},
            )
            self.give_up()

    def give_up(self) -> None:
        """Send no more; tasks that wait to send find it closed."""
        self._sending.cancel()
        self._takes_more = False
        self._looking.unpark_all()

    def _end(self) -> None:
        self.set_open(False)
        self._looking.unpark_all()


class _StreamLeaving(Leaving):
    """A task may still be sending what was accepted."""

    def __init__(self, backend: StreamBackend) -> None:
        self._backend = backend

    @property
    def is_drained(self) -> bool:
        return not self._backend.unsent

    async def drain(self) -> None:
        await self._backend.wait_writable()


@asynccontextmanager
async def open_stream(
    request: OpenRequest, stream: trio.abc.Stream, filename: str
) -> AsyncIterator[Backend]:
    """Make a backend on *stream*, which it closes; *filename* is what query-chardev shows.

    It is for the opener of your own kind. When it is replaced, accepted bytes are sent for at most
    the change's `drain-timeout`; when it is closed, for 0.2 seconds. What has not been read from
    the stream by then is lost with it.
    """
    backend = StreamBackend(request, stream, filename)
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(backend.read_ahead)
            nursery.start_soon(backend.send_on)
            backend.set_open(True)
            try:
                yield backend
            finally:
                if backend.unsent:
                    with trio.move_on_after(DRAIN_TIMEOUT, shield=True):
                        await backend.leaving.drain()
                backend.give_up()
    finally:
        if unsent := backend.unsent:
            text = "%s: up to %d bytes that were sent to it are lost"
            log.warning(text, filename, unsent, extra={"fields": {"chardev": backend.id}})
        with trio.move_on_after(CLEANUP_TIMEOUT, shield=True):
            await stream.aclose()
