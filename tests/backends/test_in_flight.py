"""What a peer of a socket had sent before it could know that it was left arrives, and first.

The user is behind: it reads nothing before the change, so that most of it is still with the
peer's kernel, or in a write of the peer's that is stuck.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from tests.matrix import eventually
from tests.places import socket_stream
from tests.talkers import KINDS, Meeting, Talker, meeting, pattern
from trio_chardev.backends.addresses import UnixAddress
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.ringbuf import RingbufOptions
from trio_chardev.backends.socket import SocketOptions
from trio_chardev.core.frontend import Frontend, stateless
from trio_chardev.core.registry import Registry
from trio_chardev.service import open_registry

PATIENCE = 20  # seconds
DRAIN = 10  # seconds; more than any of it takes
SIZES = (70_000, 150_000, 500_000)
NEW = pattern(40_000, "new")


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
                peer = await add_and_meet(registry, met)
            frontend = registry["c"].attach(be_change=stateless)
            await eventually(lambda: registry["c"].is_open)
            peer.reads = reads
            nursery.start_soon(peer.run)
            await peer.get_going()
            yield Rig(registry, frontend, peer, nursery)
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
    kind: str, tmp_path: Path
) -> None:
    """It never learns that it was left, and what it says is late; a WebSocket has to answer."""
    data = pattern(500_000)
    async with rigged(kind, tmp_path, b"", reads=False) as rig:
        await rig.peer.send(data[:9_000])

        async def talk() -> None:
            await eventually(lambda: rig.registry["c"].backend.filename == "null")
            for start in range(9_000, len(data), 9_000):
                await rig.peer.send(data[start : start + 9_000])

        rig.nursery.start_soon(talk)
        await rig.registry.change("c", NullOptions(), drain_timeout=0.5)
        await rig.read_until(lambda: len(rig.got) >= len(data))
        assert rig.got == data
