"""Who is at the other end of a socket backend, from a peer's coming to its end."""

from __future__ import annotations

import socket
from typing import cast

import attrs
import pytest
import trio

from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.presence import DismissedPeer, Presence
from trio_chardev.core.runner import DRAIN_TIMEOUT

LINGER = 1.0


@attrs.define(eq=False)
class FakeLink:
    """Notes what is done to it."""

    unsent: bool = False
    takes_more: bool = True
    leaves_at_once: bool = False
    done: list[str] = attrs.Factory(list)
    news: trio.Event = attrs.Factory(trio.Event)
    sock: socket.socket = attrs.field(factory=lambda: socket.socket(socket.AF_UNIX))

    def dismiss(self) -> bool:
        self.done.append("dismissed")
        return not self.leaves_at_once

    def shut_down(self) -> None:
        self.done.append("shut down")

    def close(self) -> None:
        self.done.append("closed")
        self.sock.close()

    async def wait_readable(self) -> None:
        await self.news.wait()


def link_of(fake: FakeLink) -> Link:
    return cast(Link, fake)


@pytest.fixture
async def fake() -> FakeLink:
    return FakeLink()


@pytest.fixture
async def there(fake: FakeLink) -> Presence:
    presence = Presence(LINGER)
    presence.come(link_of(fake))
    return presence


async def test_who_is_lost_is_closed_and_all_that_was_known_is_forgotten(
    there: Presence, fake: FakeLink
) -> None:
    there.dismiss()
    assert there.lose()
    assert fake.done == ["dismissed", "closed"]
    assert (there.link, there.dismissed, there.is_hung_up) == (None, None, False)
    assert not there.lose()


@pytest.mark.parametrize("has_sent_eof", [False, True])
async def test_a_peer_can_linger_while_it_may_read(
    there: Presence, fake: FakeLink, has_sent_eof: bool
) -> None:
    there.has_sent_eof = has_sent_eof
    assert there.can_linger is not has_sent_eof
    fake.unsent, fake.takes_more = has_sent_eof, not has_sent_eof
    assert there.can_linger
    there.dismiss()
    assert not there.can_linger
    fake.close()


async def test_nobody_lingers_without_time_or_peer(fake: FakeLink) -> None:
    none = Presence(LINGER)
    assert not none.can_linger
    never = Presence(0)
    never.come(link_of(fake))
    assert not never.can_linger
    never.close()


async def test_one_that_lingers_is_the_reader_until_the_next_comes(
    there: Presence, fake: FakeLink
) -> None:
    there.is_hung_up = there.has_sent_eof = True
    there.linger()
    assert (there.link, there.is_hung_up, there.reader) == (None, False, link_of(fake))
    assert there.half_closed is not None
    assert there.half_closed.is_ended
    following = FakeLink()
    there.come(link_of(following))
    assert (fake.done, following.done) == (["closed"], [])
    assert there.reader is link_of(following)
    assert not there.has_sent_eof
    there.close()
    assert following.done == ["closed"]


async def test_one_that_is_dismissed_counts_as_hung_up_and_is_not_kept(
    there: Presence, fake: FakeLink
) -> None:
    assert there.keepable is link_of(fake)
    there.dismiss()
    there.dismiss()
    assert fake.done == ["dismissed"]
    assert there.is_hung_up
    assert there.give_up() is None
    assert there.link is link_of(fake)
    there.close()


async def test_one_that_need_not_be_waited_for_is_not_dismissed(fake: FakeLink) -> None:
    fake.leaves_at_once = True
    there = Presence(LINGER)
    there.dismiss()
    there.come(link_of(fake))
    there.dismiss()
    assert (there.dismissed, there.is_hung_up) == (None, False)
    there.close()


async def test_one_that_is_given_up_is_not_closed(there: Presence, fake: FakeLink) -> None:
    assert there.give_up() is link_of(fake)
    assert there.link is None
    there.close()
    assert fake.done == []
    fake.close()


async def test_a_dismissed_peer_is_dropped_once_when_its_time_is_over(
    fake: FakeLink, autojump_clock: trio.testing.MockClock
) -> None:
    dismissed = DismissedPeer(link_of(fake))
    begin = trio.current_time()
    dismissed.drop_in_time()
    assert fake.done == []
    await dismissed.wait_dropped()
    assert trio.current_time() - begin == pytest.approx(DRAIN_TIMEOUT)
    dismissed.drop_in_time()
    assert fake.done == ["shut down"]
    fake.close()


@pytest.mark.parametrize("comes", [True, False])
async def test_the_wait_for_a_dismissed_peers_input_ends_with_its_time(
    fake: FakeLink, comes: bool, autojump_clock: trio.testing.MockClock
) -> None:
    dismissed = DismissedPeer(link_of(fake))
    if comes:
        fake.news.set()
    await dismissed.wait_readable()
    assert fake.done == ([] if comes else ["shut down"])
    fake.close()
