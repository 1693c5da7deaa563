"""What the old backend's peer sends until it knows that it is left comes first, up to a limit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.core.test_commit import Witness, witnessed
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.core.inbox import INBOX_CAPACITY
from trio_chardev.core.last_words import DRAIN_LIMIT
from trio_chardev.core.runner import DRAIN_TIMEOUT
from trio_chardev.core.tap import Tap
from trio_chardev.errors import ChardevClosedError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing import FakeDevice, FakeFrontend, open_chardev

BREAK, CLOSED, OPENED = Event.BREAK, Event.CLOSED, Event.OPENED


def attach(
    chardev: Chardev, user: FakeFrontend, on_open: Callable[[], None] = lambda: None
) -> Frontend:
    return chardev.attach(
        be_change=user.be_change,
        on_event=user.on_event,
        on_receive=user.on_receive,
        on_open=on_open,
    )


def seen_of(user: FakeFrontend) -> list[object]:
    """What it has seen but for what it was set up for, bytes that follow each other joined."""
    seen: list[object] = []
    for item in user.seen:
        if isinstance(item, bytes) and seen and isinstance(seen[-1], bytes):
            seen[-1] += item
        elif not isinstance(item, str):
            seen.append(item)
    return seen


async def test_they_come_before_what_the_new_one_brings_and_before_it_opens() -> None:
    old = FakeDevice("old", last_words=b"bye")
    new, user = FakeDevice("new"), FakeFrontend()
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        new.feed(b"hello")
        await chardev.change(new.open)
        await wait_all_tasks_blocked()
    assert seen_of(user) == [OPENED, b"bye", OPENED, b"hello"]


async def test_meanwhile_what_is_written_goes_to_the_new_one() -> None:
    old, new = FakeDevice("old", answers=False), FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        frontend = chardev.attach(be_change=stateless)
        nursery.start_soon(chardev.change, new.open)
        await wait_all_tasks_blocked()
        await frontend.send_all(b"to the new one")
        assert new.sent == b"to the new one"
        assert old.is_held_open
        nursery.cancel_scope.cancel()


async def test_who_waits_to_send_hears_at_once_that_somebody_has_come_to_the_new_one() -> None:
    old, new = FakeDevice("old", answers=False), FakeDevice("new", connected=False)
    user, heard = FakeFrontend(), trio.Event()
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        attach(chardev, user, on_open=heard.set)
        nursery.start_soon(chardev.change, new.open)
        await wait_all_tasks_blocked()
        new.connect()
        assert heard.is_set()
        assert user.events == [OPENED, CLOSED]
        nursery.cancel_scope.cancel()


async def test_who_waits_to_send_hears_at_once_that_somebody_is_at_the_new_one_already() -> None:
    old, new = FakeDevice("old", answers=False), FakeDevice("new")
    user, heard = FakeFrontend(), list[str]()
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        attach(chardev, user, on_open=lambda: heard.append(chardev.backend.filename))
        nursery.start_soon(chardev.change, new.open)
        await wait_all_tasks_blocked()
        assert heard[-1:] == ["fake:new"]
        nursery.cancel_scope.cancel()


async def test_what_came_before_the_commit_is_handed_over_at_once() -> None:
    """Not when the old peer has said its last word."""
    for is_reader in (False, True):
        old, new = FakeDevice("old", answers=False), FakeDevice("new", connected=False)
        user = FakeFrontend()
        got: list[bytes] = []

        async def say(backend: Controls, old: FakeDevice = old) -> None:
            old.feed(b"before")
            await wait_all_tasks_blocked()

        async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
            on_receive = None if is_reader else user.on_receive
            frontend = chardev.attach(be_change=say, on_receive=on_receive)

            async def read(frontend: Frontend = frontend, got: list[bytes] = got) -> None:
                got.append(await frontend.receive_some())

            if is_reader:
                nursery.start_soon(read)
            nursery.start_soon(chardev.change, new.open)
            with trio.fail_after(5):
                while chardev.backend is not new.backend:
                    await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()
            assert (got or user.seen) == [b"before"]
            nursery.cancel_scope.cancel()


async def test_a_silent_peer_is_given_up_after_the_drain_timeout(
    autojump_clock: MockClock,
) -> None:
    old, new, user = FakeDevice("old", answers=False), FakeDevice("new"), FakeFrontend()
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        new.feed(b"hello")
        begin = trio.current_time()
        await chardev.change(new.open)
        assert trio.current_time() - begin == DRAIN_TIMEOUT
        await wait_all_tasks_blocked()
        assert seen_of(user) == [OPENED, OPENED, b"hello"]
        assert not old.is_held_open


async def test_a_new_one_that_closes_meanwhile_is_told_of_behind_them(
    autojump_clock: MockClock,
) -> None:
    old, new, user = FakeDevice("old", answers=False), FakeDevice("new"), FakeFrontend()
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        attach(chardev, user)
        nursery.start_soon(chardev.change, new.open)
        await wait_all_tasks_blocked()
        new.connect(False)
        old.feed(b"late")
        await wait_all_tasks_blocked()
        assert seen_of(user) == [OPENED, b"late"]
        await trio.sleep(2 * DRAIN_TIMEOUT)
        assert seen_of(user) == [OPENED, b"late", CLOSED]


async def test_closed_is_not_told_twice(autojump_clock: MockClock) -> None:
    old, new = FakeDevice("old", answers=False), FakeDevice("new", connected=False)
    user = FakeFrontend()
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        await chardev.change(new.open)
        assert user.events == [OPENED, CLOSED]
        new.connect()
        assert user.events == [OPENED, CLOSED, OPENED]


async def test_who_comes_meanwhile_gets_them_and_hears_opened_behind_them(
    autojump_clock: MockClock,
) -> None:
    old, new, user = FakeDevice("old", answers=False), FakeDevice("new"), FakeFrontend()
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        nursery.start_soon(chardev.change, new.open)
        await wait_all_tasks_blocked()
        old.feed(b"kept ")
        await wait_all_tasks_blocked()
        attach(chardev, user)
        old.feed(b"and new")
        await wait_all_tasks_blocked()
        assert seen_of(user) == [b"kept and new"]
        await trio.sleep(2 * DRAIN_TIMEOUT)
        assert seen_of(user) == [b"kept and new", OPENED]


async def test_a_break_has_its_place_among_them() -> None:
    old, new, user = FakeDevice("old", answers=False), FakeDevice("new"), FakeFrontend()
    observed: list[BackendEvent] = []
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        attach(chardev, user)
        chardev.on_event = lambda chardev, event, backend: observed.append(event)
        nursery.start_soon(chardev.change, new.open)
        await wait_all_tasks_blocked()
        observed.clear()
        old.feed(b"a")
        await wait_all_tasks_blocked()
        old.say(BREAK)
        old.feed(b"b")
        await wait_all_tasks_blocked()
        assert seen_of(user) == [OPENED, b"a", BREAK, b"b"]
        assert observed == [BREAK]
        old.connect(False)
        assert observed == [BREAK], "it is not in place"
        nursery.cancel_scope.cancel()


async def test_the_new_one_is_attended_to_but_not_read_meanwhile() -> None:
    """Its peer may leave, and then be followed by another."""
    old, new = FakeDevice("old", answers=False), FakeDevice("new")
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        chardev.attach(be_change=stateless)
        nursery.start_soon(chardev.change, new.open)
        await wait_all_tasks_blocked()
        new.feed(b"new")
        new.hang_up()
        await wait_all_tasks_blocked()
        assert new.unread == 3
        assert chardev.backend.peer.is_hung_up
        assert chardev._parts.leaving is not None
        nursery.cancel_scope.cancel()


async def test_they_are_bounded(autojump_clock: MockClock) -> None:
    """In the time that a drain may take: it goes by when all are blocked and nobody waits for that."""
    old, new = FakeDevice("old", answers=False), FakeDevice("new")
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        frontend = chardev.attach(be_change=stateless)
        nursery.start_soon(chardev.change, new.open)
        await wait_all_tasks_blocked()
        for _ in range(3):
            old.feed(bytes(DRAIN_LIMIT // 2))
            await wait_all_tasks_blocked()
        assert frontend.statistics().bytes_waiting == DRAIN_LIMIT
        nursery.cancel_scope.cancel()


async def test_without_a_user_as_many_are_kept_as_always_and_the_rest_is_counted(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = FakeDevice("old", answers=False), FakeDevice("new")
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        nursery.start_soon(chardev.change, new.open)
        await wait_all_tasks_blocked()
        old.feed(b"x" * (INBOX_CAPACITY + 1))
        await trio.sleep(2 * DRAIN_TIMEOUT)
        frontend = chardev.attach(be_change=stateless)
        new.feed(b"y")
        assert frontend.take_ready() == b"x" * INBOX_CAPACITY
        assert await frontend.receive_some() == b"y"
    assert ": 1 bytes that nobody has read are lost" in caplog.text


async def test_taps_of_the_old_one_are_shown_them_before_they_are_told_that_it_is_replaced() -> (
    None
):
    old, new = FakeDevice("old", last_words=b"bye"), FakeDevice("new")
    chardev = Chardev("x")
    first, second = Witness(chardev), Witness(chardev)
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        await chardev.open(witnessed(old, first))
        first.seen.clear()
        new.feed(b"hello")
        await chardev.change(witnessed(new, second))
        await wait_all_tasks_blocked()
        assert [what for what, _ in first.seen] == [
            *"bye",
            "fake:old gives way to fake:new",
        ]
        assert [what for what, _ in second.seen] == ["activate", str(OPENED), "hello"]
        nursery.cancel_scope.cancel()


async def test_the_next_change_is_as_the_first() -> None:
    """Nothing is left of the last words: a tap is told once that its backend was replaced."""
    chardev = Chardev("x")
    witness = Witness(chardev)
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        await chardev.open(FakeDevice("first", last_words=b"bye").open)
        await chardev.change(witnessed(FakeDevice("second"), witness))
        await chardev.change(FakeDevice("third").open)
        told = [what for what, _ in witness.seen if "gives way" in what]
        assert told == ["fake:second gives way to fake:third"]
        nursery.cancel_scope.cancel()


async def test_taps_are_shown_them_before_the_user_gets_them() -> None:
    seen: list[str] = []

    class Noting(Tap):
        def received(self, data: bytes) -> None:
            seen.append(f"tap: {data.decode()}")

    def on_receive(data: bytes) -> int:
        seen.append(f"user: {data.decode()}")
        return len(data)

    chardev = Chardev("x")
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        await chardev.open(witnessed(FakeDevice("old", last_words=b"bye"), Noting()))
        chardev.attach(be_change=stateless, on_receive=on_receive)
        await chardev.change(FakeDevice("new").open)
        nursery.cancel_scope.cancel()
    assert "".join(what[-1] for what in seen if what.startswith("user")) == "bye"
    assert seen[::2] == [what.replace("user", "tap") for what in seen[1::2]]


async def test_a_chardev_that_is_closed_meanwhile_does_not_wait_for_them() -> None:
    old, new = FakeDevice("old", answers=False), FakeDevice("new")
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        frontend = chardev.attach(be_change=stateless)
        nursery.start_soon(chardev.change, new.open)
        await wait_all_tasks_blocked()
        old.feed(b"late")
        await wait_all_tasks_blocked()
        with trio.fail_after(5):
            await chardev.aclose()
        assert await frontend.receive_some() == b"late"
        assert await frontend.receive_some() == b""


# ---------------------------------------------------------------- a chardev that is closed


async def test_users_of_a_chardev_that_is_closed_get_them_before_the_end() -> None:
    device = FakeDevice("old", last_words=b"bye")
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        device.feed(b"unread, ")
        got = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chardev.aclose)
            while data := await frontend.receive_some():
                got += data
    assert got == b"unread, bye"


async def test_closing_a_chardev_waits_for_them_for_the_drain_timeout(
    autojump_clock: MockClock,
) -> None:
    device, user = FakeDevice("old", answers=False), FakeFrontend()
    async with open_chardev(device) as chardev:
        attach(chardev, user)
        begin = trio.current_time()
        await chardev.aclose()
        assert trio.current_time() - begin == DRAIN_TIMEOUT
        assert user.events == [OPENED]


async def test_a_backend_that_can_not_be_heard_out_does_not_keep_users_from_the_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    device = FakeDevice("old", answers=False, lets_go=False)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        begin = trio.current_time()
        await chardev.aclose()
        assert trio.current_time() == begin
        with trio.fail_after(5):
            assert await frontend.receive_some() == b""
    assert "its peer is not heard out" in caplog.text


async def test_a_chardev_that_is_being_closed_takes_nothing_more() -> None:
    async with open_chardev(FakeDevice("old", answers=False)) as chardev:
        frontend = chardev.attach()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chardev.aclose)
            await wait_all_tasks_blocked()
            with pytest.raises(ChardevClosedError):
                await frontend.send_all(b"too late")
            nursery.cancel_scope.cancel()


async def test_while_they_are_heard_before_the_end_nobody_else_reads() -> None:
    device = FakeDevice("old", answers=False)
    async with open_chardev(device) as chardev:
        chardev.attach()
        backend = chardev.backend
        receive, readers = backend.receive_nowait, []

        def note(max_bytes: int) -> bytes:
            readers.append(trio.lowlevel.current_task())
            return receive(max_bytes)

        closer: list[trio.lowlevel.Task] = []

        async def close() -> None:
            closer.append(trio.lowlevel.current_task())
            await chardev.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            await wait_all_tasks_blocked()
            backend.receive_nowait = note  # type: ignore[method-assign]
            device.feed(b"late")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert set(readers) <= set(closer)


async def test_closing_a_chardev_that_nobody_uses_waits_for_nothing(
    autojump_clock: MockClock,
) -> None:
    async with open_chardev(FakeDevice("old", answers=False)) as chardev:
        begin = trio.current_time()
        await chardev.aclose()
        assert trio.current_time() == begin
