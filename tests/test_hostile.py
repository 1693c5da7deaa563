"""No peer, whatever it sends, keeps others waiting, or makes memory grow beyond its bounds.

What others wait for is the work of one step of a task; it is counted, see `tests.hostile.meter`,
so that the machine's speed does not matter. ``python -m tests.hostile`` measures times.
"""

from __future__ import annotations

import gc
import math
import os
from contextlib import closing, suppress
from pathlib import Path

import pytest
import trio

from tests.hostile.floods import FLOODS, QMP_FLOODS, QMP_SOCKET, Place
from tests.hostile.meter import metering
from tests.hostile.peers import RIGHTS, Peer, Stream, fill
from tests.matrix import eventually
from tests.protocols.websocket_wire import BINARY, frame
from tests.rooms import read_until, room
from trio_chardev.backends.console.keyboard import MAX_QUEUED
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.core import look_again
from trio_chardev.core.handlers import stateless
from trio_chardev.core.inbox import INBOX_CAPACITY
from trio_chardev.qmp.client.client import open_qmp_client
from trio_chardev.registry import Registry, open_registry
from trio_chardev.service import open_service

MOST = 60_000  # calls of functions in one step: 5 ms or so
ROUNDS = 2  # of sending as much as goes: what goes once may all be kept
MUCH = 1 << 17  # bytes, if so many go
COMMANDS = 1 << 15  # bytes of QMP: each is more work
TURNS = 40  # of others, each time
FDS = RIGHTS + 8  # descriptors that a chardev keeps more than at first


@pytest.fixture(autouse=True)
def no_turn_ends_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is fast enough nothing takes long: what ends by time does not count."""
    monkeypatch.setattr(look_again, "TURN", math.inf)


async def flood(peer: Peer, much: int = MUCH, rounds: int = ROUNDS) -> None:
    """Send as much as goes, let others have their turns, and again."""
    for _ in range(rounds):
        fill(peer, much)
        for _ in range(TURNS):
            await trio.lowlevel.checkpoint()


async def begin(place: Place, registry: Registry, nursery: trio.Nursery) -> Peer:
    """Make the chardev, and have its peer come."""
    for id, options in place.bases.items():
        await registry.add(id, options)
    if place.creds is not None:
        registry.objects["creds"] = place.creds.create({})
    if isinstance(place.options, SocketOptions) and not place.options.server:
        nursery.start_soon(registry.add, "flooded", place.options)  # until it has shaken hands
    else:
        await registry.add("flooded", place.options)
    peer = await trio.to_thread.run_sync(place.come)
    await eventually(lambda: "flooded" in registry)
    await eventually(lambda: registry["flooded"].is_open or not place.is_open)
    return peer


def open_descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", FLOODS)
async def test_whatever_a_peer_sends_a_step_is_short_and_little_is_kept(
    name: str, tmp_path: Path
) -> None:
    """While its chardev is read, when its user does not read, and by a change."""
    place = FLOODS[name](tmp_path)
    with trio.fail_after(60):
        async with open_registry() as registry, trio.open_nursery() as nursery:
            peer = await begin(place, registry, nursery)
            before = open_descriptors()
            user = registry["flooded"].attach(on_receive=len, be_change=stateless)
            with closing(peer), metering() as meter:
                await flood(peer, MUCH // 2, rounds=1)
                user.pause_input()
                await flood(peer)
                assert user.statistics().bytes_waiting <= 2 * INBOX_CAPACITY
                await eventually(lambda: open_descriptors() <= before + FDS)  # threads close them
                await registry.change("flooded", NullOptions(), drain_timeout=0.05)
            nursery.cancel_scope.cancel()
    assert meter.most <= MOST, f"{meter.most} calls in a step of {meter.whose}"


@pytest.mark.parametrize("name", QMP_FLOODS)
async def test_whatever_a_client_of_qmp_sends_a_step_is_short_and_another_is_answered(
    name: str, tmp_path: Path
) -> None:
    """As it is let in: many clients at once, of one listener."""
    place = QMP_FLOODS[name](tmp_path)
    address = UnixAddress(str(tmp_path / QMP_SOCKET))
    with trio.fail_after(60):
        async with open_service() as service:
            await service.listen_qmp(SocketOptions(addr=address))
            async with open_qmp_client(address) as other:
                with metering() as meter:
                    peer = await trio.to_thread.run_sync(place.come)
                    await flood(peer, COMMANDS)
                    await other.execute("query-version")
                await trio.to_thread.run_sync(peer.close)
    assert meter.most <= MOST, f"{meter.most} calls in a step of {meter.whose}"


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("telnet: NOP", b"end"),
        ("telnet client: subnegotiation", b"end"),
        ("websocket: ping", frame(BINARY, b"end")),
        ("websocket client: empty message", frame(BINARY, b"end", mask=b"")),
        ("tls: telnet NOP", b"end"),
    ],
)
@pytest.mark.parametrize("way", ["change", "read"])
async def test_what_comes_behind_it_is_not_lost(
    way: str, name: str, last: bytes, tmp_path: Path
) -> None:
    """By a change, though the commit does not get so far, nor where it is read."""
    got = bytearray()

    def on_receive(data: bytes) -> int:
        got.extend(data)
        return len(data)

    place = FLOODS[name](tmp_path)
    with trio.fail_after(60):
        async with open_registry() as registry, trio.open_nursery() as nursery:
            peer = await begin(place, registry, nursery)
            assert isinstance(peer, Stream)
            registry["flooded"].attach(on_receive=on_receive, be_change=stateless)
            fill(peer, MUCH)
            nursery.start_soon(peer.finish, last)
            if way == "change":
                await registry.change("flooded", NullOptions(), drain_timeout=30)
            await eventually(lambda: got == b"end")


CROWD_FLOODS = {
    "telnet": (b"\xff\xf6", {"telnet": True}),
    "rfc2217": (b"\xff\xfa\x2c\x01\xff\xf0", {"rfc2217": True}),
    "handshake": (b"GET / HTTP/1.1\r\nX: y\r\n", {"websocket": True}),
    "typed": (b"x", {}),
    "queries": (b"\x1b[0;0R\x1b]", {}),
}


@pytest.mark.parametrize("name", CROWD_FLOODS)
async def test_whatever_a_client_of_a_console_sends_little_is_kept_and_others_see(
    name: str, tmp_path: Path
) -> None:
    """The device takes nothing meanwhile, and a terminal was just asked something."""
    unit, options = CROWD_FLOODS[name]
    async with room(tmp_path) as it:
        other = await it.come(await it.listen())
        it.device.pause_input()
        await it.device.send_all(b"\x1b[6n")
        bad = await it.connect(await it.listen(**options))
        data = unit * (MUCH // len(unit))
        with trio.move_on_after(0.5), suppress(trio.BrokenResourceError):
            for _ in range(64):
                await bad.send_all(data)
        assert sum(client.queued for client in it.clients) <= 2 * MAX_QUEUED
        await it.device.send_all(b"seen\n")
        assert (await read_until(other, b"seen\n")).endswith(b"seen\n")


async def test_who_comes_and_leaves_all_the_time_leaves_nothing(tmp_path: Path) -> None:
    async with room(tmp_path, max_clients=8) as it:
        listener = await it.listen(abstract=True)
        other = await it.come(listener)
        before = open_descriptors()
        for _ in range(1000):
            (await it.connect(listener)).socket.close()
        it._streams[1:] = []
        await eventually(lambda: len(it.clients) == 1 and open_descriptors() <= before)
        await it.device.send_all(b"seen\n")
        assert await read_until(other, b"seen\n") == b"seen\n"
