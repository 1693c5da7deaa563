"""A socket's peers, when an operation on its chardev is cancelled at every scheduler step.

The peers are half-closed, wait for their turn, are refused, dropped, or left: what they were to get
and what they have sent arrives all the same, and the peer that was there, or was next, still is.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs
import pytest
import trio

from tests.matrix import eventually
from tests.places import connect_to
from tests.steps import steps
from tests.talkers import pattern
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.backends.table import opener_of
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.core.reactor import get_reactor
from trio_chardev.errors import BackendDisconnectedError, ChardevError
from trio_chardev.testing import CancelAtStep

RING = RingbufOptions(size=1 << 20)
ANSWER = pattern(400_000, "answer")  # more than the kernel takes, if the peer does not read
SENT = pattern(300_000)
PATIENCE = 20  # seconds
FEWEST_STEPS = 5


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        await eventually(condition)


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> SocketAddress:
    if request.param == "tcp":
        return InetAddress("127.0.0.1", "0")
    return UnixAddress(str(tmp_path / "s"))


@attrs.define(eq=False)
class Client:
    """Reads all the time, from when it is told to."""

    stream: trio.SocketStream
    got: bytearray = attrs.Factory(bytearray)
    sent: int = 0
    ended: trio.Event = attrs.Factory(trio.Event)
    """Nothing more comes."""

    @property
    def has_ended(self) -> bool:
        return self.ended.is_set()

    async def read(self) -> None:
        try:
            while data := await self.stream.receive_some():
                self.got += data
        except trio.ClosedResourceError:
            pass  # it has left itself
        except trio.BrokenResourceError:
            pass  # it was dropped before it was accepted
        self.ended.set()

    async def talk(self, data: bytes) -> None:
        """Send *data* until it is left, then leave."""
        try:
            while self.sent < len(data) and not self.has_ended:
                piece = data[self.sent : self.sent + 5000]
                await self.stream.send_all(piece)
                self.sent += len(piece)
            await self.ended.wait()
        except trio.BrokenResourceError:
            pass
        finally:
            self.stream.socket.close()


@attrs.define(eq=False)
class Stage:
    """A chardev at a socket, its user, and who has come."""

    injector: CancelAtStep
    nursery: trio.Nursery
    service: trio.CancelScope
    chardev: Chardev
    user: Frontend
    first: SocketBackend
    got: bytearray = attrs.Factory(bytearray)
    written: int = 0
    clients: list[Client] = attrs.Factory(list)

    @property
    def is_cancelled(self) -> bool:
        """What was under fire has ended by the cancellation."""
        return self.injector.scope.cancelled_caught

    @property
    def is_as_before(self) -> bool:
        return self.chardev.backend is self.first

    def come(self, *, reads: bool = True) -> Client:
        self.clients.append(client := Client(connect_to(self.first)))
        if reads:
            self.nursery.start_soon(client.read)
        return client

    async def meet(self, *, reads: bool = True) -> Client:
        """One who is the peer."""
        client = self.come(reads=reads)
        await until(lambda: self.chardev.is_open)
        return client

    async def meet_one_who_sends_no_more(self, *, reads: bool) -> Client:
        client = await self.meet(reads=reads)
        await client.stream.send_all(b"question")
        await client.stream.send_eof()
        await until(lambda: self.first.peer.is_lingering)
        assert self.got == b"question"
        return client

    async def meet_one_who_talks(self) -> Client:
        client = await self.meet()
        self.nursery.start_soon(client.talk, SENT)
        await until(lambda: client.sent > 20_000)
        return client

    async def read(self) -> None:
        while data := await self.user.receive_some(5000):
            self.got += data

    async def write(self, data: bytes) -> None:
        """As the user; counts what was accepted."""
        try:
            while self.written < len(data):
                self.written += await self.user.send_some(data[self.written :])
        except (ChardevError, trio.ClosedResourceError):
            pass

    async def under_fire(
        self, act: Callable[[], Awaitable[object]], *beside: Callable[[], Awaitable[object]]
    ) -> None:
        """Cancel *act*, or the service, while it is done, and the others with it."""
        async with trio.open_nursery() as nursery:
            for other in beside:
                nursery.start_soon(other)
            trio.lowlevel.add_instrument(self.injector)
            self.injector.armed = True
            try:
                if self.injector.scope is self.service:
                    try:
                        await act()
                    except (ChardevError, trio.ClosedResourceError):
                        assert self.service.cancel_called
                else:
                    with self.injector.scope:
                        await act()
            finally:
                self.injector.armed = False
                trio.lowlevel.remove_instrument(self.injector)

    async def change(self, options: RingbufOptions | SocketOptions = RING) -> None:
        await self.chardev.change(opener_of(options), drain_timeout=PATIENCE)

    def in_ring(self) -> bytes:
        """What has come to the new backend."""
        backend = self.chardev.backend
        return backend.read(1 << 20) if isinstance(backend, RingbufBackend) else b""


@asynccontextmanager
async def staged(options: SocketOptions, k: int, when: str, whom: str) -> AsyncIterator[Stage]:
    service, caller = trio.CancelScope(), trio.CancelScope()
    injector = CancelAtStep(k, when, service if whom == "service" else caller)
    async with trio.open_nursery() as nursery:
        chardev = Chardev("x")

        async def serve(*, task_status: trio.TaskStatus[None]) -> None:
            with service:
                async with trio.open_nursery() as own:
                    await own.start(chardev.run)
                    task_status.started()

        await nursery.start(serve)
        await chardev.open(opener_of(options))
        first = chardev.backend
        assert isinstance(first, SocketBackend)
        user = chardev.attach(be_change=stateless)
        stage = Stage(injector, nursery, service, chardev, user, first)
        nursery.start_soon(stage.read)
        yield stage
        await chardev.aclose()
        for client in stage.clients:
            client.stream.socket.close()
        nursery.cancel_scope.cancel()


Play = Callable[[Stage], Awaitable[None]]
WHOM = pytest.mark.parametrize("whom", ["caller", "service"])


async def at_every_step(options: SocketOptions, whom: str, play: Play) -> None:
    """Before and after each; what is opened is closed afterwards."""
    for when in ("before", "after"):
        for k in steps(1000):
            if not await is_reached(k, when, options, whom, play):
                break
        assert k > FEWEST_STEPS


async def is_reached(k: int, when: str, options: SocketOptions, whom: str, play: Play) -> bool:
    get_reactor()  # its descriptor stays
    before = count_descriptors()
    try:
        with trio.fail_after(PATIENCE):
            async with staged(options, k, when, whom) as stage:
                await play(stage)
    except BaseException as exc:
        exc.add_note(f"{when} step {k}")
        raise
    await until(lambda: count_descriptors() <= before)  # a thread may have been given up
    return stage.injector.fired


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---------------------------------------------------------------- one who has shut down its side


@WHOM
async def test_one_who_sends_no_more_gets_what_was_written_before_the_change(
    address: SocketAddress, whom: str
) -> None:
    """And the new backend the rest; if there is no change, all of it."""

    async def play(stage: Stage) -> None:
        client = await stage.meet_one_who_sends_no_more(reads=False)
        stage.nursery.start_soon(stage.write, ANSWER)
        await until(lambda: stage.written > 0)

        async def read() -> None:
            await until(lambda: not stage.is_as_before or stage.injector.fired)
            stage.nursery.start_soon(client.read)

        await stage.under_fire(stage.change, read)
        if stage.service.cancel_called:
            await until(lambda: client.has_ended)
            assert ANSWER.startswith(client.got)
            return
        if stage.is_as_before:
            assert stage.is_cancelled
            assert stage.first.peer.is_lingering
            await until(lambda: len(client.got) == len(ANSWER))
            await stage.change()
        await until(lambda: client.has_ended and stage.written == len(ANSWER))
        assert client.got + stage.in_ring() == ANSWER

    await at_every_step(SocketOptions(addr=address, linger_ms=60_000), whom, play)


@WHOM
async def test_the_next_comes_while_the_last_sends_no_more(
    address: SocketAddress, whom: str
) -> None:
    """It is served, or was left by the change; the last has what was written to it."""

    async def play(stage: Stage) -> None:
        last = await stage.meet_one_who_sends_no_more(reads=True)
        await stage.user.send_all(b"answer")

        async def come() -> None:
            try:
                client = stage.come()
                await client.stream.send_all(b"2")
            except OSError:  # the change was first
                assert not stage.is_as_before or stage.service.cancel_called
            except trio.BrokenResourceError:
                pass  # likewise, in between

        await stage.under_fire(stage.change, come)
        if stage.service.cancel_called:
            await until(lambda: all(client.has_ended for client in stage.clients))
        elif stage.is_as_before:
            await until(lambda: stage.got == b"question2")
            await stage.user.send_all(b"for the next")
            await until(lambda: stage.clients[1].got == b"for the next")
        else:
            assert bytes(stage.got) in (b"question", b"question2")
        await until(lambda: last.has_ended)
        assert last.got == b"answer"

    await at_every_step(SocketOptions(addr=address, linger_ms=60_000), whom, play)


@WHOM
async def test_our_end_is_told_while_the_backend_is_changed(
    address: SocketAddress, whom: str
) -> None:
    """Behind all that was written; or nobody was told."""

    async def play(stage: Stage) -> None:
        client = await stage.meet(reads=True)
        await stage.user.send_all(b"text")
        told: list[bool] = []

        async def tell() -> None:
            try:
                await stage.user.send_eof()
            except (ChardevError, trio.ClosedResourceError):
                told.append(False)
            else:
                told.append(True)

        await stage.under_fire(stage.change, tell)
        if stage.is_as_before and not stage.service.cancel_called:
            assert told == [True]
            with pytest.raises(BackendDisconnectedError):
                await stage.user.send_all(b"more")
            await client.stream.send_all(b"still heard")
            await until(lambda: stage.got == b"still heard")
        await until(lambda: client.has_ended)
        assert client.got == b"text"

    await at_every_step(SocketOptions(addr=address), whom, play)


# ---------------------------------------------------------------- at the door


@WHOM
async def test_those_who_wait_are_served_in_their_order(address: SocketAddress, whom: str) -> None:
    """By the one that is in place, whichever that is."""

    async def play(stage: Stage) -> None:
        first = await stage.meet()
        others = [stage.come(), stage.come()]
        await until(lambda: stage.first.peer.waiting == 2)
        at = stage.first.address
        await stage.under_fire(lambda: stage.change(SocketOptions(addr=at)))
        everybody = [first, *others]
        if stage.service.cancel_called:
            await until(lambda: all(client.has_ended for client in everybody))
            return
        if not stage.is_as_before:
            await until(lambda: first.has_ended)
            everybody.remove(first)
        for number, client in enumerate(everybody):
            assert not any(one.has_ended for one in everybody[number:])
            await client.stream.send_all(b"%d" % number)
            await until(lambda: len(stage.got) == number + 1)  # noqa: B023 - it is awaited here
            await client.stream.aclose()
        assert stage.got == b"012"[: len(everybody)]

    await at_every_step(SocketOptions(addr=address), whom, play)


@WHOM
async def test_one_who_is_refused_disturbs_nobody(address: SocketAddress, whom: str) -> None:
    async def play(stage: Stage) -> None:
        first = await stage.meet()

        async def come() -> None:
            try:
                stage.come()
            except OSError:
                assert not stage.is_as_before or stage.service.cancel_called

        await stage.under_fire(stage.change, come)
        await until(lambda: all(client.has_ended for client in stage.clients[1:]))
        if stage.is_as_before and not stage.service.cancel_called:
            await first.stream.send_all(b"1")
            await until(lambda: stage.got == b"1")
            await stage.user.send_all(b"2")
            await until(lambda: first.got == b"2")
        else:
            await until(lambda: first.has_ended)

    await at_every_step(SocketOptions(addr=address, on_busy="refuse"), whom, play)


# ---------------------------------------------------------------- heard out


@WHOM
async def test_one_who_is_kicked_is_heard_out_through_a_change(
    address: SocketAddress, whom: str
) -> None:
    async def play(stage: Stage) -> None:
        client = await stage.meet_one_who_talks()

        async def kick_and_change() -> None:
            stage.first.peer.disconnect()
            await stage.change()

        await stage.under_fire(kick_and_change)
        await until(lambda: client.has_ended)
        if stage.service.cancel_called:
            assert SENT.startswith(stage.got)
            return
        await until(lambda: len(stage.got) >= client.sent)
        assert stage.got == SENT[: client.sent]
        if stage.is_as_before:
            await until(lambda: not stage.chardev.is_open)
            stage.nursery.start_soon((await stage.meet()).talk, b"next")
            await until(lambda: stage.got.endswith(b"next"))

    await at_every_step(SocketOptions(addr=address), whom, play)


@WHOM
@pytest.mark.parametrize("kicked", [False, True], ids=["", "kicked"])
async def test_a_chardev_that_is_closed_has_heard_its_peer_out(
    address: SocketAddress, whom: str, *, kicked: bool
) -> None:
    """The caller's Cancelled does not undo it."""

    async def play(stage: Stage) -> None:
        client = await stage.meet_one_who_talks()

        async def close() -> None:
            if kicked:
                stage.first.peer.disconnect()
            await stage.chardev.aclose()

        await stage.under_fire(close)
        assert stage.chardev.is_closed
        await until(lambda: client.has_ended)
        if stage.service.cancel_called:
            assert SENT.startswith(stage.got)
        else:
            await until(lambda: len(stage.got) >= client.sent)
            assert stage.got == SENT[: client.sent]

    await at_every_step(SocketOptions(addr=address), whom, play)


@WHOM
async def test_a_chardev_is_closed_while_the_last_of_its_backends_is_heard_out(
    address: SocketAddress, whom: str
) -> None:
    async def play(stage: Stage) -> None:
        client = await stage.meet_one_who_talks()

        async def change() -> None:
            with suppress(ChardevError):  # who comes first is all the same
                await stage.change()

        await stage.under_fire(stage.chardev.aclose, change)
        assert stage.chardev.is_closed
        await until(lambda: client.has_ended)
        assert SENT.startswith(stage.got)

    await at_every_step(SocketOptions(addr=address), whom, play)
