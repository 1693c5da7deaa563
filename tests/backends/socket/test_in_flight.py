"""What a socket's peer had sent before it could know that it was left arrives, and comes first.

The user is slow: it reads nothing before the change, so that most of it is still in the peer's
kernel, or in a write of the peer's that is stuck.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests.matrix import eventually
from tests.places import connect_to, socket_stream
from tests.talkers import KINDS, Meeting, Talker, meeting, pattern
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.socket import connection, presence
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.core import chardev
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.devices import registry as devices
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.errors import BackendDisconnectedError
from trio_chardev.registry import Registry, open_registry
from trio_chardev.service import open_service

PATIENCE = 120  # seconds; as a starved machine has tests wait
QUIET = 0.5  # seconds; longer than TCP waits before it sends again
DRAIN = 60  # seconds; more than any of it takes
SIZES = (70_000, 150_000, 500_000)
NEW = pattern(40_000, "new")


SILENCE = connection.SILENCE


@pytest.fixture(autouse=True)
def _is_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is silent because the machine is slow."""
    monkeypatch.setattr(connection, "SILENCE", DRAIN)


@attrs.define
class Rig:
    """A chardev "c" with a user, and a peer that sends."""

    registry: Registry
    frontend: Frontend
    peer: Talker
    nursery: trio.Nursery
    got: bytearray = attrs.Factory(bytearray)

    async def read(self) -> None:
        """As the user, to the end of the chardev."""
        while data := await self.frontend.receive_some(5_000):
            self.got += data

    async def read_until(self, is_enough: Callable[[], bool]) -> None:
        self.nursery.start_soon(self.read)
        await eventually(is_enough)


@asynccontextmanager
async def rigged(
    kind: str, folder: Path, data: bytes, *, server: bool = True, reads: bool = True
) -> AsyncIterator[Rig]:
    with trio.fail_after(PATIENCE):
        async with open_registry() as registry, trio.open_nursery() as nursery:
            async with meeting(kind, folder, registry.objects, data, server=server) as met:
                talker = await add_and_meet(registry, met)
            frontend = registry["c"].attach(be_change=stateless)
            await eventually(lambda: registry["c"].is_open)
            talker.reads = reads
            nursery.start_soon(talker.run)
            await talker.get_going()
            yield Rig(registry, frontend, talker, nursery)
            nursery.cancel_scope.cancel()


async def add_and_meet(registry: Registry, met: Meeting) -> Talker:
    peers: list[Talker] = []

    async def meet() -> None:
        peers.append(await met.meet(lambda: registry["c"].backend))

    async with trio.open_nursery() as nursery:
        if not met.server:
            nursery.start_soon(meet)
        await registry.add("c", met.options)
        if met.server:
            nursery.start_soon(meet)
    return peers[0]


ROLES = pytest.mark.parametrize("server", [True, False], ids=["server", "client"])
ALL = pytest.mark.parametrize("kind", KINDS)


@ROLES
@ALL
@pytest.mark.parametrize("size", SIZES)
async def test_what_the_old_peer_has_sent_arrives_though_the_user_is_behind(
    kind: str, size: int, server: bool, tmp_path: Path
) -> None:
    async with rigged(kind, tmp_path, pattern(size), server=server) as rig:
        await rig.registry.change("c", NullOptions(), drain_timeout=DRAIN)
        await rig.read_until(lambda: len(rig.got) >= rig.peer.sent)
        assert rig.got == rig.peer.data[: rig.peer.sent]


@ROLES
@ALL
async def test_it_comes_before_what_the_new_peer_sends(
    kind: str, server: bool, tmp_path: Path
) -> None:
    """Who has sent its own long before the old one has sent the last."""
    async with rigged(kind, tmp_path, pattern(500_000), server=server) as rig:
        with socket.socket(socket.AF_UNIX) as listener:
            path = str(tmp_path / "new")
            listener.bind(path)
            listener.listen()
            listener.setblocking(False)

            async def send() -> None:
                await trio.lowlevel.wait_readable(listener)
                async with socket_stream(listener.accept()[0]) as stream:
                    await stream.send_all(NEW)
                    await trio.sleep_forever()

            rig.nursery.start_soon(send)
            options = SocketOptions(addr=UnixAddress(path), server=False)
            await rig.registry.change("c", options, drain_timeout=DRAIN)
            await rig.read_until(lambda: rig.got.endswith(NEW[-1000:]))
            assert rig.got == rig.peer.data[: rig.peer.sent] + NEW


@ALL
async def test_it_comes_to_a_user_that_reads_all_the_time(kind: str, tmp_path: Path) -> None:
    async with rigged(kind, tmp_path, pattern(3_000_000)) as rig:
        rig.nursery.start_soon(rig.read)
        await eventually(lambda: len(rig.got) > 200_000)
        await rig.registry.change("c", RingbufOptions(), drain_timeout=DRAIN)
        await eventually(lambda: len(rig.got) >= rig.peer.sent)
        assert rig.got == rig.peer.data[: rig.peer.sent]
        assert rig.peer.knows


@ALL
async def test_a_peer_that_reads_nothing_is_heard_until_it_is_silent(
    kind: str, tmp_path: Path, mock_clock: MockClock
) -> None:
    """It never learns that it was left, and what it says is late; a WebSocket has to answer."""
    mock_clock.rate = 1
    data = pattern(500_000)
    async with rigged(kind, tmp_path, b"", reads=False) as rig:
        await rig.peer.send(data[:9_000])

        async def talk() -> None:
            await eventually(lambda: rig.registry["c"].backend.filename == "null")
            for start in range(9_000, len(data), 9_000):
                await rig.peer.send(data[start : start + 9_000])
            await rig.read_until(lambda: len(rig.got) >= len(data))
            mock_clock.jump(DRAIN)

        rig.nursery.start_soon(talk)
        await rig.registry.change("c", NullOptions(), drain_timeout=DRAIN)
        assert rig.got == data


# ---------------------------------------------------------------- the end


@ALL
async def test_a_user_of_a_chardev_that_is_closed_gets_it_before_the_end(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chardev, "DRAIN_TIMEOUT", DRAIN)
    async with rigged(kind, tmp_path, pattern(500_000)) as rig:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.registry["c"].aclose)
            await rig.read()
        assert rig.got == rig.peer.data[: rig.peer.sent]
        assert rig.peer.sent > 100_000


@pytest.mark.parametrize(
    ("stops", "kind"),
    [*(("registry", kind) for kind in ("tcp", "unix", "tls", "websocket")), ("service", "telnet")],
)
async def test_at_the_end_of_all_the_other_side_of_a_bridge_gets_it(
    kind: str, stops: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not read before, and so most of it is with the kernels when the end begins."""
    monkeypatch.setattr(devices, "SETTLE_TIMEOUT", DRAIN)
    monkeypatch.setattr(devices, "QUIET", QUIET)
    data, got = pattern(500_000), bytearray()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery, opened(stops) as registry:
            async with meeting(kind, tmp_path, registry.objects, data, server=True) as met:
                talker = await add_and_meet(registry, met)
            await registry.add("u", SocketOptions(addr=UnixAddress(str(tmp_path / "user"))))
            registry.devices.add(BridgeOptions(chardev="c", peer="u", id="b"))
            user = connect_to(registry["u"].backend)
            await eventually(lambda: registry["c"].is_open and registry["u"].is_open)
            nursery.start_soon(talker.run)
            await talker.get_going()

            async def read() -> None:
                async with user:
                    async for piece in user:
                        got.extend(piece)

            nursery.start_soon(read)
        assert got == data[: talker.sent]


@asynccontextmanager
async def opened(stops: str) -> AsyncIterator[Registry]:
    if stops == "registry":
        async with open_registry() as registry:
            yield registry
    else:
        async with open_service() as service:
            yield service.registry


# ---------------------------------------------------------------- a kick


@ALL
async def test_of_a_peer_that_is_kicked_all_arrives_before_closed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "DRAIN_TIMEOUT", DRAIN)
    async with rigged(kind, tmp_path, pattern(500_000)) as rig:
        kick(rig)
        await eventually(lambda: not rig.registry["c"].is_open)
        await rig.read_until(lambda: len(rig.got) >= rig.peer.sent)
        assert rig.got == rig.peer.data[: rig.peer.sent]


@ALL
async def test_one_who_is_silent_is_dropped_at_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose network hangs."""
    monkeypatch.setattr(presence, "DRAIN_TIMEOUT", 2 * PATIENCE)
    monkeypatch.setattr(connection, "SILENCE", SILENCE)
    async with rigged(kind, tmp_path, b"", reads=False) as rig:
        await trio.sleep(2 * SILENCE)
        kick(rig)
        await eventually(lambda: not rig.registry["c"].is_open)


@pytest.mark.parametrize("is_behind", [False, True], ids=["read", "behind"])
async def test_one_who_goes_on_sending_is_dropped_in_the_end(
    is_behind: bool, tmp_path: Path
) -> None:
    async with rigged("unix", tmp_path, 10 * pattern(3_000_000), reads=False) as rig:
        if not is_behind:
            rig.nursery.start_soon(rig.read)
        kick(rig)
        await eventually(lambda: rig.peer.has_sent_all.is_set())
        assert rig.peer.data.startswith(rig.got)


async def test_a_writer_hears_at_once_and_does_not_cut_it_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "DRAIN_TIMEOUT", DRAIN)
    async with rigged("tcp", tmp_path, pattern(500_000)) as rig:
        kick(rig)
        with pytest.raises(BackendDisconnectedError):
            await rig.frontend.send_all(b"x")
        await rig.read_until(lambda: len(rig.got) >= rig.peer.sent)
        assert rig.got == rig.peer.data[: rig.peer.sent]


def kick(rig: Rig) -> None:
    backend = rig.registry["c"].backend
    assert backend.peer.can_disconnect
    backend.peer.disconnect()


async def test_one_who_is_kicked_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SILENCE", SILENCE)
    async with rigged("unix", tmp_path, pattern(500_000), reads=False) as rig:
        kick(rig)
        options = SocketOptions(addr=UnixAddress(str(tmp_path / "old")))
        await rig.registry.change("c", options, keep_peer=True, drain_timeout=DRAIN)
        assert not rig.registry["c"].is_open
        await rig.read_until(lambda: len(rig.got) == len(rig.peer.data))
        assert rig.got == rig.peer.data
