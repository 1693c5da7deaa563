"""A chardev on a fake device, and a frontend that records its events and bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.events import BackendEvent
from trio_chardev.testing.device import FakeDevice


@asynccontextmanager
async def open_chardev(device: FakeDevice, id: str = "serial0") -> AsyncIterator[Chardev]:
    """Open a chardev on *device*; it is closed when the block ends."""
    chardev = Chardev(id)
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        try:
            await chardev.open(device.open)
            yield chardev
        finally:
            nursery.cancel_scope.cancel()


@attrs.define(eq=False, repr=False)
class FakeFrontend:
    """Handlers for `Chardev.attach` that record their calls, and can refuse a device."""

    refuses: FakeDevice | None = None
    hangs_at: FakeDevice | None = None
    """The device at which be_change never returns."""
    steps: int = 2
    """Checkpoints that be_change takes."""
    bound: str | None = None
    """The file name of the backend that it is set up for; None during be_change."""
    events: list[BackendEvent] = attrs.Factory(list)
    seen: list[object] = attrs.Factory(list)
    """The events, the bytes, and the file names given to be_change, in order."""
    appetite: int | None = None
    """How many bytes `on_receive` still takes; None means all."""

    def on_event(self, event: BackendEvent) -> None:
        """See `trio_chardev.core.handlers.OnEvent`."""
        self.events.append(event)
        self.seen.append(event)

    def on_receive(self, data: bytes) -> int:
        """See `trio_chardev.core.handlers.OnReceive`."""
        taken = data[: self.appetite]
        if self.appetite is not None:
            self.appetite -= len(taken)
        if taken:
            self.seen.append(taken)
        return len(taken)

    async def be_change(self, backend: Controls) -> None:
        """See `trio_chardev.core.handlers.BeChange`."""
        self.bound = None
        self.seen.append(backend.filename)
        await trio.lowlevel.checkpoint()
        if self.refuses is not None and backend.filename == f"fake:{self.refuses.name}":
            raise ValueError("the frontend does not want this backend")
        if self.hangs_at is not None and backend.filename == f"fake:{self.hangs_at.name}":
            await trio.sleep_forever()
        for _ in range(1, self.steps):
            await trio.lowlevel.checkpoint()
        self.bound = backend.filename
