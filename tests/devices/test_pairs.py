"""A bridge between backends of all kinds, on real descriptors: nothing is lost, nothing repeated.

All pairs with TRIO_CHARDEV_MATRIX=full (`just matrix`); by default each kind with a socket server
on either side, and with its own kind.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product
from pathlib import Path

import attrs
import pytest
import trio

from tests.places import MAKERS, Place, place_for
from tests.services import until
from trio_chardev.core.backend import Opener
from trio_chardev.devices.bridge import Bridge, BridgeOptions
from trio_chardev.devices.flow import Flow
from trio_chardev.devices.table import driver_of
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry, open_registry_with

IS_FULL = os.environ.get("TRIO_CHARDEV_MATRIX") == "full"
ALL_BYTES = bytes(range(256))
COMMON = "socket-unix"
PAIRS = [
    (one, other)
    for one, other in product(MAKERS, MAKERS)
    if IS_FULL or one == other or COMMON in (one, other)
    if not (one.startswith("stdio") and other.startswith("stdio"))  # there is only one
]


@attrs.frozen(kw_only=True)
class PlaceOptions(BackendOptions):
    place: Place


def opener_of(options: BackendOptions) -> Opener:
    assert isinstance(options, PlaceOptions)
    return options.place.open


@attrs.define(eq=False)
class End:
    """A chardev, and those who come to its places one after another."""

    run: Run
    id: str
    sent: bytearray = attrs.Factory(bytearray)
    received: bytearray = attrs.Factory(bytearray)
    hears_all: bool = True
    """Is everything that reaches it received by a peer? Some kinds have none."""
    _peer: trio.abc.AsyncResource | None = None

    async def use(self, kind: str) -> None:
        """Add the chardev on a place of this kind, or change it to one."""
        run = self.run
        options = PlaceOptions(place=run.stack.enter_context(place_for(kind, run.folder)))
        if self.id in run.registry:
            await run.registry.change(self.id, options)
        else:
            await run.registry.add(self.id, options)
        self._peer = None
        if options.place.join is not None:
            self._peer = await options.place.join(run.registry[self.id].backend)
            run.stack.push_async_callback(trio.aclose_forcefully, self._peer)
        if isinstance(self._peer, trio.abc.ReceiveStream):
            run.nursery.start_soon(self._receive, self._peer)
        else:
            self.hears_all = False

    async def _receive(self, peer: trio.abc.ReceiveStream) -> None:
        try:
            while True:
                self.received += (data := await peer.receive_some())
                if not data:  # a file or a ring, which tells nobody when it has more
                    await trio.sleep(0.001)
        except trio.BrokenResourceError:  # a terminal that was hung up
            pass

    async def send(self) -> None:
        """Have the peer send something, if it can."""
        if isinstance(self._peer, trio.abc.SendStream):
            await self._peer.send_all(ALL_BYTES)
            self.sent += ALL_BYTES


class Run:
    """A bridge between two ends."""

    def __init__(
        self, registry: Registry, nursery: trio.Nursery, stack: AsyncExitStack, folder: Path
    ) -> None:
        self.registry = registry
        self.nursery = nursery
        self.stack = stack
        self.folder = folder
        self.board = End(self, "board")
        self.user = End(self, "user")
        self.bridge: Bridge

    async def start(self, one: str, other: str) -> None:
        await self.board.use(one)
        await self.user.use(other)
        options = BridgeOptions(chardev="board", peer="user", when_closed="hold")
        device = self.registry.devices.add(options)
        assert isinstance(device, Bridge)
        self.bridge = device

    async def check(self) -> None:
        """Wait until all has gone over, and compare."""
        await self._check_flow(self.board, self.bridge.to_peer, self.user)
        await self._check_flow(self.user, self.bridge.to_chardev, self.board)

    async def _check_flow(self, source: End, flow: Flow, sink: End) -> None:
        size = len(source.sent)
        await until(lambda: flow.sent >= size)
        assert (flow.sent, flow.dropped) == (size, 0)
        if sink.hears_all:
            await until(lambda: len(sink.received) >= size)
            assert sink.received == source.sent


@asynccontextmanager
async def bridged(one: str, other: str, folder: Path) -> AsyncIterator[Run]:
    with trio.fail_after(10):
        async with AsyncExitStack() as stack:
            registry = await stack.enter_async_context(open_registry_with(opener_of, driver_of))
            async with trio.open_nursery() as nursery:
                run = Run(registry, nursery, stack, folder)
                await run.start(one, other)
                yield run
                nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("one", "other"), PAIRS)
async def test_all_bytes_go_both_ways_and_either_side_is_changed(
    one: str, other: str, tmp_path: Path
) -> None:
    """What was just sent, at both sides, is on its way when the first side is changed."""
    async with bridged(one, other, tmp_path) as run:
        await run.board.send()
        await run.user.send()
        await run.check()
        for end in (run.board, run.user):
            await run.board.send()
            await run.user.send()
            await end.use(COMMON)
            await run.check()
        await run.board.send()
        await run.user.send()
        await run.check()
