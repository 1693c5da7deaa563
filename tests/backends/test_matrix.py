"""A change from each kind of backend to each other, under a stream: no byte is lost or repeated.

By default each ordered pair is tested once for output and once for input, at alternating speeds;
with the environment variable TRIO_CHARDEV_MATRIX=full at all of them (`just matrix`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.matrix import (
    BREATH,
    KINDS,
    OTHER_STREAM,
    SLOW_SIZE,
    SPEEDS,
    STREAM,
    Lane,
    Source,
    collect,
    eventually,
    lane_for,
)
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked.hub import HubOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.backends.table import opener_of
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.devices.table import driver_of
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry, open_registry_with

IS_FULL = os.environ.get("TRIO_CHARDEV_MATRIX") == "full"
PATIENCE = 20  # seconds
ABOVE = ("mux", "hub")
HALF_CLOSED = ("unix", "tcp")  # whose peers can shut down their side, and read on
FAR = [("pty", "unix"), ("websocket", "tcp"), ("unix", "pty")]
ENOUGH = {"fast": 60_000, "slow": 30_000, "none": 600_000}
"""Bytes that are sent before the change, if nobody gets stuck."""
MORE = 12_000  # bytes that are sent after it


def is_one_crowd(old: str, new: str) -> bool:
    """Do the clients of *old* stay, as both are consoles? That is in console/test_matrix.py."""
    return old.startswith("console") and new.startswith("console")


def cases(shift: int) -> Iterator[tuple[str, str, str]]:
    for i, old in enumerate(KINDS):
        for j, new in enumerate(KINDS):
            for n, speed in enumerate(SPEEDS):
                if is_one_crowd(old, new):
                    continue
                if IS_FULL or n == (i + j + shift) % len(SPEEDS):
                    yield old, new, speed


def cases_below(shift: int) -> Iterator[tuple[str, str, str, str]]:
    """A mux or a hub stands on what is changed, from each kind to the next, and some that are far."""
    plain = [kind for kind in KINDS if kind not in ABOVE]
    pairs = [*zip(plain, [*plain[1:], plain[0]], strict=True), *FAR]
    for i, above in enumerate(ABOVE):
        for j, (old, new) in enumerate(pairs):
            if is_one_crowd(old, new):
                continue
            for n, speed in enumerate(SPEEDS):
                if IS_FULL or n == (i + j + shift) % len(SPEEDS):
                    yield old, new, speed, above


@attrs.define
class Rig:
    """A chardev at *old*, which is to be changed to *new*."""

    registry: Registry
    old: Lane
    new: Lane
    nursery: trio.Nursery
    at_commit: list[int]
    """What `count` gave in the commit."""
    count: list[Source]
    top: str = "c"
    """What the user has: the chardev itself, or one that stands on it."""
    peers: list[trio.abc.AsyncResource] = attrs.Factory(list)
    is_slow: bool = False
    """Does who receives take its time? Not any more after the change, which has met it."""

    @property
    def frontend(self) -> Frontend:
        return self.registry[self.top].frontends[0]

    async def meet(self, lane: Lane) -> trio.abc.AsyncResource:
        self.peers.append(peer := await lane.meet(self.registry))
        return peer

    async def wait_commit(self, first: Backend) -> None:
        await eventually(lambda: self.registry["c"].backend is not first)

    async def change(self, drain_timeout: float | None = None) -> None:
        if drain_timeout is None:
            drain_timeout = 0.01 if self.old.keeps else PATIENCE
        await self.registry.change(
            "c",
            self.new.options,
            carry=self.old.kind == "ringbuf",  # else what is in it is gone with it
            drain_timeout=drain_timeout,
        )
        self.is_slow = False


def watched(options: BackendOptions, rig: list[Rig]) -> Opener:
    """The opener, of a backend that takes note in its commit."""

    @asynccontextmanager
    async def open_watched(request: OpenRequest) -> AsyncIterator[Backend]:
        async with opener_of(options)(request) as backend:
            activate = backend.activate

            def activate_and_note() -> None:
                activate()
                if rig and request.replaces is not None:
                    rig[0].at_commit += [source.sent for source in rig[0].count]

            backend.activate = activate_and_note  # type: ignore[method-assign]
            yield backend

    def opener(request: OpenRequest) -> AbstractAsyncContextManager[Backend]:
        return open_watched(request)

    return opener


@asynccontextmanager
async def letting_go(rigs: list[Rig]) -> AsyncIterator[None]:
    """The peers leave when nobody waits for them any more."""
    try:
        yield
    finally:
        for rig in rigs:
            for peer in rig.peers:
                await trio.aclose_forcefully(peer)


@asynccontextmanager
async def rigged(old: str, new: str, folder: Path, above: str | None = None) -> AsyncIterator[Rig]:
    rigs: list[Rig] = []
    with trio.fail_after(PATIENCE):
        async with (
            letting_go(rigs),
            open_registry_with(lambda options: watched(options, rigs), driver_of) as registry,
            trio.open_nursery() as nursery,
        ):
            with (
                lane_for(old, folder / "old", registry) as old_lane,
                lane_for(new, folder / "new", registry) as new_lane,
            ):
                await old_lane.prepare(registry)
                await new_lane.prepare(registry)
                await registry.add("c", patient(old_lane.options))
                top = "c" if above is None else await add_above(registry, above)
                registry[top].attach(be_change=stateless)
                rigs.append(Rig(registry, old_lane, new_lane, nursery, [], [], top))
                yield rigs[0]
                nursery.cancel_scope.cancel()


def patient(options: BackendOptions) -> BackendOptions:
    """A socket's peer that sends no more is kept for as long as a test takes."""
    if isinstance(options, SocketOptions):
        return attrs.evolve(options, linger_ms=1000 * PATIENCE)
    return options


async def add_above(registry: Registry, kind: str) -> str:
    """Have a mux, or a hub with another member, stand on "c"; its id."""
    if kind == "mux":
        await registry.add("top", MuxOptions(chardev="c"))
    else:
        await registry.add("other", NullOptions())
        await registry.add("top", HubOptions(chardevs=("other", "c")))
    return "top"


@pytest.mark.parametrize(("old", "new", "speed"), list(cases(0)))
async def test_what_both_peers_receive_is_what_was_written(
    old: str, new: str, speed: str, tmp_path: Path
) -> None:
    await write_through_change(old, new, speed, tmp_path)


@pytest.mark.parametrize(("old", "new", "speed", "above"), list(cases_below(0)))
async def test_what_both_peers_of_a_base_receive_is_what_was_written_above(
    old: str, new: str, speed: str, above: str, tmp_path: Path
) -> None:
    await write_through_change(old, new, speed, tmp_path, above)


async def write_through_change(
    old: str,
    new: str,
    speed: str,
    folder: Path,
    above: str | None = None,
    *,
    sends_no_more: bool = False,
) -> None:
    async with rigged(old, new, folder, above) as rig:
        peer = await rig.meet(rig.old)
        first = rig.registry["c"].backend
        if sends_no_more:
            assert isinstance(peer, trio.SocketStream)
            await peer.send_eof()
            await eventually(lambda: first.peer.is_lingering)
        before, after = bytearray(), bytearray()

        async def receive_late() -> None:
            if not rig.old.keeps:  # then it has the drain timeout
                await rig.wait_commit(first)
                await collect(peer, before, rig.old)

        if speed == "none":
            rig.nursery.start_soon(receive_late)
        else:
            rig.is_slow = speed == "slow"
            rig.nursery.start_soon(
                lambda: collect(peer, before, rig.old, is_slow=lambda: rig.is_slow)
            )
        source = Source(STREAM)
        rig.nursery.start_soon(source.write, rig.frontend)
        await source.get_going(ENOUGH[speed])
        await rig.change()
        if speed == "none" and rig.old.keeps:
            rig.nursery.start_soon(collect, peer, before, rig.old)
        rig.nursery.start_soon(collect, await rig.meet(rig.new), after, rig.new)
        at_change = source.sent
        await eventually(lambda: source.sent >= at_change + MORE)
        source.is_over = True
        await eventually(lambda: source.has_ended)
        await eventually(lambda: len(before) + len(after) >= source.sent)
        assert bytes(before + after) == STREAM[: source.sent]
        assert after


def cases_half_closed() -> Iterator[tuple[str, str, str]]:
    return ((old, new, speed) for old, new, speed in cases(2) if old in HALF_CLOSED)


@pytest.mark.parametrize(("old", "new", "speed"), list(cases_half_closed()))
async def test_one_who_sends_no_more_receives_what_was_written_before_the_change(
    old: str, new: str, speed: str, tmp_path: Path
) -> None:
    await write_through_change(old, new, speed, tmp_path, sends_no_more=True)


@pytest.mark.parametrize(("old", "new", "speed"), list(cases(1)))
async def test_what_is_read_is_what_both_peers_have_sent(
    old: str, new: str, speed: str, tmp_path: Path
) -> None:
    await read_through_change(old, new, speed, tmp_path)


@pytest.mark.parametrize(("old", "new", "speed", "above"), list(cases_below(1)))
async def test_what_is_read_above_is_what_both_peers_of_a_base_have_sent(
    old: str, new: str, speed: str, above: str, tmp_path: Path
) -> None:
    await read_through_change(old, new, speed, tmp_path, above)


async def read_through_change(
    old: str, new: str, speed: str, folder: Path, above: str | None = None
) -> None:
    """Of the old one all that it has sent by the commit, and if it answers until it knows of it."""
    async with rigged(old, new, folder, above) as rig:
        got = bytearray()

        async def read() -> None:
            while True:
                got.extend(await rig.frontend.receive_some(SLOW_SIZE if rig.is_slow else None))
                if rig.is_slow:
                    await trio.sleep(BREATH)

        peer = await rig.meet(rig.old)
        rig.is_slow = speed == "slow"
        if speed != "none":
            rig.nursery.start_soon(read)
        source, other = Source(STREAM), Source(OTHER_STREAM[: MORE - MORE % 8])
        rig.nursery.start_soon(lambda: source.feed(peer, leaves=rig.old.answers))
        await source.get_going(ENOUGH[speed])
        rig.count.append(source)
        first = rig.registry["c"].backend

        async def learn() -> None:
            await rig.wait_commit(first)
            source.is_over = True

        rig.nursery.start_soon(learn)
        await rig.change(PATIENCE if rig.old.answers else None)
        source.is_over = True
        if speed == "none":
            rig.nursery.start_soon(read)
        new_peer = await rig.meet(rig.new)
        if isinstance(new_peer, trio.abc.SendStream):
            rig.nursery.start_soon(other.feed, new_peer)
            await eventually(lambda: got.endswith(other.stream[-8:]))
        else:
            other.stream = b""
            await trio.testing.wait_all_tasks_blocked(2 * BREATH)
        rest = await take_from_base(rig)
        of_old = bytes(got).removesuffix(other.stream) + rest
        assert STREAM.startswith(of_old), "lost, repeated or in disorder"
        assert bytes(got).endswith(other.stream)
        [sent] = rig.at_commit
        assert len(of_old) >= (source.sent if rig.old.answers else sent)


async def take_from_base(rig: Rig) -> bytes:
    """What the base of a mux has received and not given to it stays its own."""
    rest = b""
    for id in rig.old.bases:
        async with rig.registry[id].attach() as frontend:
            with trio.move_on_after(0.01):
                while True:
                    rest += await frontend.receive_some()
    return rest
