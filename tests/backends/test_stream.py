"""A kind on any Trio stream: the contract, its end, and bytes in transit in a change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import memory_stream_one_way_pair, memory_stream_pair, wait_all_tasks_blocked

from trio_chardev.backends.stream import MAX_PIECE, open_stream
from trio_chardev.core.backend import Backend, Opener
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import BackendDisconnectedError
from trio_chardev.events import Event
from trio_chardev.testing import FakeDevice, FakeFrontend, OpenPair, Pair, check_backend

PATIENCE = 5  # seconds


def opener_of(stream: trio.abc.Stream) -> Opener:
    return lambda request: open_stream(request, stream, "stream:ours")


@asynccontextmanager
async def open_socket_pair() -> AsyncIterator[Pair]:
    ours, theirs = trio.socket.socketpair()
    peer = trio.SocketStream(theirs)

    async def join(backend: Backend) -> trio.abc.AsyncResource:
        return peer

    async with peer:
        yield Pair(open=opener_of(trio.SocketStream(ours)), join=join)
        ours.close()


@asynccontextmanager
async def open_memory_pair() -> AsyncIterator[Pair]:
    ours, theirs = memory_stream_pair()

    async def join(backend: Backend) -> trio.abc.AsyncResource:
        return theirs

    yield Pair(open=opener_of(ours), join=join, blocks=False)


@pytest.mark.parametrize("open_pair", [open_socket_pair, open_memory_pair])
async def test_it_keeps_the_contract_of_backends(open_pair: OpenPair) -> None:
    await check_backend(open_pair)


@asynccontextmanager
async def open_on(
    stream: trio.abc.Stream, user: FakeFrontend
) -> AsyncIterator[tuple[Chardev, Frontend]]:
    """A chardev on *stream*, and its user."""
    async with trio.open_nursery() as nursery:
        chardev = Chardev("c")
        await nursery.start(chardev.run)
        await chardev.open(opener_of(stream))
        yield (
            chardev,
            chardev.attach(be_change=stateless, on_event=user.on_event, on_receive=user.on_receive),
        )
        nursery.cancel_scope.cancel()


async def test_what_came_is_received_before_closed() -> None:
    (ours, theirs), user = memory_stream_pair(), FakeFrontend()
    async with open_on(ours, user) as (_, frontend):
        await theirs.send_all(b"last words")
        await theirs.aclose()
        await wait_all_tasks_blocked()
        assert user.seen == [Event.OPENED, b"last words", Event.CLOSED]
        with pytest.raises(BackendDisconnectedError):
            await frontend.send_all(b"x")


async def test_one_that_takes_no_more_may_still_bring_something() -> None:
    (to_us, from_them), (from_us, to_them) = (
        memory_stream_one_way_pair(),
        memory_stream_one_way_pair(),
    )
    user = FakeFrontend()
    async with open_on(trio.StapledStream(from_us, from_them), user) as (_, frontend):
        await to_them.aclose()
        await frontend.send_all(b"found out by this")
        await wait_all_tasks_blocked()
        with pytest.raises(BackendDisconnectedError):
            await frontend.send_all(b"x")
        await to_us.send_all(b"an answer")
        await wait_all_tasks_blocked()
        assert user.seen == [Event.OPENED, b"an answer"]


async def test_what_was_accepted_is_sent_before_it_is_closed_by_a_change() -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with open_on(ours, FakeFrontend()) as (chardev, frontend), trio.open_nursery() as nursery:
        await frontend.send_all(b"to the old one")
        await wait_all_tasks_blocked()

        @nursery.start_soon
        async def read() -> None:
            await wait_all_tasks_blocked()  # the change is waiting for this
            assert await theirs.receive_some(100) == b"to the old one"
            assert await theirs.receive_some(100) == b"", "it is closed"

        new = FakeDevice("new", eager=True)
        await chardev.change(new.open, drain_timeout=PATIENCE)
        await frontend.send_all(b"to the new one")
        assert new.sent == b"to the new one"


async def test_what_can_not_be_sent_in_time_is_lost_and_that_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours, _ = trio.testing.lockstep_stream_pair()
    async with open_on(ours, FakeFrontend()) as (chardev, frontend):
        await frontend.send_all(b"12345")
        await chardev.change(FakeDevice("new").open, drain_timeout=0)
    assert "stream:ours: up to 5 bytes that were sent to it are lost" in caplog.text


async def test_a_writer_waits_while_a_piece_is_being_sent() -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with open_on(ours, FakeFrontend()) as (_, frontend), trio.open_nursery() as nursery:
        nursery.start_soon(frontend.send_all, bytes(3 * MAX_PIECE))
        await wait_all_tasks_blocked()
        assert frontend.try_send(b"x") == 0
        size = 0
        while size < 3 * MAX_PIECE:
            size += len(await theirs.receive_some(MAX_PIECE))
        nursery.cancel_scope.cancel()
