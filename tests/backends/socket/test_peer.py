"""The last bytes of a peer: a drain waits until they are safe, while there is a peer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from tests.links import come_to, until
from tests.places import connect_to
from trio_chardev.backends.socket.addresses import InetAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions, open_socket
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.protocols.telnet import telnet_connection
from trio_chardev.testing.pair import receive_some

BULK = memoryview(bytes(1 << 16))
STUCK = 0.05  # seconds without getting any further


@attrs.frozen
class Ends:
    """A backend whose peer does not read, and has been sent what goes."""

    backend: SocketBackend
    peer: trio.abc.Stream
    sent: int


async def _connect(backend: Backend) -> trio.abc.Stream:
    await trio.lowlevel.checkpoint()
    return connect_to(backend)


async def _come_by_telnet(backend: Backend) -> trio.abc.Stream:
    return await come_to(backend, telnet_connection(is_server=False, tn3270=False))


def ignore(data: bytes) -> None:
    """What the peer sends does not matter."""


@asynccontextmanager
async def stuck(kind: str) -> AsyncIterator[Ends]:
    """Over TCP, plain or with telnet."""
    come = _come_by_telnet if kind == "telnet" else _connect
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), telnet=kind == "telnet")
    request = OpenRequest(id="x", on_event=lambda event: None)
    async with open_socket(options, request) as backend:
        assert isinstance(backend, SocketBackend)
        backend.activate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_some, backend, 1)
            peer = await come(backend)
            await until(lambda: backend.is_open)
            nursery.cancel_scope.cancel()  # as if it was replaced: nobody reads it any more
        async with peer:
            sent = 0
            while True:
                with trio.move_on_after(STUCK) as cut:
                    sent += await backend.send_some(BULK)
                if cut.cancelled_caught:
                    break
            yield Ends(backend, peer, sent)


@pytest.mark.parametrize("kind", ["plain", "telnet"])
async def test_a_drain_waits_until_the_peers_kernel_has_all(kind: str) -> None:
    async with stuck(kind) as ends:
        with trio.move_on_after(STUCK) as cut:
            await ends.backend.leaving.finish(ignore)
        assert cut.cancelled_caught
        got = 0
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends.backend.leaving.finish, ignore)
                while got < ends.sent:
                    got += len(await ends.peer.receive_some())


@pytest.mark.parametrize("kind", ["plain", "telnet"])
async def test_a_peer_that_leaves_is_not_waited_for(kind: str) -> None:
    async with stuck(kind) as ends:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends.backend.leaving.finish, ignore)
                await trio.testing.wait_all_tasks_blocked()
                await ends.peer.aclose()
