"""Small pieces that take the fast path arrive as by the plain path; and when they take it."""

from __future__ import annotations

import itertools
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_chardev as tc
from trio_chardev.core import look_again
from trio_chardev.core.controls import Controls
from trio_chardev.core.counts import Counts
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.look_again import TURN
from trio_chardev.devices import exchange
from trio_chardev.devices.bridge import Bridge, BridgeOptions
from trio_chardev.devices.exchange import PIECE, Exchange
from trio_chardev.devices.flow import Flow

SIZES = [1, 1, 2, 100, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 1, 7]


def make_pair() -> tuple[socket.socket, tc.SocketOptions]:
    """The peer of a chardev, and the options for that."""
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    theirs.setblocking(False)  # else others might have it, too, and it is not spliced
    return ours, tc.SocketOptions(addr=tc.FdAddress(str(theirs.detach())), server=False)


@attrs.define
class World:
    """A bridge between two UNIX sockets, of each of which we have the other end."""

    registry: tc.Registry
    bridge: Bridge
    board: socket.socket
    user: socket.socket

    async def change(self, side: str) -> None:
        getattr(self, side).close()
        ours, options = make_pair()
        await self.registry.change(side, options)
        setattr(self, side, ours)

    async def talk(self, *sizes: int) -> bytes:
        """Send pieces there and back, by a thread; what has come."""
        return await trio.to_thread.run_sync(_talk, self.board, self.user, sizes)


def _talk(board: socket.socket, user: socket.socket, sizes: tuple[int, ...]) -> bytes:
    chance = random.Random(1)
    heard = b""
    for size in sizes:
        for source, sink in ((board, user), (user, board)):
            source.sendall(chance.randbytes(size))
            left = size
            while left:
                piece = sink.recv(left)
                assert piece, "it has left"
                heard += piece
                left -= len(piece)
    return heard


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    with trio.fail_after(60):
        async with tc.open_registry() as registry:
            board, options = make_pair()
            await registry.add("board", options)
            user, options = make_pair()
            await registry.add("user", options)
            bridge = registry.devices.add(BridgeOptions(chardev="board", peer="user"))
            assert isinstance(bridge, Bridge)
            await wait_all_tasks_blocked()
            world = World(registry, bridge, board, user)
            try:
                yield world
            finally:
                world.board.close()
                world.user.close()


class Passes(trio.abc.Instrument):
    """How many passes of the scheduler there were: in each, who can run has one turn."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the other thread is, it is quick, and no burst is in vain."""
    monkeypatch.setattr(look_again, "QUICKLY", 1e9)
    monkeypatch.setattr(look_again, "IDLE", 1e9)
    monkeypatch.setattr(look_again, "LATE", 1e9)
    monkeypatch.setattr(look_again, "BURST", 0.05)


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long the pieces are that were sent on directly."""
    seen: list[int] = []
    send_on = exchange._send_on

    def note(way: exchange.Way) -> int | None:
        sent = send_on(way)
        seen.extend([sent] if sent else [])
        return sent

    monkeypatch.setattr(exchange, "_send_on", note)
    return seen


async def play() -> tuple[list[bytes], object]:
    heard = []
    async with open_world() as world:
        heard.append(await world.talk(*SIZES * 3))
        for side in ("user", "board"):
            await world.change(side)
            heard.append(await world.talk(*SIZES * 3))
        return heard, world.bridge.info


async def test_directly_or_not_it_comes_to_the_same(
    patient: None, pieces: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = await play()
    assert pieces
    pieces.clear()
    monkeypatch.setattr(look_again, "IN_A_ROW", 1e9)
    assert await play() == direct
    assert not pieces


async def test_others_have_their_turn_between_bursts(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can run has one turn in a pass of the scheduler, and each side has one burst."""
    passes = Passes()
    bursts_in_pass: Counter[int] = Counter()
    burst = Exchange._burst

    def note(its: Exchange, *ways: exchange.Way) -> bool:
        bursts_in_pass[passes.count] += 1
        return burst(its, *ways)

    monkeypatch.setattr(Exchange, "_burst", note)
    monkeypatch.setattr(look_again, "BURST", 3 * TURN)  # so a reader's turn ends with a burst
    async with open_world() as world:
        trio.lowlevel.add_instrument(passes)
        while bursts_in_pass.total() < 10:
            await world.talk(*[1] * 300)
        trio.lowlevel.remove_instrument(passes)
    assert max(bursts_in_pass.values()) <= 2  # one by the reader of each side


# ---------------------------------------------------------------- one piece


@attrs.define
class FakeFlow:
    """What `_send_on` uses of a flow; it is its own source, and that its own relay."""

    sent: int = 0
    put: bytes = b""
    is_at_work: bool = False

    @property
    def source(self) -> FakeFlow:
        return self

    @property
    def relay(self) -> FakeFlow:
        return self

    def put_back(self, data: bytes) -> None:
        self.put += data

    def set_to_work(self) -> None:
        self.is_at_work = True


@attrs.frozen
class Way:
    """What *near* sends is to be sent on from *source* to *sink*, and read at *far*."""

    near: socket.socket
    source: socket.socket
    sink: socket.socket
    far: socket.socket
    flow: Any = attrs.Factory(FakeFlow)
    source_counts: Counts = attrs.Factory(Counts)
    sink_counts: Counts = attrs.Factory(Counts)

    def send_on(self) -> int | None:
        return exchange._send_on(self.way_of(self.source, self.sink))

    def way_of(self, source: socket.socket, sink: socket.socket) -> exchange.Way:
        return exchange.Way(source, sink, self.flow, self.source_counts, self.sink_counts)

    @property
    def counted(self) -> tuple[int, int]:
        return self.source_counts.received, self.sink_counts.sent


@pytest.fixture
def way() -> Iterator[Way]:
    near, source = socket.socketpair()
    sink, far = socket.socketpair()
    for sock in (near, source, sink, far):
        sock.setblocking(False)
    with near, source, sink, far:
        yield Way(near, source, sink, far)


def test_a_small_piece_is_sent_on_and_counted(way: Way) -> None:
    way.near.send(b"ping")
    assert way.send_on() == 4
    assert way.far.recv(100) == b"ping"
    assert way.flow == FakeFlow(sent=4)
    assert way.counted == (4, 4)


def test_behind_a_large_piece_all_goes_the_plain_way(way: Way) -> None:
    way.near.send(b"-" * 2 * PIECE)
    assert way.send_on() is None
    assert len(way.far.recv(2 * PIECE)) == PIECE
    assert way.flow == FakeFlow(sent=PIECE)
    assert way.counted == (PIECE, PIECE)


def test_what_a_full_sink_does_not_take_is_put_back(way: Way) -> None:
    way.sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
    while True:
        try:
            way.sink.send(b"-" * 1000)
        except BlockingIOError:
            break
    way.near.send(b"ping")
    assert way.send_on() is None
    assert way.flow == FakeFlow(put=b"ping", is_at_work=True)
    assert way.counted == (4, 0)


def test_what_a_sink_that_has_left_does_not_take_is_put_back(way: Way) -> None:
    way.far.close()
    way.near.send(b"ping")
    assert way.send_on() is None
    assert way.flow == FakeFlow(put=b"ping", is_at_work=True)


def test_the_end_is_left_for_the_plain_way(way: Way) -> None:
    way.near.close()
    assert way.send_on() is None
    assert way.flow == FakeFlow()
    assert way.source.recv(1) == b""


def test_an_error_of_the_source_is_left_for_the_plain_way(way: Way) -> None:
    way.source.close()
    assert way.send_on() is None
    assert way.flow == FakeFlow()


def test_where_nothing_has_come_nothing_is_sent(way: Way) -> None:
    assert way.send_on() == 0
    assert way.flow == FakeFlow()


@pytest.mark.parametrize(("piece", "in_vain"), [(b"", True), (b"-" * PIECE, False)])
def test_a_burst_in_which_nothing_comes_is_in_vain(
    way: Way, piece: bytes, in_vain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_again, "perf_counter", itertools.count().__next__)
    for name, seconds in {"IDLE": 5, "LATE": 1e9, "BURST": 1e9}.items():
        monkeypatch.setattr(look_again, name, seconds)
    way.near.send(piece)
    there = way.way_of(way.source, way.sink)
    back = way.way_of(way.far, way.near)
    assert Exchange()._burst(back, there) == in_vain


# ---------------------------------------------------------------- when it may be


def ways_of(side: Frontend) -> tuple[socket.socket | None, socket.socket | None]:
    """The sockets that may be read and written directly."""
    direct = side.direct
    return (None, None) if direct is None else (direct.receive_socket, direct.send_socket)


async def test_both_sides_of_a_bridge_of_sockets_may_be_used_directly() -> None:
    async with open_world() as world:
        for side in (world.bridge.chardev, world.bridge.peer):
            receives, sends = ways_of(side)
            assert receives is sends is not None


async def test_not_while_something_waits() -> None:
    async with open_world() as world:
        world.bridge.peer.relay.put_back(b"x")
        assert ways_of(world.bridge.peer)[0] is None


async def test_not_while_no_input_is_wanted() -> None:
    async with open_world() as world:
        world.bridge.peer.pause_input()
        assert ways_of(world.bridge.peer)[0] is None


async def test_not_of_one_that_is_detached() -> None:
    async with open_world() as world:
        peer = world.bridge.peer
        await world.registry.devices.remove(world.bridge.id)
        assert ways_of(peer) == (None, None)


async def test_not_of_a_peer_that_has_left() -> None:
    async with open_world() as world:
        world.user.close()
        await wait_all_tasks_blocked()
        assert ways_of(world.bridge.peer) == (None, None)


async def test_not_where_a_log_is_kept(tmp_path: Path) -> None:
    async with open_world() as world:
        ours, options = make_pair()
        with ours:
            options = attrs.evolve(options, logfile=f"{tmp_path}/log")
            await world.registry.change("user", options)
            assert world.bridge.peer.is_open
            assert ways_of(world.bridge.peer) == (None, None)


async def test_not_while_a_change_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_world() as world:
        seen = []

        def show_line(bridge: Bridge, peer: Controls | Frontend) -> None:
            if isinstance(peer, Controls):  # in be_change
                seen.append(ways_of(world.bridge.peer))

        monkeypatch.setattr(Bridge, "_show_line", show_line)
        await world.change("user")
        assert seen == [(None, None)]


async def test_not_sent_to_while_another_writes() -> None:
    async with open_world() as world, trio.open_nursery() as nursery:
        nursery.start_soon(world.bridge.peer.send_all, bytes(1 << 20))
        await wait_all_tasks_blocked()
        assert ways_of(world.bridge.peer)[1] is None
        nursery.cancel_scope.cancel()


async def test_a_flow_at_work_keeps_both_from_it() -> None:
    async with open_world() as world:
        assert isinstance(its := world.bridge.to_peer.exchange, Exchange)
        assert len(its._ways(world.bridge.to_peer)) == 2
        world.bridge.to_peer.is_at_work = True
        assert not its._ways(world.bridge.to_peer)


async def test_who_answers_is_looked_at_first() -> None:
    async with open_world() as world:
        assert isinstance(its := world.bridge.to_peer.exchange, Exchange)
        flows = [world.bridge.to_peer, world.bridge.to_chardev]
        assert [way.flow for way in its._ways(flows[0])] == flows[::-1]
        assert [way.flow for way in its._ways(flows[1])] == flows


async def test_where_it_can_not_be_that_is_not_found_out_at_each_piece(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Exchange] = []

    def no_ways(its: Exchange, last: Flow) -> list[exchange.Way]:
        tried.append(its)
        return []

    async with open_world() as world:
        its = world.bridge.to_peer.exchange
        assert its is not None
        monkeypatch.setattr(Exchange, "_ways", no_ways)
        for _ in range(look_again.PAUSE):
            its.piece_sent(world.bridge.to_peer, 1)
    assert len(tried) == 1


async def test_what_has_no_socket_is_not_asked_for_one_until_it_is_changed() -> None:
    async with open_world() as world:
        its = world.bridge.to_peer.exchange
        assert its is not None
        assert its.is_possible
        await world.registry.change("board", tc.RingbufOptions())
        assert not its.is_possible
        await world.change("board")
        assert its.is_possible
