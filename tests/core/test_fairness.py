"""Chardevs share one thread: a busy one does not keep another from running."""

from __future__ import annotations

import select
from pathlib import Path

import attrs
import pytest
import trio

from tests.matrix import eventually, lane_for
from trio_chardev.backends.socket.socket import SocketBackend
from trio_chardev.core import look_again
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.look_again import READS_IN_A_ROW, TURN
from trio_chardev.registry import open_registry
from trio_chardev.testing import FakeDevice, open_chardev

TURNS = 60  # of each
MOST_PASSES = 4
"""Whose queue was full is woken, it is read, its user has it; and a read may bring half a frame."""
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


@attrs.define(eq=False)
class Turns(trio.abc.Instrument):
    """How many passes of the scheduler each chardev had to wait for its turn, at the most.

    Only while the kernel has something for it: then it does not matter how fast the machine is,
    or whether it has run the peer's side of a connection yet.
    """

    longest: list[int] = attrs.Factory(list)
    count: list[int] = attrs.Factory(list)
    """How many turns it had."""
    _polls: list[select.poll] = attrs.Factory(list)
    _waiting: list[int] = attrs.Factory(list)

    def add(self, fd: int, direction: int) -> None:
        """The next chardev has *fd*, and waits for that."""
        (poll := select.poll()).register(fd, direction)
        self._polls.append(poll)
        for numbers in (self.longest, self.count, self._waiting):
            numbers.append(0)

    def had_one(self, number: int) -> None:
        self.count[number] += 1
        self._waiting[number] = 0

    def before_io_wait(self, timeout: float) -> None:
        for number, poll in enumerate(self._polls):
            self._waiting[number] += 1
            if not poll.poll(0):
                self._waiting[number] = 0
            self.longest[number] = max(self.longest[number], self._waiting[number])


@pytest.mark.parametrize("direction", ["input", "output"])
async def test_of_several_that_move_bulk_none_is_starved(direction: str, tmp_path: Path) -> None:
    """Nor is one that has a conversation beside them."""
    kinds = ["unix", "tcp", "telnet", "websocket", "tls", "tcp", "websocket", "unix"]
    turns = Turns()
    peers: list[trio.abc.AsyncResource] = []
    enough = trio.Event()

    async def use(number: int, frontend: Frontend) -> None:
        while True:
            if direction == "input" or number == 0:
                data = await frontend.receive_some()
                await frontend.send_all(data[: number == 0])
            else:
                await frontend.send_some(PIECE)
            turns.had_one(number)
            if len(turns.count) == len(kinds) and min(turns.count) >= TURNS:
                enough.set()

    with trio.fail_after(60):
        async with open_registry() as registry, trio.open_nursery() as nursery:
            for number, kind in enumerate(kinds):
                id = f"{kind}{number}"
                # `lane_for` is a context manager for places that own descriptors: these don't.
                with lane_for(kind, tmp_path / id, registry) as lane:
                    await registry.add(id, lane.options)
                peers.append(peer := await lane.come(registry[id].backend))
                await eventually(lambda: registry[id].is_open)  # noqa: B023
            for number, (kind, peer) in enumerate(zip(kinds, peers, strict=True)):
                chardev = registry[f"{kind}{number}"]
                assert isinstance(chardev.backend, SocketBackend)
                assert chardev.backend.there.link is not None
                reads = direction == "input" or number == 0
                fd = chardev.backend.there.link.sock.fileno()
                turns.add(fd, select.POLLIN if reads else select.POLLOUT)
                if number == 0:
                    nursery.start_soon(ask_and_answer, peer)
                else:
                    nursery.start_soon(flood if direction == "input" else empty, peer)
                nursery.start_soon(use, number, chardev.attach())
            trio.lowlevel.add_instrument(turns)
            await enough.wait()
            trio.lowlevel.remove_instrument(turns)
            nursery.cancel_scope.cancel()
    for peer in peers:
        await trio.aclose_forcefully(peer)
    assert max(turns.longest) <= MOST_PASSES, dict(zip(kinds, turns.longest, strict=True))


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

    monkeypatch.setattr(look_again, "perf_counter", lambda: now)
    async with open_chardev(FakeDevice("old", endless=True)) as chardev:
        chardev.attach(on_receive=on_receive)
        await trio.lowlevel.checkpoint()
        count = 0
        for _ in range(20):
            await trio.lowlevel.checkpoint()
    assert 19 * reads <= count <= 21 * reads  # who is first in a turn changes
