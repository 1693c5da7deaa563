"""Handshakes at a socket: several at the same time, and each with a deadline."""

from __future__ import annotations

import logging

import attrs
import pytest
import trio
import trio.testing

from trio_chardev.backends.socket.connection import Connection
from trio_chardev.backends.socket.handshaking import HANDSHAKE_TIMEOUT, MAX_NEWCOMERS, Handshaking


@attrs.define(eq=False, slots=False)
class Newcomer(Connection):
    """Shakes hands when it is told to."""

    name: str = "somebody"
    error: Exception | None = None
    is_closed: bool = False
    is_shut_down: bool = False
    told: trio.Event = attrs.Factory(trio.Event)

    async def handshake(self) -> None:
        await self.told.wait()
        if self.error is not None:
            raise self.error

    def shut_down(self) -> None:
        self.is_shut_down = True

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def handshaking() -> Handshaking:
    return Handshaking("chardev 'x'")


async def test_the_first_that_is_ready_is_the_peer_and_the_others_stay(
    handshaking: Handshaking,
) -> None:
    slow, fast = Newcomer(), Newcomer()
    handshaking.let_in(slow)
    handshaking.let_in(fast)
    fast.told.set()
    assert handshaking.take() is None
    await handshaking.wait(trio.sleep_forever)
    assert handshaking.take() is fast
    assert handshaking.take() is None
    slow.told.set()
    await handshaking.wait(trio.sleep_forever)
    assert handshaking.take() is slow
    assert len(handshaking) == 0
    assert not slow.is_closed


async def test_two_that_are_ready_at_once_are_served_in_turn(handshaking: Handshaking) -> None:
    both = {Newcomer(), Newcomer()}
    for newcomer in both:
        handshaking.let_in(newcomer)
        newcomer.told.set()
    taken = set()
    for _ in both:
        await handshaking.wait(trio.sleep_forever)
        taken.add(handshaking.take())
    assert taken == both


async def test_waiting_ends_when_more_come(handshaking: Handshaking) -> None:
    handshaking.let_in(Newcomer())
    await handshaking.wait(trio.lowlevel.checkpoint)
    assert handshaking.take() is None


async def test_who_fails_is_logged_and_gone(
    handshaking: Handshaking, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bad = Newcomer(name="him", error=ConnectionAbortedError("no hand"))
    handshaking.let_in(bad)
    bad.told.set()
    await handshaking.wait(trio.sleep_forever)
    assert handshaking.take() is None
    assert len(handshaking) == 0
    assert bad.is_closed
    assert caplog.messages == ["chardev 'x': him: no hand"]


async def test_whatever_one_raises_is_the_end_of_that_one(
    handshaking: Handshaking, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = Newcomer(error=UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text")), Newcomer()
    for newcomer in (bad, good):
        handshaking.let_in(newcomer)
    bad.told.set()
    await handshaking.wait(trio.sleep_forever)
    assert bad.is_closed
    good.told.set()
    await handshaking.wait(trio.sleep_forever)
    assert handshaking.take() is good
    assert not good.is_closed
    assert "chardev 'x': a newcomer is let go: UnicodeDecodeError" in caplog.messages[0]


async def test_at_a_listener_of_many_time_goes_on_when_another_is_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    handshaking = Handshaking("QMP at x", serves_many=True)
    slow = Newcomer()
    handshaking.let_in(slow)
    begin = trio.current_time()
    while len(handshaking):
        quick = Newcomer()
        handshaking.let_in(quick)
        quick.told.set()
        while not (taken := handshaking.take()) and len(handshaking):
            await handshaking.wait(trio.sleep_forever)
        assert taken is quick
        with trio.move_on_after(1):
            await handshaking.wait(trio.sleep_forever)
    assert HANDSHAKE_TIMEOUT <= trio.current_time() - begin <= HANDSHAKE_TIMEOUT + 1
    assert slow.is_closed


async def test_time_passes_in_spite_of_cancelled_waits(
    handshaking: Handshaking,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    slow = Newcomer()
    handshaking.let_in(slow)
    begin = trio.current_time()
    while len(handshaking):
        with trio.move_on_after(3):
            await handshaking.wait(trio.sleep_forever)
    assert trio.current_time() - begin == HANDSHAKE_TIMEOUT
    assert slow.is_closed
    assert caplog.messages == ["chardev 'x': somebody: no handshake in 10 seconds"]


async def test_no_time_passes_while_there_is_a_peer(
    handshaking: Handshaking, autojump_clock: trio.testing.MockClock
) -> None:
    slow, peer = Newcomer(), Newcomer()
    handshaking.let_in(slow)
    with trio.move_on_after(9):
        await handshaking.wait(trio.sleep_forever)
    handshaking.let_in(peer)
    peer.told.set()
    await handshaking.wait(trio.sleep_forever)
    assert handshaking.take() is peer
    await trio.sleep(1000)
    with trio.move_on_after(9):
        await handshaking.wait(trio.sleep_forever)
    assert not slow.is_closed


async def test_one_alone_is_told_why_it_can_not_be_the_peer(
    handshaking: Handshaking, autojump_clock: trio.testing.MockClock
) -> None:
    """A client's server: its failure is the command's error."""
    slow = Newcomer()
    handshaking.let_in(slow)
    with pytest.raises(TimeoutError, match="^no handshake in 10 seconds$"):
        await handshaking.shake_hands(slow)
    assert slow.is_closed
    quick = Newcomer()
    handshaking.let_in(quick)
    quick.told.set()
    await handshaking.shake_hands(quick)
    handshaking.leave(quick)
    assert len(handshaking) == 0


async def test_the_oldest_gives_way_when_there_are_too_many(handshaking: Handshaking) -> None:
    newcomers = [Newcomer() for _ in range(MAX_NEWCOMERS + 2)]
    for newcomer in newcomers:
        handshaking.let_in(newcomer)
    assert [newcomer.is_closed for newcomer in newcomers[:3]] == [True, True, False]
    assert len(handshaking) == MAX_NEWCOMERS


async def test_one_that_was_ready_and_had_to_give_way_is_not_taken(
    handshaking: Handshaking,
) -> None:
    ready = Newcomer()
    handshaking.let_in(ready)
    ready.told.set()
    await handshaking.wait(trio.sleep_forever)
    for _ in range(MAX_NEWCOMERS):
        handshaking.let_in(Newcomer())
    assert ready.is_closed
    assert handshaking.take() is None


def test_all_can_be_ended(handshaking: Handshaking) -> None:
    newcomers = [Newcomer(), Newcomer()]
    for newcomer in newcomers:
        handshaking.let_in(newcomer)
    handshaking.shut_down()
    assert all(newcomer.is_shut_down for newcomer in newcomers)
    assert len(handshaking) == 2
    handshaking.close()
    assert all(newcomer.is_closed for newcomer in newcomers)
    assert len(handshaking) == 0
