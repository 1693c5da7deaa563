"""The window size of a chardev: what its users are told of it, and when."""

from __future__ import annotations

import pytest

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.handlers import stateless
from trio_chardev.core.inbox import INBOX_CAPACITY
from trio_chardev.core.queue import InboxQueue
from trio_chardev.errors import ChangeFailedError
from trio_chardev.events import UNKNOWN_SIZE, BackendEvent, Event, WindowSize
from trio_chardev.testing import FakeDevice, FakeFrontend, open_chardev

OPENED, CLOSED = Event.OPENED, Event.CLOSED
SMALL, WIDE = WindowSize(80, 24), WindowSize(132, 43)


def report(chardev: Chardev, event: BackendEvent) -> None:
    """The backend in place reports *event*."""
    chardev.backend._on_event(event)


@pytest.mark.parametrize("size", [(-1, 24), (80, 65536)])
def test_a_size_fits_into_16_bits(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"^(cols|rows) must be from 0 to 65535, not "):
        WindowSize(*size)


def test_only_0x0_is_unknown() -> None:
    assert not UNKNOWN_SIZE.is_known
    assert WindowSize(80, 0).is_known
    assert str(WindowSize(65535, 24)) == "65535x24"


async def test_a_size_comes_in_order_with_the_bytes_and_only_if_it_is_another() -> None:
    device, user = FakeDevice("old"), FakeFrontend(appetite=0)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_event=user.on_event, on_receive=user.on_receive)
        assert frontend.window_size == UNKNOWN_SIZE
        for size in (WIDE, WIDE, SMALL):
            chardev._parts.users.data(b"x")
            report(chardev, size)
        assert frontend.window_size == chardev.window_size == SMALL
        user.appetite = None
        frontend.accept_input()
        assert user.seen == [OPENED, b"x", WIDE, b"x", b"x", SMALL]


async def test_while_nobody_is_there_a_size_is_kept_and_not_told() -> None:
    device, user = FakeDevice("old", connected=False), FakeFrontend()
    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_event=user.on_event)
        report(chardev, WIDE)
        chardev.resized(SMALL)
        assert (user.events, frontend.window_size) == ([], SMALL)
        device.connect()
        report(chardev, SMALL)
        assert user.events == [OPENED]


async def test_somebody_else_may_tell_it_too() -> None:
    user = FakeFrontend()
    async with open_chardev(FakeDevice("old")) as chardev:
        chardev.attach(on_event=user.on_event)
        for size in (WIDE, WIDE, UNKNOWN_SIZE):
            chardev.resized(size)
        assert user.events == [OPENED, WIDE, UNKNOWN_SIZE]


async def test_of_several_users_the_focused_one_is_told() -> None:
    first, second = FakeFrontend(), FakeFrontend()
    async with open_chardev(FakeDevice("old", max_frontends=2)) as chardev:
        frontends = [chardev.attach(on_event=user.on_event) for user in (first, second)]
        report(chardev, WIDE)
        users = chardev._parts.users
        users.set_focus(users.inbox_of(frontends[1]))
        report(chardev, SMALL)
        assert first.events == [OPENED, WIDE, Event.MUX_OUT]
        assert second.events == [OPENED, Event.MUX_IN, SMALL]


async def test_a_new_backend_has_its_own_size_known_before_it_is_in_place_or_not() -> None:
    known, user = FakeDevice("known"), FakeFrontend()
    async with open_chardev(FakeDevice("old")) as chardev:
        frontend = chardev.attach(on_event=user.on_event, be_change=user.be_change)
        report(chardev, SMALL)

        async def be_change(backend: object) -> None:
            assert known.backend is not None
            known.backend._on_event(WIDE)

        chardev.detach(frontend)
        frontend = chardev.attach(on_event=user.on_event, be_change=be_change)
        await chardev.change(known.open)
        assert frontend.window_size == WIDE
        assert user.events == [OPENED, SMALL, OPENED, OPENED]
        chardev.detach(frontend)
        frontend = chardev.attach(be_change=stateless)
        await chardev.change(FakeDevice("unknown").open)
        assert frontend.window_size == UNKNOWN_SIZE


async def test_a_line_that_was_told_a_size_tells_it_its_later_backends_too() -> None:
    lines = [FakeDevice(name, has_line=True) for name in ("old", "new", "refusing")]
    lines[2].line_refuses = WIDE
    async with open_chardev(lines[0]) as chardev:
        frontend = chardev.attach(be_change=stateless)
        await frontend.line.set_window_size(UNKNOWN_SIZE)
        await frontend.line.set_window_size(WIDE)
        await chardev.change(lines[1].open)
        with pytest.raises(ChangeFailedError):
            await chardev.change(lines[2].open)
    assert [device.line_calls for device in lines] == [[WIDE], [WIDE, WIDE], []]


def test_without_room_only_the_last_size_is_kept() -> None:
    queue = InboxQueue(INBOX_CAPACITY)
    queue.put(bytes(INBOX_CAPACITY))
    for size in (WIDE, SMALL):
        queue.put_event(size)
    assert queue.take(INBOX_CAPACITY) == bytes(INBOX_CAPACITY)
    assert [queue.take(1), queue.take(1)] == [SMALL, None]
