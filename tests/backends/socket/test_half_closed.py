"""A half-closed peer: what it is sent before it is known to be there, with a fake."""

from __future__ import annotations

import errno
import socket

import attrs
import pytest
import trio
import trio.testing

from trio_chardev.backends.socket import half_closed as module
from trio_chardev.backends.socket.half_closed import HalfClosedPeer

LINGER = 10.0  # seconds


@attrs.define
class FakeSocket:
    family: socket.AddressFamily = socket.AF_INET
    unacknowledged: int = 0


@attrs.define
class FakeLink:
    """What of a link is used here."""

    sock: FakeSocket = attrs.Factory(FakeSocket)
    sent: bytearray = attrs.Factory(bytearray)
    is_full: bool = False
    unsent: bool = False
    takes_more: bool = True
    has_descriptors: bool = True
    gone: trio.Event = attrs.Factory(trio.Event)

    def send(self, data: memoryview) -> int:
        if self.is_full:
            raise BlockingIOError
        self.sent += data
        return len(data)

    async def wait_writable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def wait_gone(self) -> None:
        if not self.has_descriptors:
            raise OSError(errno.EMFILE, "none")
        await self.gone.wait()


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> FakeLink:
    monkeypatch.setattr(module, "count_unacknowledged", lambda sock: sock.unacknowledged)
    return FakeLink()


def leaver_on(link: FakeLink) -> HalfClosedPeer:
    return HalfClosedPeer(link, LINGER)  # type: ignore[arg-type]


async def test_one_byte_goes_and_the_rest_when_it_was_acknowledged(link: FakeLink) -> None:
    half_closed = leaver_on(link)
    assert half_closed.send(memoryview(b"abc")) == 1
    link.sock.unacknowledged = 1
    with pytest.raises(BlockingIOError):
        half_closed.send(memoryview(b"bc"))
    link.sock.unacknowledged, link.unsent = 0, True
    with pytest.raises(BlockingIOError):
        half_closed.send(memoryview(b"bc"))
    link.unsent = False
    assert half_closed.send(memoryview(b"bc")) == 2
    link.sock.unacknowledged = 2
    assert half_closed.send(memoryview(b"def")) == 3
    assert link.sent == b"abcdef"


async def test_what_was_not_taken_was_no_question(link: FakeLink) -> None:
    half_closed = leaver_on(link)
    link.is_full = True
    with pytest.raises(BlockingIOError):
        half_closed.send(memoryview(b"abc"))
    link.is_full = False
    assert half_closed.send(memoryview(b"abc")) == 1


async def test_one_who_has_reset_the_connection_has_acknowledged_nothing(link: FakeLink) -> None:
    half_closed = leaver_on(link)
    assert half_closed.send(memoryview(b"abc")) == 1
    link.takes_more = False
    with trio.fail_after(5):
        await half_closed.wait_writable()
    with pytest.raises(BrokenPipeError):
        half_closed.send(memoryview(b"bc"))


async def test_a_unix_peer_is_sent_all_at_once(link: FakeLink) -> None:
    link.sock.family = socket.AF_UNIX
    half_closed = leaver_on(link)
    for _ in range(2):
        link.sock.unacknowledged = 5
        assert half_closed.send(memoryview(b"abc")) == 3


async def test_a_writer_waits_for_the_answer(
    link: FakeLink, autojump_clock: trio.testing.MockClock
) -> None:
    half_closed = leaver_on(link)
    await half_closed.wait_writable()
    assert half_closed.send(memoryview(b"abc")) == 1
    link.sock.unacknowledged = 1
    async with trio.open_nursery() as nursery:

        async def answer() -> None:
            await trio.sleep(1)
            link.sock.unacknowledged = 0

        nursery.start_soon(answer)
        await half_closed.wait_writable()
        assert trio.current_time() >= 1
    assert half_closed.send(memoryview(b"bc")) == 2


@pytest.mark.parametrize("has_descriptors", [True, False])
async def test_it_is_let_go_in_time_and_what_it_is_sent_gives_it_more(
    link: FakeLink, autojump_clock: trio.testing.MockClock, has_descriptors: bool
) -> None:
    """Also where nothing can be had to wait for its leaving with."""
    link.has_descriptors = has_descriptors
    half_closed = leaver_on(link)
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(half_closed.wait_over)
        await trio.sleep(LINGER / 2)
        half_closed.send(memoryview(b"a"))
    assert trio.current_time() - begin == pytest.approx(1.5 * LINGER)


async def test_it_is_let_go_when_it_has_gone(
    link: FakeLink, autojump_clock: trio.testing.MockClock
) -> None:
    half_closed = leaver_on(link)
    link.gone.set()
    await half_closed.wait_over()
    assert trio.current_time() == 0
