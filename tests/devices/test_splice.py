"""A spliced flow passes on what a plain one does; and when a flow is spliced."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.socket
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_chardev as tc
from tests.devices.fakes import open_fakes
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.splicing import SplicePipe
from trio_chardev.core.tap import Tap
from trio_chardev.devices import splice
from trio_chardev.devices.bridge import Bridge, BridgeOptions
from trio_chardev.events import Event
from trio_chardev.registry import Registry
from trio_chardev.testing import CancelAtStep, FakeDevice, FakeOptions

CHUNK = 20  # bytes; so many make a large read here


@pytest.fixture(autouse=True)
def small_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "LARGE", CHUNK)
    monkeypatch.setattr(splice, "SMALL", CHUNK // 2)
    monkeypatch.setattr(splice, "IN_A_ROW", 2)


def pipe_of(bridge: Bridge) -> SplicePipe | None:
    """What the bytes of its chardev come into."""
    direct = bridge.to_peer.source.direct
    return None if direct is None else direct.pipe


class World:
    """A bridge from *board* to *user*, spliced or not."""

    def __init__(self, registry: Registry, is_spliced: bool, when_closed: str) -> None:
        self.registry = registry
        self.is_spliced = is_spliced
        self.board = self.make("board")
        self.user = self.make("user")
        self.boards, self.users = [self.board], [self.user]
        self.when_closed: Any = when_closed
        self.was_spliced = False
        self.bridge: Bridge
        self._bytes: Iterator[int] = iter(random.Random(1).randbytes(1 << 20))

    def make(self, name: str, **faults: Any) -> FakeDevice:
        return FakeDevice(
            name, eager=True, has_line=True, can_splice=self.is_spliced, room=1 << 30, **faults
        )

    async def begin(self) -> None:
        await self.registry.add("board", FakeOptions(device=self.board))
        await self.registry.add("user", FakeOptions(device=self.user))
        options = BridgeOptions(id="b", chardev="board", peer="user", when_closed=self.when_closed)
        device = self.registry.devices.add(options)
        assert isinstance(device, Bridge)
        self.bridge = device

    @property
    def pipe(self) -> SplicePipe | None:
        return pipe_of(self.bridge)

    async def burst(self, size: int = CHUNK) -> None:
        """A few large reads: what follows is spliced, where that can be."""
        for _ in range(3):
            await self.feed(size)

    async def feed(self, size: int) -> None:
        self.board.feed(bytes(next(self._bytes) for _ in range(size)))
        await wait_all_tasks_blocked()
        self.was_spliced |= self.pipe is not None

    async def room(self, size: int) -> None:
        self.user.make_room(size)
        await wait_all_tasks_blocked()

    async def connect_user(self, connected: bool) -> None:
        self.user.connect(connected)
        await wait_all_tasks_blocked()

    async def brk(self) -> None:
        self.board.say(Event.BREAK)
        await trio.sleep(1)

    async def change_board(self, **faults: Any) -> None:
        self.board = self.make(f"board{len(self.boards)}", **faults)
        self.boards.append(self.board)
        await self.registry.change("board", FakeOptions(device=self.board))
        await wait_all_tasks_blocked()

    async def change_user(self, **faults: Any) -> None:
        self.user = self.make(f"user{len(self.users)}", **faults)
        self.users.append(self.user)
        await self.registry.change("user", FakeOptions(device=self.user))
        await wait_all_tasks_blocked()

    async def end(self) -> dict[str, object]:
        """All that can be seen in the end."""
        info = self.bridge.info
        ways = {name: getattr(info, name) for name in ("to_peer", "to_chardev")}
        at_once = {name: attrs.evolve(way, blocked_since=None) for name, way in ways.items()}
        counts = [self.registry[id].statistics() for id in ("board", "user")]
        await self.registry.devices.remove("b")
        rest = self.registry["board"].attach().take_ready()
        return {
            "sent": [bytes(user.sent) for user in self.users],
            "breaks": [list(user.line_calls) for user in self.users],
            "info": attrs.evolve(info, **at_once),
            "is_blocked": [way.blocked_since is not None for way in ways.values()],
            "counts": [(one.received, one.sent, one.queued, one.connects) for one in counts],
            "rest": rest,
        }


Step = tuple[str, dict[str, Any] | int | bool | None]

FULL: Step = ("room", 0)
SCENARIOS: dict[str, list[Step]] = {
    "bulk": [("burst", 100), ("feed", 5000), ("feed", 40_000)],
    "a sink that is full for a while": [("burst", 30), FULL, ("feed", 500), ("room", 100), ("feed", 50), ("room", 10_000)],
    "a sink that stays full": [("burst", 30), FULL, ("feed", 500), ("room", 10)],
    "a break among the bytes": [("burst", 30), FULL, ("feed", 100), ("brk", None), ("feed", 100), ("room", 10_000), ("brk", None)],
    "the sink is changed": [("burst", 30), FULL, ("feed", 300), ("change_user", None), ("feed", 300)],
    "the source is changed": [("burst", 30), FULL, ("feed", 300), ("change_board", None), ("feed", 40), ("room", 100), ("room", 1000)],
    "both are changed": [("burst", 30), FULL, ("feed", 300), ("change_board", None), ("feed", 40), ("change_user", None), ("burst", 30)],
    "the sink leaves": [("burst", 30), FULL, ("feed", 300), ("connect_user", False), ("feed", 40), ("connect_user", True), ("room", 1000), ("feed", 40)],
    "small pieces again": [("burst", 30), ("feed", 1), ("feed", 1), ("feed", 1), ("feed", 1), ("feed", 1)],
}  # fmt: skip


async def play(
    steps: list[Step], is_spliced: bool, when_closed: str
) -> tuple[World, dict[str, object]]:
    async with open_fakes() as registry:
        world = World(registry, is_spliced, when_closed)
        await world.begin()
        for name, argument in steps:
            step: Callable[..., Awaitable[None]] = getattr(world, name)
            await (step() if argument is None else step(argument))
        await trio.sleep(5)
        return world, await world.end()


@pytest.mark.parametrize("when_closed", ["drop", "hold"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_spliced_or_not_it_comes_to_the_same(
    name: str, when_closed: str, autojump_clock: MockClock
) -> None:
    _, plain = await play(SCENARIOS[name], False, when_closed)
    world, spliced = await play(SCENARIOS[name], True, when_closed)
    assert spliced == plain
    assert world.was_spliced


STEPS = st.one_of(
    st.tuples(st.just("feed"), st.sampled_from([1, 15, 30, 300, 5000])),
    st.tuples(st.just("burst"), st.just(30)),
    st.tuples(st.just("room"), st.sampled_from([0, 7, 100, 100_000])),
    st.tuples(st.just("connect_user"), st.booleans()),
    st.tuples(st.sampled_from(["brk", "change_board", "change_user"]), st.none()),
)


@given(st.lists(STEPS, max_size=20), st.sampled_from(["drop", "hold"]))
@settings(max_examples=40, deadline=None)
def test_whatever_happens_it_comes_to_the_same(steps: list[Step], when_closed: str) -> None:
    async def both() -> None:
        _, plain = await play(steps, False, when_closed)
        _, spliced = await play(steps, True, when_closed)
        assert spliced == plain

    trio.run(both, clock=MockClock(autojump_threshold=0))


@attrs.frozen
class Attack:
    """A change while the pipe is full, whoever wants it cancelled at step *k*."""

    side: str
    k: int
    when: str

    async def run(self) -> bool:
        async with open_fakes() as registry:
            world = World(registry, True, "hold")
            await world.begin()
            await world.burst()
            await world.room(0)
            await world.feed(200)
            assert world.pipe
            with trio.CancelScope() as scope:
                injector = CancelAtStep(self.k, self.when, scope)
                trio.lowlevel.add_instrument(injector)
                injector.armed = True
                await getattr(world, f"change_{self.side}")()
            injector.armed = False
            trio.lowlevel.remove_instrument(injector)
            for device in (*world.boards, *world.users):
                if device.is_held_open and device.name.startswith("board"):
                    device.feed(b"the end")
                device.make_room(1 << 20)
            await wait_all_tasks_blocked()
            fed = b"".join(bytes(board.fed) for board in world.boards)
            assert b"".join(bytes(user.sent) for user in world.users) == fed
            assert world.bridge.info.to_peer.bytes == len(fed)
            return injector.fired


@pytest.mark.parametrize("side", ["board", "user"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_that_is_cancelled_at_any_step_loses_and_repeats_nothing(
    side: str, when: str
) -> None:
    k = 1
    while trio.run(Attack(side, k, when).run):
        k += 1
    assert k > 5


class Tape(Tap):
    """Remembers what it is shown of what comes."""

    def __init__(self) -> None:
        self.data = b""

    def received(self, data: bytes) -> None:
        self.data += data


async def test_behind_a_change_to_a_source_with_a_tap_all_is_shown_to_it() -> None:
    tape, new = Tape(), FakeDevice("new", eager=True, can_splice=True)

    @asynccontextmanager
    async def open_tapped(request: OpenRequest) -> AsyncIterator[Backend]:
        async with new.open(request) as backend:
            backend.taps = (tape,)
            yield backend

    async with open_fakes() as registry:
        world = World(registry, True, "hold")
        await world.begin()
        await world.burst()
        assert world.pipe is not None
        await registry["board"].change(open_tapped)
        for _ in range(5):
            new.feed(b"n" * CHUNK)
            await wait_all_tasks_blocked()
        assert world.pipe is None
        assert tape.data == b"n" * 5 * CHUNK
        assert world.user.sent.endswith(tape.data)


async def test_real_sockets_are_spliced_and_bytes_come_as_they_were_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader changes its place in the middle."""
    monkeypatch.undo()  # the thresholds of the real thing
    data = random.Random(2).randbytes(4 << 20)
    received = bytearray()

    async def receive(listener: trio.SocketListener) -> None:
        async with await listener.accept() as stream:
            while more := await stream.receive_some(1 << 18):
                received.extend(more)

    listeners = {}
    for name in ("from", "to", "next"):
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(f"{tmp_path}/{name}")
        sock.listen()
        listeners[name] = trio.SocketListener(sock)

    def options(name: str) -> tc.SocketOptions:
        return tc.SocketOptions(addr=tc.UnixAddress(f"{tmp_path}/{name}"), server=False)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, listeners["to"])
            async with tc.open_registry() as registry:
                await registry.add("from", options("from"))
                await registry.add("to", options("to"))
                bridge = registry.devices.add(BridgeOptions(chardev="from", peer="to"))
                assert isinstance(bridge, Bridge)
                sender = await listeners["from"].accept()
                await sender.send_all(data[: 2 << 20])
                while not pipe_of(bridge) and len(received) < 1 << 20:  # noqa: ASYNC110 - the kernel tells nobody
                    await trio.lowlevel.checkpoint()
                assert pipe_of(bridge) is not None
                nursery.start_soon(sender.send_all, data[2 << 20 :])
                await registry.change("to", options("next"))
                nursery.start_soon(receive, listeners["next"])
                while len(received) < len(data):  # noqa: ASYNC110 - the same
                    await trio.lowlevel.checkpoint()
                await sender.aclose()
        for listener in listeners.values():
            await listener.aclose()
    assert received == data
