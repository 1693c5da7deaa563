"""The contract of `trio_chardev.core.backend` as one check, for every kind of backend.

It is modelled on `trio.testing.check_two_way_stream`: each rule is a function that gets a new
backend, on real descriptors, and plays the chardev on one side and the peer on the other. What a
kind does beyond the contract needs tests of its own.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress

import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core.reactor import get_reactor
from trio_chardev.errors import BackendError
from trio_chardev.events import Event
from trio_chardev.testing.pair import BULK, END, EVERY_BYTE, STUCK_AFTER, Pair, in_use, opened

RULE_TIMEOUT = 5.0  # seconds for each rule

OpenPair = Callable[[], AbstractAsyncContextManager[Pair]]


async def check_backend(open_pair: OpenPair) -> None:
    """Check a kind of backend against the contract; *open_pair* gives a fresh pair each time.

    Raises AssertionError, TooSlowError if it hangs, or what the backend wrongly raises, each with
    a note that names the broken rule.
    """
    get_reactor()
    async with open_pair() as pair, opened(pair):
        pass  # these open descriptors that all backends of a run share
    for rule in RULES:
        before = _descriptors()
        try:
            async with open_pair() as pair:
                with trio.fail_after(RULE_TIMEOUT):
                    await rule(pair)
            left = _descriptors() - before
            assert not left, f"not all descriptors were closed: {sorted(left)}"
        except Exception as exc:
            exc.add_note(f"the rule: {rule.__doc__}")
            raise


# ---------------------------------------------------------------- the rules


async def _unused(pair: Pair) -> None:
    """A backend that is closed without a commit leaves no descriptor and no file behind."""
    before, files = _descriptors(), _list(pair.folder)
    async with opened(pair):
        pass
    assert not _descriptors() - before
    assert _list(pair.folder) == files


async def _sending(pair: Pair) -> None:
    """All bytes are sent as they are, in order, and a cancelled send has sent nothing."""
    async with in_use(pair) as session:
        expected = EVERY_BYTE
        await session.send(EVERY_BYTE)
        for steps in range(6):
            message = b"<%d>" % steps
            sent = 0

            async def send_some(message: bytes = message) -> None:
                nonlocal sent
                sent = await session.send_some(message)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_some)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            expected += message[:sent]
        await session.send(END)
        if isinstance(session.peer, trio.abc.ReceiveStream):
            assert await session.peer_receives_to_end() == expected


async def _stuck(pair: Pair) -> None:
    """A sender waits for the peer to receive; if it is cancelled, it has sent nothing."""
    if not pair.blocks or pair.join is None:
        return
    async with in_use(pair) as session:
        sent = await session.fill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.send, END)
            got = await session.peer_receives_to_end()
        assert len(got) == sent, f"{sent} bytes were counted, {len(got)} have come"
        assert got == (BULK * (sent // len(BULK) + 1))[:sent]


async def _receiving(pair: Pair) -> None:
    """What the peer sends is received unchanged, in order, at most max_bytes at a time."""
    async with in_use(pair) as session:
        if isinstance(session.peer, trio.abc.SendStream):
            await session.peer.send_all(EVERY_BYTE * 2 + END)
            assert await session.receive_to_end(max_bytes=7) == EVERY_BYTE * 2


async def _cancelled(pair: Pair) -> None:
    """A cancelled receive has consumed nothing, whenever the bytes came."""
    async with in_use(pair) as session:
        if not isinstance(session.peer, trio.abc.SendStream):
            return
        expected = got = b""
        for steps in range(8):
            async with trio.open_nursery() as nursery:

                async def receive() -> None:
                    nonlocal got
                    got += await session.receive_some(1 << 16)

                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                await session.peer.send_all(message := b"<%d>" % steps)
                expected += message
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        await session.peer.send_all(END)
        got += await session.receive_to_end()
        assert got == expected


async def _draining(pair: Pair) -> None:
    """receive_nowait returns nothing when nothing has come, and in the end all that has."""
    async with in_use(pair) as session:
        assert session.backend.receive_nowait(100) == b""
        if not isinstance(session.peer, trio.abc.SendStream):
            return
        await session.peer.send_all(EVERY_BYTE * 4)
        got = b""
        while len(got) < 1024:
            await session.backend.wait_readable()
            while data := session.backend.receive_nowait(100):
                assert len(data) <= 100
                got += data
        assert got == EVERY_BYTE * 4
        assert session.backend.receive_nowait(100) == b""


async def _leaving(pair: Pair) -> None:
    """All that the peer has sent is received before CLOSED; all errors are BackendError."""
    async with in_use(pair) as session:
        if session.peer is None or not pair.closes:
            return
        session.seen.clear()
        session.seen.append(Event.OPENED)
        expected = b""
        if isinstance(session.peer, trio.abc.SendStream) and pair.keeps:
            await session.peer.send_all(expected := EVERY_BYTE)
        await session.peer.aclose()
        if session.backend.is_open:
            await session.read_until(Event.CLOSED)
        assert session.seen[-1] is Event.CLOSED, "bytes after CLOSED"
        got = b"".join(item for item in session.seen if isinstance(item, bytes))
        assert got == expected, f"{len(got)} of {len(expected)} bytes came before CLOSED"
        for _ in range(3):  # each may break in its own way
            with suppress(BackendError):
                await session.send(b"x")
        with trio.move_on_after(STUCK_AFTER), suppress(BackendError):
            await session.receive_some(10)


async def _closing(pair: Pair) -> None:
    """Closing the backend while a sender is stuck ends that send with an error.

    There is no such rule about readers: one task opens, reads and closes.
    """
    if not pair.blocks or pair.join is None:
        return
    ends: list[Exception] = []

    async def send_on(send_some: Callable[[bytes], Awaitable[int]]) -> None:
        try:
            while True:
                await send_some(b"more")
        except (BackendError, trio.ClosedResourceError) as exc:
            ends.append(exc)

    async with trio.open_nursery() as nursery:
        async with in_use(pair) as session:
            await session.fill()
            send_some = session.send_some
            nursery.start_soon(send_on, send_some)
            await wait_all_tasks_blocked()
            peer, session.peer = session.peer, None  # its leaving would end the send, too
        assert peer is not None
        await wait_all_tasks_blocked()
        await trio.aclose_forcefully(peer)
        assert ends, "it goes on waiting"
        nursery.cancel_scope.cancel()


RULES: tuple[Callable[[Pair], Awaitable[None]], ...] = (
    *(_unused, _sending, _stuck, _receiving),
    *(_cancelled, _draining, _leaving, _closing),
)


def _descriptors() -> set[str]:
    """The open descriptors, with what each refers to, as its number may be reused."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return found


def _list(folder: str | None) -> set[str]:
    return set() if folder is None else set(os.listdir(folder))
