"""Carrying over: what the old backend's peer has not taken goes to the new one's, and first."""

from __future__ import annotations

import logging
import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.handlers import stateless
from trio_chardev.core.runner import DRAIN_TIMEOUT
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChangeFailedError,
    ChangeRefusedError,
    ChardevClosedError,
)
from trio_chardev.testing import FakeDevice, FakeFrontend, FakeLeaving, open_chardev

PATIENCE = 5  # seconds


def sent(*devices: FakeDevice) -> list[bytes]:
    return [bytes(device.sent) for device in devices]


async def write(chardev: Chardev, data: bytes) -> None:
    async with chardev.attach(be_change=stateless) as frontend:
        await frontend.send_all(data)


# ---------------------------------------------------------------- to whom it goes


@pytest.mark.parametrize("eager", [False, True])
async def test_what_was_not_taken_goes_to_the_new_backend_before_new_output(
    eager: bool, schedule: int
) -> None:
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", eager=eager)
    async with open_chardev(old) as chardev:
        await write(chardev, b"taken,")
        old.take_all()
        await write(chardev, b"not taken,")
        await chardev.change(new.open, carry=True)
        with trio.fail_after(PATIENCE):
            await write(chardev, b"new")
    assert sent(old, new) == [b"taken,", b"not taken,new"]


async def test_without_carry_it_stays_with_the_old_backend() -> None:
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev:
        await write(chardev, b"lost")
        await chardev.change(new.open)
        await write(chardev, b"new")
        assert sent(old, new) == [b"lost", b"new"]


async def test_what_can_be_taken_at_once_is_there_when_the_change_returns() -> None:
    """A ring that is read by the next command, for one."""
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev:
        await write(chardev, b"console")
        await chardev.change(new.open, carry=True)
        assert new.sent == b"console"


async def test_a_backend_that_holds_nothing_carries_nothing() -> None:
    old, new = FakeDevice("old", eager=True), FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev:
        await write(chardev, b"gone")
        await chardev.change(new.open, carry=True)
        assert sent(old, new) == [b"gone", b""]
        assert chardev._nursery is not None
        assert len(chardev._nursery.child_tasks) == 1, "a task waits for nothing"


async def test_a_writer_that_was_stuck_goes_on_behind_what_was_carried(schedule: int) -> None:
    old = FakeDevice("old", eager=True, holds=True, room=4)
    new = FakeDevice("new")
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(frontend.send_all, b"0123456789")
                await wait_all_tasks_blocked()
                assert old.sent == b"0123"
                await chardev.change(new.open, carry=True)
    assert sent(old, new) == [b"", b"0123456789"]


# ---------------------------------------------------------------- a peer that is reading


async def test_what_a_peer_is_reading_is_not_taken_back(autojump_clock: MockClock) -> None:
    """Else what it reads last would stand behind what went to the new one."""
    old = FakeDevice("old", eager=True, holds=True, settle_seconds=1)
    new = FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev:
        await write(chardev, b"for the old one")
        await chardev.change(new.open, carry=True, drain_timeout=2)
        assert sent(old, new) == [b"for the old one", b""]


async def test_nothing_is_sent_to_it_meanwhile_and_all_it_sends_is_read(
    autojump_clock: MockClock,
) -> None:
    old = FakeDevice("old", eager=True, holds=True, settle_seconds=1)
    new = FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless)
        await frontend.send_all(b"for the old one")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: chardev.change(new.open, carry=True, drain_timeout=2))
            await trio.sleep(0.5)
            nursery.start_soon(frontend.send_all, b"for the new one")
            old.feed(b"typed")
            assert await frontend.receive_some() == b"typed"
            assert chardev.backend is old.backend
        assert sent(old, new) == [b"for the old one", b"for the new one"]


async def test_a_peer_that_is_never_done_has_the_drain_timeout(autojump_clock: MockClock) -> None:
    old = FakeDevice("old", eager=True, holds=True, settle_seconds=math.inf)
    new = FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev:
        await write(chardev, b"not taken")
        begin = trio.current_time()
        await chardev.change(new.open, carry=True, drain_timeout=2)
        assert trio.current_time() - begin == pytest.approx(2)
        assert sent(old, new) == [b"", b"not taken"]


async def test_a_peer_that_begins_to_read_while_users_are_set_up_is_waited_for_too(
    autojump_clock: MockClock,
) -> None:
    """Who comes meanwhile is set up before the change is final."""
    old = FakeDevice("old", eager=True, holds=True)
    new = FakeDevice("new", eager=True)
    late = FakeFrontend()
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:

        async def be_change(backend: Controls) -> None:
            old.settle_seconds, old.is_taking = 1, True
            nursery.start_soon(give_way)

        async def give_way() -> None:
            await trio.sleep(0.5)
            chardev.detach(first)
            chardev.attach(be_change=late.be_change)

        first = chardev.attach(be_change=be_change)
        await first.send_all(b"for the old one")
        begin = trio.current_time()
        await chardev.change(new.open, carry=True, drain_timeout=2)
        assert trio.current_time() - begin == pytest.approx(1)
        assert sent(old, new) == [b"for the old one", b""]
        assert late.bound == "fake:new"


async def test_a_peer_that_begins_again_and_again_has_the_drain_timeout(
    autojump_clock: MockClock,
) -> None:
    old = FakeDevice("old", eager=True, holds=True)
    new = FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:

        async def begin_again() -> None:
            while True:
                await trio.sleep(0.4)
                old.is_taking = True

        async def be_change(backend: Controls) -> None:
            old.is_taking = True
            nursery.start_soon(begin_again)

        old.settle_seconds = 0.7
        await chardev.attach(be_change=be_change).send_all(b"taken")
        begin = trio.current_time()
        await chardev.change(new.open, carry=True, drain_timeout=2)
        assert trio.current_time() - begin == pytest.approx(2)
        assert chardev.backend is new.backend
        nursery.cancel_scope.cancel()


async def test_a_backend_that_breaks_when_it_is_to_stay_does_not_keep_its_user_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = FakeDevice("old", eager=True), FakeDevice("new", activates=False)
    user = FakeFrontend()

    def stay(leaving: FakeLeaving) -> None:
        raise OSError("it breaks")

    async with open_chardev(old) as chardev:
        chardev.attach(be_change=user.be_change)
        monkeypatch.setattr(FakeLeaving, "stay", stay)
        with pytest.raises(BackendError):
            await chardev.change(new.open)
        assert user.bound == "fake:old"
    assert "fake:old: cannot undo its leaving" in caplog.text


async def test_without_carry_nobody_waits_for_it(autojump_clock: MockClock) -> None:
    old, new = FakeDevice("old", eager=True, settle_seconds=math.inf), FakeDevice("new")
    async with open_chardev(old) as chardev:
        begin = trio.current_time()
        await chardev.change(new.open, drain_timeout=2)
        assert trio.current_time() == pytest.approx(begin)


async def test_waiting_for_it_ends_with_its_chardev() -> None:
    old = FakeDevice("old", eager=True, settle_seconds=math.inf)
    new = FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:

        async def change() -> None:
            with pytest.raises(ChardevClosedError):
                await chardev.change(new.open, carry=True, drain_timeout=60)

        nursery.start_soon(change)
        await wait_all_tasks_blocked()
        with trio.fail_after(PATIENCE):
            await chardev.aclose()


async def test_waiting_for_it_is_undone_by_a_cancellation() -> None:
    old = FakeDevice("old", eager=True, holds=True, settle_seconds=math.inf)
    new = FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev:
        await write(chardev, b"not taken")
        with trio.move_on_after(0) as scope:
            await chardev.change(new.open, carry=True, drain_timeout=60)
        assert scope.cancelled_caught
        assert chardev.backend is old.backend
        assert not old.is_settling
        await write(chardev, b", and more")
        assert sent(old, new) == [b"not taken, and more", b""]


@pytest.mark.parametrize("breaks", [False, True])
async def test_who_has_settled_stays_so_until_the_commit(
    breaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", eager=True)

    async def settle(leaving: FakeLeaving, timeout: float) -> None:
        leaving.device.is_settling = True
        if breaks:
            raise RuntimeError("a bug in a kind")

    async def be_change(backend: Controls) -> None:
        assert old.is_settling

    monkeypatch.setattr(FakeLeaving, "settle", settle)
    async with open_chardev(old) as chardev:
        chardev.attach(be_change=be_change)
        await chardev.change(new.open, carry=True)


# ---------------------------------------------------------------- it waits for somebody to come


@pytest.mark.parametrize("eager", [False, True])
async def test_it_waits_for_a_peer_and_is_the_first_that_comes_to_it(
    eager: bool, schedule: int
) -> None:
    old = FakeDevice("old", eager=True, holds=True)
    new = FakeDevice("new", eager=eager, connected=False)
    async with open_chardev(old) as chardev:
        await write(chardev, b"console,")
        await chardev.change(new.open, carry=True)
        with pytest.raises(BackendDisconnectedError):
            await write(chardev, b"nobody is there")
        await wait_all_tasks_blocked()
        assert not new.sent
        new.connect()
        await wait_all_tasks_blocked()
        assert new.sent == b"console,", "nobody had to write for it to be sent"
        await write(chardev, b"more")
        assert new.sent == b"console,more"


async def test_a_writer_that_comes_with_the_peer_is_behind_it(schedule: int) -> None:
    old = FakeDevice("old", eager=True, holds=True)
    new = FakeDevice("new", connected=False)
    async with open_chardev(old) as chardev:
        await write(chardev, b"console,")
        await chardev.change(new.open, carry=True)
        new.connect()
        with trio.fail_after(PATIENCE):
            await write(chardev, b"more")
        assert new.sent == b"console,more"


async def test_who_does_not_wait_may_send_behind_it_at_once() -> None:
    old = FakeDevice("old", eager=True, holds=True)
    new, user = FakeDevice("new", eager=True, connected=False), FakeFrontend()
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=user.be_change)
        await frontend.send_all(b"console,")
        await chardev.change(new.open, carry=True)
        await wait_all_tasks_blocked()
        new.connect()
        assert frontend.try_send(b"more") == 4
        assert new.sent == b"console,more"


async def test_who_does_not_wait_overtakes_nothing_when_room_comes_half_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = FakeDevice("old", eager=True, holds=True)
    new, user = FakeDevice("new", eager=True, connected=False), FakeFrontend()
    rooms = iter([3, 0, 100])  # of one attempt each; the peer reads after the second

    def send_nowait(data: memoryview) -> int:
        new.room = next(rooms)
        return new.put(data)

    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=user.be_change)
        await frontend.send_all(b"console,")
        await chardev.change(new.open, carry=True)
        await wait_all_tasks_blocked()
        with monkeypatch.context() as patch:
            patch.setattr(chardev.backend, "send_nowait", send_nowait)
            new.connect()
            assert frontend.try_send(b"more") == 0
        new.make_room(100)
        await frontend.send_all(b"more")
        assert new.sent == b"console,more"


async def test_a_peer_that_leaves_half_way_leaves_the_rest_to_the_next(schedule: int) -> None:
    old = FakeDevice("old", eager=True, holds=True)
    new = FakeDevice("new", eager=True, room=3)
    async with open_chardev(old) as chardev:
        await write(chardev, b"console,")
        await chardev.change(new.open, carry=True)
        assert new.sent == b"con"
        await wait_all_tasks_blocked()
        new.connect(False)
        new.make_room(0)  # who waits for it looks again, and meets that nobody is there
        await wait_all_tasks_blocked()
        new.connect()
        new.make_room(100)
        await wait_all_tasks_blocked()
        assert new.sent == b"console,"


async def test_send_nowait_is_0_as_long_as_it_is_not_all_sent() -> None:
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", eager=True, room=3)
    async with open_chardev(old) as chardev:
        await write(chardev, b"console,")
        await chardev.change(new.open, carry=True)
        frontend = chardev.attach()
        assert frontend.try_send(b"more") == 0
        new.make_room(7)
        await wait_all_tasks_blocked()
        assert frontend.try_send(b"more") == 2
        assert new.sent == b"console,mo"


async def test_a_peer_that_does_not_read_stops_a_writer_not_a_change(schedule: int) -> None:
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", stuck=True)
    last = FakeDevice("last")
    async with open_chardev(old) as chardev:
        await write(chardev, b"console,")
        await chardev.change(new.open, carry=True)
        frontend = chardev.attach(be_change=stateless)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(frontend.send_all, b"more")
                await wait_all_tasks_blocked()
                await chardev.change(last.open, carry=True)
        assert sent(new, last) == [b"", b"console,more"]


# ---------------------------------------------------------------- a further change decides


async def test_a_further_change_that_carries_brings_it_along_in_order() -> None:
    old = FakeDevice("old", eager=True, holds=True)
    new = FakeDevice("new", eager=True, room=3, holds=True)
    last = FakeDevice("last", eager=True)
    async with open_chardev(old) as chardev:
        await write(chardev, b"console,")
        await chardev.change(new.open, carry=True)
        await chardev.change(last.open, carry=True)
        assert sent(old, new, last) == [b"", b"", b"console,"]


async def test_a_further_change_that_does_not_carry_gives_it_the_drain_timeout(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    old = FakeDevice("old", eager=True, holds=True)
    new, last = FakeDevice("new", eager=True, room=3), FakeDevice("last", eager=True)
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        await write(chardev, b"console,")
        await chardev.change(new.open, carry=True)

        async def read_later() -> None:
            await trio.sleep(2)
            new.make_room(2)

        nursery.start_soon(read_later)
        begin = trio.current_time()
        await chardev.change(last.open, drain_timeout=3)
        assert trio.current_time() - begin == pytest.approx(3)
        await write(chardev, b"more")
        assert sent(new, last) == [b"conso", b"more"]
    assert "fake:new: 3 bytes are lost" in caplog.text


async def test_a_dead_backend_leaves_it_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    old = FakeDevice("old", eager=True, holds=True)
    new, last = FakeDevice("new", eager=True, room=3), FakeDevice("last", eager=True)
    async with open_chardev(old) as chardev:
        await write(chardev, b"console,")
        await chardev.change(new.open, carry=True)
        new.dies_after = 0
        new.feed(b"!")
        await wait_all_tasks_blocked()
        assert not chardev.is_open
        await chardev.change(last.open, carry=True)
        assert sent(new, last) == [b"con", b"sole,"]


async def test_who_sends_it_ends_with_the_change_that_takes_it() -> None:
    devices = [FakeDevice(str(i), eager=True, holds=True, room=i % 2) for i in range(10)]
    devices[0].room = None
    async with open_chardev(devices[0]) as chardev:
        await write(chardev, b"x" * 99)
        for device in devices[1:]:
            await chardev.change(device.open, carry=True)
        await wait_all_tasks_blocked()
        assert chardev._nursery is not None
        tasks = [task.name for task in chardev._nursery.child_tasks]
        assert sum("push" in name for name in tasks) == 1, tasks


async def test_closing_the_chardev_ends_who_waits_to_send_it() -> None:
    old = FakeDevice("old", eager=True, holds=True)
    with trio.fail_after(PATIENCE):
        for new in (FakeDevice("new", connected=False), FakeDevice("new", stuck=True)):
            async with open_chardev(old) as chardev:
                await write(chardev, b"console,")
                await chardev.change(new.open, carry=True)


# ---------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize(
    ("new", "refuses", "error"),
    [
        (FakeDevice("new", opens=False), False, BackendError),
        (FakeDevice("new", activates=False), False, BackendError),
        (FakeDevice("new"), True, ChangeFailedError),
    ],
)
async def test_a_change_that_fails_leaves_it_with_the_original(
    new: FakeDevice, refuses: bool, error: type[Exception]
) -> None:
    old = FakeDevice("old", eager=True, holds=True)
    last = FakeDevice("last", eager=True, room=0)
    user = FakeFrontend(refuses=new if refuses else None)
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=user.be_change)
        await frontend.send_all(b"console")
        with pytest.raises(error):
            await chardev.change(new.open, carry=True)
        assert sent(old, new) == [b"console", b""]
        await chardev.change(last.open, carry=True)
        assert not last.sent
        with pytest.raises(error):
            await chardev.change(new.open, carry=True)
        last.make_room(100)
        await wait_all_tasks_blocked()
        assert last.sent == b"console"


async def test_a_backend_that_breaks_as_it_settles_does_not_undo_the_change(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", eager=True)

    async def settle(leaving: FakeLeaving, timeout: float) -> None:
        raise OSError("it breaks")

    async with open_chardev(old) as chardev:
        await write(chardev, b"carried")
        monkeypatch.setattr(FakeLeaving, "settle", settle)
        await chardev.change(new.open, carry=True)
    assert "fake:old: cannot settle" in caplog.text
    assert sent(old, new) == [b"", b"carried"]


async def test_a_change_that_cannot_know_what_was_taken_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For want of a descriptor, for one: nothing is lost yet, and it can be tried again."""
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", eager=True)

    async def settle(leaving: FakeLeaving, timeout: float) -> None:
        leaving.device.is_settling = True
        raise BackendError("Too many open files")

    async with open_chardev(old) as chardev:
        await write(chardev, b"carried")
        with monkeypatch.context() as patch:
            patch.setattr(FakeLeaving, "settle", settle)
            with pytest.raises(BackendError, match="Too many open files"):
                await chardev.change(new.open, carry=True)
        assert not old.is_settling
        assert sent(old, new) == [b"carried", b""]
        await chardev.change(new.open, carry=True)
        assert sent(old, new) == [b"", b"carried"]


async def test_a_backend_that_breaks_when_it_is_asked_does_not_undo_the_commit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", eager=True)

    def take_back(leaving: FakeLeaving) -> bytes:
        raise OSError("it breaks")

    async with open_chardev(old) as chardev:
        await write(chardev, b"lost")
        monkeypatch.setattr(FakeLeaving, "take_back", take_back)
        await chardev.change(new.open, carry=True)
        assert chardev.backend is new.backend
    assert "fake:old: cannot take back" in caplog.text


async def test_a_backend_that_breaks_when_it_is_sent_does_not_undo_the_commit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", eager=True)

    def put(device: FakeDevice, data: memoryview) -> int:
        raise OSError("it breaks")

    async with open_chardev(old) as chardev:
        await write(chardev, b"lost")
        monkeypatch.setattr(FakeDevice, "put", put)
        await chardev.change(new.open, carry=True)
        await wait_all_tasks_blocked()
        assert chardev.is_open
    assert "cannot send what was carried" in caplog.text
    assert "what was carried can't be sent" in caplog.text


# ---------------------------------------------------------------- how long an old peer may take


async def test_an_old_peer_gets_a_short_time_for_its_last_bytes(autojump_clock: MockClock) -> None:
    first, second, third = (FakeDevice(name, drains=False) for name in ("1", "2", "3"))
    async with open_chardev(first) as chardev:
        begin = trio.current_time()
        await chardev.change(second.open)
        assert trio.current_time() - begin == pytest.approx(DRAIN_TIMEOUT)
        assert not first.is_held_open
        await chardev.change(third.open, drain_timeout=0)
        assert trio.current_time() - begin == pytest.approx(DRAIN_TIMEOUT)
        await chardev.change(first.open, drain_timeout=7)
        assert trio.current_time() - begin == pytest.approx(DRAIN_TIMEOUT + 7)


async def test_the_time_for_its_last_bytes_begins_when_it_was_sent_all(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    old = FakeDevice("old", eager=True, holds=True)
    new = FakeDevice("new", eager=True, room=3)
    there: list[bytes] = []

    async def drain(leaving: FakeLeaving) -> None:
        there.append(bytes(leaving.device.sent))
        await trio.lowlevel.checkpoint()

    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        await write(chardev, b"console")
        await chardev.change(new.open, carry=True)
        assert new.sent == b"con"
        monkeypatch.setattr(FakeLeaving, "drain", drain)
        nursery.start_soon(chardev.change, FakeDevice("last").open)
        await wait_all_tasks_blocked()
        new.make_room(100)
    assert there == [b"console"]


async def test_a_drain_ends_with_its_chardev() -> None:
    """Cancelled is not heard in it: the change has happened."""
    old, new = FakeDevice("old", drains=False), FakeDevice("new")
    scope = trio.CancelScope()
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:

        async def change() -> None:
            with scope:
                await chardev.change(new.open, drain_timeout=60)

        nursery.start_soon(change)
        await wait_all_tasks_blocked()
        assert chardev.backend is new.backend
        scope.cancel()
        await wait_all_tasks_blocked()
        assert old.is_held_open, "a cancellation cut the drain short"
        with trio.fail_after(PATIENCE):
            await chardev.aclose()
    assert not scope.cancelled_caught


@pytest.mark.parametrize("timeout", [-0.1, 60.1, math.inf, math.nan])
async def test_a_drain_timeout_is_bounded(timeout: float) -> None:
    text = r"^'drain-timeout' must be from 0 to 60 seconds$"
    old, new = FakeDevice("old"), FakeDevice("new")
    async with open_chardev(old) as chardev:
        with pytest.raises(ChangeRefusedError, match=text):
            await chardev.change(new.open, drain_timeout=timeout)
        assert chardev.backend is old.backend


# ---------------------------------------------------------------- keep-peer, as far as it is ours


async def test_a_kind_that_can_not_keep_the_peer_refuses() -> None:
    old, new, last = FakeDevice("old"), FakeDevice("new"), FakeDevice("last", keeps_peer=True)
    text = r"^'keep-peer' requires two sockets of the same address$"
    async with open_chardev(old) as chardev:
        with pytest.raises(ChangeRefusedError, match=text):
            await chardev.change(new.open, keep_peer=True)
        assert chardev.backend is old.backend
        assert not new.is_held_open
        await chardev.change(last.open, keep_peer=True)
        assert chardev.backend is last.backend


async def test_a_peer_that_is_kept_gets_what_waits_for_it() -> None:
    first = FakeDevice("first", eager=True, holds=True)
    old, new = FakeDevice("old", eager=True, room=3), FakeDevice("new", keeps_peer=True)
    async with open_chardev(first) as chardev:
        await write(chardev, b"console")
        await chardev.change(old.open, carry=True)
        await chardev.change(new.open, keep_peer=True)
        await wait_all_tasks_blocked()
        assert sent(old, new) == [b"con", b"sole"]
