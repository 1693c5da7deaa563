"""Where a socket backend's peers come in: one at a time, checked, after their handshakes."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio

from tests.links import until
from trio_chardev.backends.socket import access
from trio_chardev.backends.socket.addresses import FdAddress, InetAddress
from trio_chardev.backends.socket.entrance import Entrance
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.options import SocketOptions
from trio_chardev.backends.socket.stack import Stack
from trio_chardev.core.backend import OpenRequest
from trio_chardev.errors import BackendError

LOOPBACK = InetAddress("127.0.0.1", "0")
REQUEST = OpenRequest(id="x", on_event=lambda event: None)


@attrs.frozen
class Made:
    """An entrance, and how often it was told that somebody waits."""

    entrance: Entrance
    told: list[None]

    @property
    def address(self) -> tuple[str, int]:
        address = self.entrance.address
        assert isinstance(address, InetAddress)
        return address.host, int(address.port)

    async def next(self) -> Link:
        with trio.fail_after(5):
            while True:
                await self.entrance.wait()
                if (link := self.entrance.take()) is not None:
                    return link


@asynccontextmanager
async def entrance(**options: Any) -> AsyncIterator[Made]:
    """Made with *options*; a server listens, and is in place."""
    structured = SocketOptions(**{"addr": LOOPBACK, **options})
    told: list[None] = []
    made = Entrance(
        "x",
        structured,
        Stack(structured, {}),
        on_event=lambda event: None,
        on_waiting=lambda: told.append(None),
    )
    try:
        if structured.server and structured.addr != FdAddress(""):
            await made.listen(REQUEST, None)
            made.activate()
        yield Made(made, told)
    finally:
        await made.aclose()


async def test_peers_are_given_in_the_order_in_which_they_came() -> None:
    async with entrance() as made:
        with socket.create_connection(made.address) as one, socket.create_connection(made.address):
            first, second = await made.next(), await made.next()
            assert first.name.endswith(f":{one.getsockname()[1]}")
            first.close()
            second.close()


async def test_who_comes_while_a_peer_is_there_waits_and_is_the_next() -> None:
    async with entrance() as made, trio.open_nursery() as nursery:
        with socket.create_connection(made.address):
            peer = await made.next()
            made.entrance.watch(nursery, peer)
            with socket.create_connection(made.address) as other:
                await until(lambda: bool(made.told))
                assert (made.entrance.waiting, made.entrance.others_wait) == (1, True)
                peer.close()
                made.entrance.peer_left()
                following = await made.next()
                assert following.name.endswith(f":{other.getsockname()[1]}")
                following.close()
        nursery.cancel_scope.cancel()


async def test_one_that_is_added_wakes_who_waits() -> None:
    async with entrance(addr=FdAddress("")) as made:
        ours, theirs = socket.socketpair()
        with theirs, trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(made.entrance.wait)
                await trio.testing.wait_all_tasks_blocked()
                link = made.entrance.add(ours)
            assert link is not None
            link.close()


async def test_one_that_has_to_shake_hands_is_no_peer_before() -> None:
    async with entrance(addr=FdAddress(""), telnet=True) as made:
        ours, theirs = socket.socketpair()
        with theirs:
            assert made.entrance.add(ours) is None
            (newcomer,) = made.entrance.newcomers
            assert await made.next() is newcomer
            assert not made.entrance.newcomers
            newcomer.close()


async def test_one_that_can_be_no_peer_stays_the_callers() -> None:
    async with entrance(addr=FdAddress("")) as made:
        with socket.socket() as loose:
            with pytest.raises(OSError, match="not connected"):
                made.entrance.add(loose)
            assert loose.fileno() != -1


async def test_a_guard_that_comes_during_the_handshakes_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "not you")

    async with entrance(addr=FdAddress(""), telnet=True) as made:
        ours, theirs = socket.socketpair()
        with theirs:
            made.entrance.add(ours)
            monkeypatch.setattr(access.Access, "check", refuse)
            made.entrance.guard(None)
            await made.entrance.wait()
            assert made.entrance.take() is None
            theirs.settimeout(5)
            while theirs.recv(100):
                pass  # what telnet had said; then it was closed


async def test_a_client_dials_once_and_owns_nothing_then() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        async with entrance(addr=InetAddress("127.0.0.1", port), server=False) as made:
            link = await made.entrance.dial(REQUEST)
            with server.accept()[0]:
                assert not made.entrance.outlook.may_come
                assert not made.entrance.retry()
            link.close()


async def test_a_dial_that_is_cancelled_in_its_handshakes_leaves_nothing_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        options = {"addr": InetAddress("127.0.0.1", port), "server": False, "websocket": True}
        async with entrance(**options) as made, trio.open_nursery() as nursery:
            nursery.start_soon(made.entrance.dial, REQUEST)
            await until(lambda: bool(made.entrance.newcomers))
            nursery.cancel_scope.cancel()
        with server.accept()[0] as peer:
            peer.settimeout(5)
            while peer.recv(4096):
                pass


async def test_a_server_that_is_not_there_is_the_dialling_clients_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    async with entrance(addr=InetAddress("127.0.0.1", port), server=False) as made:
        with pytest.raises(BackendError, match=f"^Failed to connect to '127.0.0.1:{port}'"):
            await made.entrance.dial(REQUEST)


async def test_a_client_makes_one_connection_at_a_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        options = {"addr": InetAddress("127.0.0.1", port), "server": False, "websocket": True}
        async with entrance(**options) as made:
            ours, theirs = socket.socketpair()
            more, others = socket.socketpair()
            with theirs, others, more:
                assert made.entrance.add(ours) is None
                with pytest.raises(BackendError, match="^failed to add client$"):
                    made.entrance.add(more)
