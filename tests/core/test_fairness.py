"""Chardevs share one thread: none that is busy keeps another from its turn."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.matrix import eventually, lane_for
from trio_chardev.core import slot
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.slot import READS_IN_A_ROW, TURN
from trio_chardev.service import open_registry
from trio_chardev.testing import FakeDevice, open_chardev

TURNS = 300  # of the quickest
PIECE = bytes(1 << 16)


async def flood(peer: trio.abc.AsyncResource) -> None:
    assert isinstance(peer, trio.abc.SendStream)
    while True:
        await peer.send_all(PIECE)


async def ask_and_answer(peer: trio.abc.AsyncResource) -> None:
    """A conversation, for which its chardev polls."""
    assert isinstance(peer, trio.abc.Stream)
    while True:
        await peer.send_all(b"?")
        await peer.receive_some()


async def empty(peer: trio.abc.AsyncResource) -> None:
    assert isinstance(peer, trio.abc.ReceiveStream)
    while True:
        await peer.receive_some()


@pytest.mark.parametrize("direction", ["input", "output"])
async def test_of_several_that_move_bulk_none_is_starved(direction: str, tmp_path: Path) -> None:
    """Nor is one that has a conversation beside them."""
    kinds = ["unix", "tcp", "telnet", "websocket", "tls", "tcp", "websocket", "unix"]
    turns = [0] * len(kinds)
    peers: list[trio.abc.AsyncResource] = []
    waited_for = set(range(len(kinds)))  # those that have not begun: they come one after another
    enough = trio.Event()

    def count(number: int) -> None:
        if waited_for:
            waited_for.discard(number)
            return
        turns[number] += 1
        if turns[number] == TURNS:
            enough.set()

    async def use(number: int, frontend: Frontend) -> None:
        while True:
            if direction == "input" or number == 0:
                data = await frontend.receive_some()
                await frontend.send_all(data[: number == 0])
            else:
                await frontend.send_all(PIECE)
            count(number)

    with trio.fail_after(30):
        async with open_registry() as registry, trio.open_nursery() as nursery:
            for number, kind in enumerate(kinds):
                id = f"{kind}{number}"
                # `lane_for` is a context manager for places that own descriptors: these don't.
                with lane_for(kind, tmp_path / id, registry) as lane:
                    await registry.add(id, lane.options)
                peers.append(peer := await lane.come(registry[id].backend))
                await eventually(lambda: registry[id].is_open)  # noqa: B023
                if number == 0:
                    nursery.start_soon(ask_and_answer, peer)
                else:
                    nursery.start_soon(flood if direction == "input" else empty, peer)
                nursery.start_soon(use, number, registry[id].attach())
            await enough.wait()
            nursery.cancel_scope.cancel()
    for peer in peers:
        await trio.aclose_forcefully(peer)
    # Not alike: in its turn one brings a few bytes, another all that its queue holds.
    assert min(turns) >= TURNS // 50, dict(zip(kinds, turns, strict=True))


@pytest.mark.parametrize(
    ("seconds", "reads"), [(0, READS_IN_A_ROW), (0.3 * TURN, 4), (2 * TURN, 1)]
)
async def test_others_have_a_turn_after_some_reads_or_some_time(
    seconds: float, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """*seconds* is what the user takes for what is read each time."""
    now = 0.0
    count = 0

    def on_receive(data: bytes) -> int:
        nonlocal now, count
        now += seconds
        count += 1
        return len(data)

    monkeypatch.setattr(slot, "perf_counter", lambda: now)
    async with open_chardev(FakeDevice("old", endless=True)) as chardev:
        chardev.attach(on_receive=on_receive)
        await trio.lowlevel.checkpoint()
        count = 0
        for _ in range(20):
            await trio.lowlevel.checkpoint()
    assert 19 * reads <= count <= 21 * reads  # who is first in a turn changes
