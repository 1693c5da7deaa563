"""Changing a chardev: QEMU's rules and error texts, events, rollback, everything that hangs."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.runner import CLEANUP_TIMEOUT
from trio_chardev.errors import (
    BackendError,
    ChangeFailedError,
    ChangeRefusedError,
    ChardevBusyError,
    ChardevClosedError,
)
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing import (
    CancelAtStep,
    FakeDevice,
    FakeFrontend,
    FakePeer,
    open_chardev,
)

CLOSED, OPENED = Event.CLOSED, Event.OPENED
PATIENCE = 5  # seconds


def attach(chardev: Chardev, user: FakeFrontend) -> None:
    chardev.attach(be_change=user.be_change, on_event=user.on_event)


def check_in_place(chardev: Chardev, in_place: FakeDevice, *others: FakeDevice) -> None:
    """Promise 1, and that nothing is left running."""
    assert chardev.backend is in_place.backend
    assert in_place.is_held_open
    assert not in_place.is_leaving
    assert not any(other.is_held_open for other in others)
    assert chardev._nursery is not None
    assert len(chardev._nursery.child_tasks) == 1
    assert chardev._nursery is not None
    assert len(chardev._nursery.child_tasks) == 1


# ---------------------------------------------------------------- the rules


async def test_a_change_puts_the_new_backend_in_place_and_closes_the_old_one() -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new"), FakeFrontend()
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        backend = await chardev.change(new.open)
        assert backend is chardev.backend
        check_in_place(chardev, new, old)
        assert user.bound == "fake:new"


async def test_the_opener_is_told_the_id_and_what_it_replaces() -> None:
    told = []
    requests = []
    old, new = FakeDevice("old"), FakeDevice("new")
    async with open_chardev(old, "board") as chardev:
        original = chardev.backend

        def opener(request: OpenRequest) -> AbstractAsyncContextManager[Backend]:
            requests.append(request)
            told.append((request.id, request.replaces))
            return new.open(request)

        await chardev.change(opener)
        assert told == [("board", original)]
        assert requests[0].replaces is None  # it is over, and need not be kept


async def test_a_replayed_chardev_refuses_before_anything_else() -> None:
    old, new = FakeDevice("old"), FakeDevice("new")
    async with open_chardev(old) as chardev:
        chardev.attach()  # which would refuse too
        chardev.is_replayed = True
        text = r"Chardev 'serial0' cannot be changed in record/replay mode"
        with pytest.raises(ChangeRefusedError, match=rf"^{text}$"):
            await chardev.change(new.open)
        check_in_place(chardev, old, new)


async def test_a_frontend_without_be_change_refuses_before_the_new_backend_is_opened() -> None:
    old, new = FakeDevice("old"), FakeDevice("new", opens=False)
    async with open_chardev(old) as chardev:
        chardev.attach()
        text = "^Chardev user does not support chardev hotswap\n"
        with pytest.raises(ChangeRefusedError, match=text) as caught:
            await chardev.change(new.open)
        [note] = caught.value.__notes__
        assert note == "It was attached without be_change; be_change=stateless needs no set-up."
        check_in_place(chardev, old, new)


@pytest.mark.parametrize("has_frontend", [False, True])
async def test_a_backend_that_does_not_open_leaves_the_original(has_frontend: bool) -> None:
    """With its own words; and, other than in QEMU, without a frontend too."""
    old, new, user = FakeDevice("old"), FakeDevice("new", opens=False), FakeFrontend()
    async with open_chardev(old) as chardev:
        if has_frontend:
            attach(chardev, user)
        with pytest.raises(BackendError, match=r"^new does not open$"):
            await chardev.change(new.open)
        check_in_place(chardev, old, new)
        assert user.seen == ([OPENED] if has_frontend else [])


async def test_a_frontend_that_does_not_take_it_is_set_up_for_the_original_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    old, new = FakeDevice("old"), FakeDevice("new")
    user = FakeFrontend(refuses=new)
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        with pytest.raises(
            ChangeFailedError,
            match=r"^Chardev 'serial0' change failed: the frontend does not want this backend$",
        ) as caught:
            await chardev.change(new.open)
        assert isinstance(caught.value.__cause__, ValueError)
        assert "does not want this backend" in caplog.text
        assert user.seen == [OPENED, "fake:new", "fake:old"]
        check_in_place(chardev, old, new)


async def test_a_backend_that_fails_in_the_commit_leaves_the_original() -> None:
    old, new = FakeDevice("old"), FakeDevice("new", activates=False)
    user = FakeFrontend()
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        with pytest.raises(BackendError, match="new does not take its place"):
            await chardev.change(new.open)
        assert user.seen == [OPENED, "fake:new", "fake:old"]
        check_in_place(chardev, old, new)


async def test_a_backend_that_takes_fewer_users_than_there_are_is_refused() -> None:
    old, new = FakeDevice("old", max_frontends=2), FakeDevice("new")
    text = "^Chardev 'serial0' has 2 users, but 'fake:new' can have only 1$"
    async with open_chardev(old) as chardev:
        for _ in range(2):
            chardev.attach(be_change=FakeFrontend().be_change)
        with pytest.raises(ChangeRefusedError, match=text):
            await chardev.change(new.open)
        assert chardev.backend is old.backend
        assert not new.is_held_open


async def test_a_backend_that_can_not_be_guarded_does_not_take_the_place_of_one_that_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new, last = FakeDevice("old"), FakeDevice("new"), FakeDevice("last")
    guarded = []

    def guard(peer: FakePeer) -> None:
        if peer.device is new:
            raise BackendError("anybody may come")
        assert not peer.device.is_active or peer.device is old, "too late"
        guarded.append(peer.device.name)

    monkeypatch.setattr(FakePeer, "guard", guard)
    async with open_chardev(old) as chardev:
        chardev.guard()
        with pytest.raises(BackendError, match="^anybody may come$"):
            await chardev.change(new.open)
        assert chardev.backend is old.backend
        assert not new.is_active
        await chardev.change(last.open)
        assert guarded == ["old", "last"]


async def test_a_backend_that_dies_before_the_commit_leaves_the_original() -> None:
    old, new = FakeDevice("old"), FakeDevice("new", dies_early=True)
    user = FakeFrontend(steps=20)
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        with pytest.raises(BackendError, match="closed before it was in place") as caught:
            await chardev.change(new.open)
        assert str(caught.value.__cause__) == "new died"
        check_in_place(chardev, old, new)


async def test_a_dead_backend_can_be_changed_without_a_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Mortal(FakeDevice):
        is_dead = False

        def take(self, max_bytes: int) -> bytes:
            if self.is_dead:
                raise OSError("Bad file descriptor")
            return super().take(max_bytes)

    old, user = Mortal("old"), FakeFrontend()
    async with open_chardev(old) as chardev:
        attach(chardev, user)  # while it lives, so that the user hears of both
        old.is_dead = True
        old.feed(b"x")
        await wait_all_tasks_blocked()
        assert "the backend is gone: OSError: Bad file descriptor" in caplog.text
        caplog.clear()
        await chardev.change(FakeDevice("new").open)
        assert not caplog.records
        assert user.seen == [OPENED, CLOSED, "fake:new", OPENED]


async def test_a_backend_that_dies_is_a_closed_and_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Promise 8."""
    user = FakeFrontend()
    async with open_chardev(FakeDevice("old", dies_after=1)) as chardev:
        attach(chardev, user)
        await wait_all_tasks_blocked()
        assert user.seen == [OPENED, CLOSED]
        assert not chardev.is_open
        assert not chardev.is_closed
        assert "chardev 'serial0': the backend is gone: old died" in caplog.text


async def test_a_chardev_has_one_frontend_at_a_time() -> None:
    async with open_chardev(FakeDevice("old")) as chardev:
        async with chardev.attach():
            with pytest.raises(ChardevBusyError, match=r"^Device 'serial0' is in use$"):
                chardev.attach()
        chardev.attach()


async def test_a_closed_chardev_can_be_neither_attached_to_nor_changed() -> None:
    async with open_chardev(FakeDevice("old")) as chardev:
        await chardev.aclose()
        with pytest.raises(ChardevClosedError, match=r"^Chardev 'serial0' is closed$"):
            chardev.attach()
        with pytest.raises(ChardevClosedError):
            await chardev.change(FakeDevice("new").open)
        assert chardev.is_closed
        assert not chardev.is_open
        await chardev.aclose()


async def test_a_chardev_that_was_closed_before_it_was_opened_opens_nothing() -> None:
    device, chardev = FakeDevice("old"), Chardev("serial0")
    await chardev.aclose()
    with trio.fail_after(PATIENCE), pytest.raises(ChardevClosedError):
        await chardev.open(device.open)
    assert device.backend is None


@pytest.mark.parametrize("fault", [{"opens": False}, {"activates": False}, {"opens_late": True}])
async def test_a_first_backend_that_fails_is_closed(
    fault: dict[str, bool], autojump_clock: MockClock
) -> None:
    device, chardev = FakeDevice("old", **fault), Chardev("serial0")  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        with pytest.raises(BackendError):
            await chardev.open(device.open, timeout=1)
        assert not device.is_held_open
        await chardev.aclose()


# ---------------------------------------------------------------- events


@pytest.mark.parametrize(
    ("old_open", "new_open", "events"),
    [
        (True, False, [CLOSED, "fake:new"]),
        (True, True, ["fake:new", OPENED]),
        (False, True, ["fake:new", OPENED]),
        (False, False, ["fake:new"]),
    ],
)
async def test_the_events_of_a_change_are_qemus(
    old_open: bool, new_open: bool, events: list[object]
) -> None:
    old, new = FakeDevice("old", connected=old_open), FakeDevice("new", connected=new_open)
    user, observed = FakeFrontend(), []
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        user.seen.clear()
        chardev.on_event = lambda chardev, event, backend: observed.append(event)
        await chardev.change(new.open)
        assert user.seen == events
        assert observed == [event for event in events if event != "fake:new"]
        new.connect(not new_open)
        assert user.seen[-1] is (CLOSED if new_open else OPENED)


@pytest.mark.parametrize(
    ("old_open", "new_open", "events"),
    [
        (True, False, [CLOSED, "fake:new", "fake:old", OPENED]),
        (True, True, ["fake:new", "fake:old"]),
        (False, True, ["fake:new", "fake:old"]),
        (False, False, ["fake:new", "fake:old"]),
    ],
)
async def test_rollback_sends_opened_again_if_closed_had_been_sent(
    old_open: bool, new_open: bool, events: list[object]
) -> None:
    old, new = FakeDevice("old", connected=old_open), FakeDevice("new", connected=new_open)
    user = FakeFrontend(refuses=new)
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        user.seen.clear()
        with pytest.raises(ChangeFailedError):
            await chardev.change(new.open)
        assert user.seen == events


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("old_open", [False, True])
@pytest.mark.parametrize("new_open", [False, True])
@pytest.mark.parametrize("toggles", ["old", "new"])
async def test_what_a_frontend_has_heard_is_true_also_if_a_peer_comes_or_goes_in_between(
    refused: bool, old_open: bool, new_open: bool, toggles: str
) -> None:
    old, new = FakeDevice("old", connected=old_open), FakeDevice("new", connected=new_open)
    user = FakeFrontend()

    async def be_change(backend: Controls) -> None:
        if backend.filename == "fake:new":
            device = old if toggles == "old" else new
            device.connect(not device.connected)
            if refused:
                raise ValueError("no")

    observed: list[BackendEvent] = [CLOSED]
    async with open_chardev(old) as chardev:
        chardev.on_event = lambda chardev, event, backend: observed.append(event)
        chardev.attach(be_change=be_change, on_event=user.on_event)
        try:
            await chardev.change(new.open)
        except ChangeFailedError:
            assert refused
        heard = (user.events or [CLOSED])[-1]
        assert heard is (OPENED if chardev.is_open else CLOSED)
        assert (CLOSED, CLOSED) not in zip(user.events, user.events[1:], strict=False)
        if not refused or toggles == "old":
            assert observed[-1] is (OPENED if chardev.is_open else CLOSED)


async def test_events_of_a_backend_that_is_not_in_place_are_not_heard() -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new", connected=False), FakeFrontend()

    async def be_change(backend: Controls) -> None:
        new.say(Event.BREAK)

    async with open_chardev(old) as chardev:
        chardev.attach(be_change=be_change, on_event=user.on_event)
        await chardev.change(new.open)
        assert user.events == [OPENED, CLOSED]


async def test_the_observer_is_told_events_also_without_a_frontend() -> None:
    device, observed = FakeDevice("old"), []
    async with open_chardev(device) as chardev:
        chardev.on_event = lambda chardev, event, backend: observed.append((chardev.id, event))
        device.connect(False)
        device.say(Event.BREAK)
        assert observed == [("serial0", CLOSED), ("serial0", Event.BREAK)]


# ---------------------------------------------------------------- frontends that come and go


async def test_a_frontend_that_comes_while_the_new_backend_opens_is_set_up_for_it(
    schedule: int,
) -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new"), FakeFrontend()
    async with open_chardev(old) as chardev, trio.open_nursery() as nursery:
        nursery.start_soon(chardev.change, new.open)
        await trio.lowlevel.checkpoint()
        attach(chardev, user)
        await wait_all_tasks_blocked()
        assert user.seen in ([OPENED, "fake:new", OPENED], [OPENED])  # [OPENED]: was too late
        check_in_place(chardev, new, old)


@pytest.mark.parametrize("takes_changes", [True, False])
async def test_a_frontend_that_takes_the_place_of_another_during_its_be_change(
    takes_changes: bool,
) -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new"), FakeFrontend()

    async def leaves(backend: Controls) -> None:
        await first.aclose()
        chardev.attach(be_change=user.be_change if takes_changes else None, on_event=user.on_event)

    async with open_chardev(old) as chardev:
        first = chardev.attach(be_change=leaves)
        if takes_changes:
            await chardev.change(new.open)
            assert user.seen == [OPENED, "fake:new", OPENED]
            check_in_place(chardev, new, old)
        else:
            with pytest.raises(ChangeRefusedError):
                await chardev.change(new.open)
            assert user.seen == [OPENED]
            check_in_place(chardev, old, new)


async def test_a_frontend_that_comes_after_closed_was_sent_hears_opened_from_the_rollback() -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new", connected=False), FakeFrontend()

    async def leaves(backend: Controls) -> None:
        await first.aclose()
        chardev.attach(on_event=user.on_event)
        assert not user.seen

    async with open_chardev(old) as chardev:
        first = chardev.attach(be_change=leaves)
        with pytest.raises(ChangeRefusedError):
            await chardev.change(new.open)
        assert user.seen == [OPENED]


async def test_a_frontend_that_leaves_in_its_be_change_does_not_hinder_the_change() -> None:
    old, new = FakeDevice("old"), FakeDevice("new")

    async def leaves(backend: Controls) -> None:
        await frontend.aclose()

    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=leaves)
        await chardev.change(new.open)
        check_in_place(chardev, new, old)


# ---------------------------------------------------------------- overlapping changes


@pytest.mark.parametrize("refused", [None, 0, 1, 2])
async def test_overlapping_changes_are_done_in_the_order_in_which_they_came(
    refused: int | None, schedule: int
) -> None:
    old, news = FakeDevice("old"), [FakeDevice(f"new{i}") for i in range(3)]
    user = FakeFrontend(refuses=None if refused is None else news[refused])
    failed: list[int] = []

    async def change(i: int) -> None:
        try:
            await chardev.change(news[i].open)
        except ChangeFailedError:
            failed.append(i)

    async with open_chardev(old) as chardev:
        attach(chardev, user)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                await chardev._change_lock.acquire()
                for i in range(3):
                    nursery.start_soon(change, i)
                    await wait_all_tasks_blocked()
                chardev._change_lock.release()
        assert failed == ([] if refused is None else [refused])
        tried = [name for name in user.seen if name in ("fake:new0", "fake:new1", "fake:new2")]
        assert list(dict.fromkeys(tried)) == ["fake:new0", "fake:new1", "fake:new2"]
        last = news[1] if refused == 2 else news[2]
        check_in_place(chardev, last, *({old, *news} - {last}))
        assert user.bound == f"fake:{last.name}"


async def test_a_change_in_line_can_be_cancelled(schedule: int) -> None:
    late, new = FakeDevice("late", opens_late=True), FakeDevice("new")
    async with open_chardev(FakeDevice("old")) as chardev, trio.open_nursery() as nursery:
        nursery.start_soon(chardev.change, late.open)
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.01) as scope:
            await chardev.change(new.open)
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()
    assert not new.is_held_open


# ---------------------------------------------------------------- what hangs


async def test_an_opening_that_hangs_is_ended_by_its_timeout(autojump_clock: MockClock) -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new", opens_late=True), FakeFrontend()
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        start = trio.current_time()
        with pytest.raises(BackendError, match=r"^not open after 2\.5 seconds$"):
            await chardev.change(new.open, timeout=2.5)
        assert trio.current_time() - start == pytest.approx(2.5)
        check_in_place(chardev, old, new)
        assert user.seen == [OPENED]


async def test_an_opening_that_hangs_is_ended_by_cancelled() -> None:
    old, new = FakeDevice("old"), FakeDevice("new", opens_late=True)
    async with open_chardev(old) as chardev:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chardev.change, new.open)
                await wait_all_tasks_blocked()
                scope.cancel()
        check_in_place(chardev, old, new)


async def test_changes_that_hang_are_ended_by_closing_the_chardev(schedule: int) -> None:
    """The one that opens, and those in line."""
    late = FakeDevice("late", opens_late=True)

    async def change() -> None:
        with pytest.raises(ChardevClosedError):
            await chardev.change(late.open, timeout=math.inf)

    async with open_chardev(FakeDevice("old")) as chardev:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(change)
                await wait_all_tasks_blocked()
                await chardev.aclose()
        assert chardev._nursery is None or not chardev._nursery.child_tasks


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("by", ["cancel", "aclose"])
async def test_an_opening_that_hangs_ends_with_its_chardev_whenever_that_comes(
    by: str, when: str, schedule: int
) -> None:
    """Cancel at each step; an opener that starts just then must not be overlooked."""
    for k in range(1, 25):
        late, scope = FakeDevice("late", opens_late=True), trio.CancelScope()
        injector = CancelAtStep(k, when, scope, armed=True)

        async def end(scope: trio.CancelScope = scope) -> None:
            with scope:
                await trio.sleep_forever()
            if by == "aclose":
                await chardev.aclose()
            else:
                assert chardev._nursery is not None
                chardev._nursery.cancel_scope.cancel()

        async def change(late: FakeDevice = late) -> None:
            with pytest.raises(ChardevClosedError):
                await chardev.change(late.open)

        async with open_chardev(FakeDevice("old")) as chardev:
            trio.lowlevel.add_instrument(injector)
            with trio.fail_after(PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(change)
                    nursery.start_soon(end)
                    await wait_all_tasks_blocked()
                    scope.cancel()
            trio.lowlevel.remove_instrument(injector)
            assert chardev._nursery is None or not chardev._nursery.child_tasks


async def test_an_opening_that_hangs_is_ended_by_the_service_stopping() -> None:
    old, late = FakeDevice("old"), FakeDevice("late", opens_late=True)

    async def change() -> None:
        with pytest.raises(ChardevClosedError):
            await chardev.change(late.open)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as outer:
            async with open_chardev(old) as chardev:
                outer.start_soon(change)
                await wait_all_tasks_blocked()
            assert not old.is_held_open
            assert chardev.is_closed


async def test_a_be_change_that_hangs_is_ended_by_cancelled() -> None:
    old, new = FakeDevice("old"), FakeDevice("new")
    user = FakeFrontend(hangs_at=new)
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chardev.change, new.open)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert user.bound == "fake:old"
        check_in_place(chardev, old, new)


@pytest.mark.parametrize("attached", [True, False])
async def test_a_be_change_that_hangs_is_ended_by_closing_the_chardev(attached: bool) -> None:
    """Also if its frontend has left meanwhile, which makes the chardev removable."""
    old, new = FakeDevice("old"), FakeDevice("new")
    user = FakeFrontend(hangs_at=new)

    async def change() -> None:
        with pytest.raises(ChardevClosedError):
            await chardev.change(new.open)

    async with open_chardev(old) as chardev:
        attach(chardev, user)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(change)
                await wait_all_tasks_blocked()
                if not attached:
                    for frontend in chardev.frontends:
                        await frontend.aclose()
                await chardev.aclose()
        assert not old.is_held_open
        assert not new.is_held_open


async def test_a_be_change_that_hangs_in_the_rollback_is_cut_off(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 7."""
    old, new = FakeDevice("old"), FakeDevice("new")
    user = FakeFrontend(refuses=new, hangs_at=old)
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        start = trio.current_time()
        with pytest.raises(ChangeFailedError):
            await chardev.change(new.open)
        assert trio.current_time() - start == pytest.approx(CLEANUP_TIMEOUT)
        assert "its frontend does not take the original back" in caplog.text
        check_in_place(chardev, old, new)


@pytest.mark.parametrize("refused", [False, True])
async def test_a_backend_that_hangs_when_it_closes_does_not_hold_up_a_change(
    refused: bool, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 7: change() is over after a while, and the next one works."""
    seconds = 2 * CLEANUP_TIMEOUT
    old, new = (FakeDevice(name, close_seconds=seconds) for name in ("old", "new"))
    last, user = FakeDevice("last"), FakeFrontend(refuses=new if refused else None)
    async with open_chardev(old) as chardev:
        attach(chardev, user)
        start = trio.current_time()
        try:
            await chardev.change(new.open)
        except ChangeFailedError:
            assert refused
        assert trio.current_time() - start == pytest.approx(CLEANUP_TIMEOUT)
        assert f"fake:{'new' if refused else 'old'} does not close" in caplog.text
        await chardev.change(last.open)
        await trio.sleep(2 * CLEANUP_TIMEOUT)
        check_in_place(chardev, last, old, new)


async def test_a_chardev_that_does_not_close_does_not_hold_up_its_closer(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_chardev(FakeDevice("old", close_seconds=100)) as chardev:
        start = trio.current_time()
        with trio.CancelScope() as scope:
            scope.cancel()
            await chardev.aclose()
        assert trio.current_time() - start == pytest.approx(2 * CLEANUP_TIMEOUT)
        assert caplog.record_tuples[-1][1:] == (
            logging.ERROR,
            "chardev 'serial0' does not close",
        )


async def test_what_a_buggy_opener_raises_comes_as_one_backend_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_chardev(FakeDevice("old")) as chardev:

        def opener(request: OpenRequest) -> AbstractAsyncContextManager[Backend]:
            raise ExceptionGroup("", [ExceptionGroup("", [OSError(5, "Input/output error")])])

        with pytest.raises(BackendError, match=r"^OSError: \[Errno 5\] Input/output error$"):
            await chardev.change(opener)
        assert "raised what it must not" in caplog.text


# ---------------------------------------------------------------- what the commit can't do itself


def preparing(device: FakeDevice, prepare: Callable[[], Awaitable[None]]) -> Opener:
    """The opener of *device*, whose backend awaits *prepare* before the commit."""

    @asynccontextmanager
    async def open_it(request: OpenRequest) -> AsyncIterator[Backend]:
        async with device.open(request) as backend:

            class Preparing(type(backend)):  # type: ignore[misc]
                async def prepare(self) -> None:
                    await prepare()

            backend.__class__ = Preparing
            yield backend

    return open_it


async def test_a_backend_prepares_when_its_users_are_set_up_and_before_it_is_in_place() -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new"), FakeFrontend()

    async def prepare() -> None:
        assert user.bound == "fake:new"
        assert not new.is_active
        assert chardev.backend is old.backend
        await trio.lowlevel.checkpoint()

    async with open_chardev(old) as chardev:
        attach(chardev, user)
        await chardev.change(preparing(new, prepare))
        check_in_place(chardev, new, old)


async def test_one_that_cannot_prepare_is_not_put_in_place() -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new"), FakeFrontend()

    async def prepare() -> None:
        raise BackendError("the disk is gone")

    async with open_chardev(old) as chardev:
        attach(chardev, user)
        with pytest.raises(BackendError, match="the disk is gone"):
            await chardev.change(preparing(new, prepare))
        check_in_place(chardev, old, new)
        assert user.bound == "fake:old"


async def test_cancelled_as_it_prepares_it_is_not_put_in_place() -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new"), FakeFrontend()

    async def prepare() -> None:
        scope.cancel()
        await trio.sleep_forever()

    async with open_chardev(old) as chardev:
        attach(chardev, user)
        with trio.CancelScope() as scope:
            await chardev.change(preparing(new, prepare))
        assert scope.cancelled_caught
        check_in_place(chardev, old, new)
        assert user.bound == "fake:old"


async def test_a_user_that_comes_as_it_prepares_is_set_up_too() -> None:
    old, new, user = FakeDevice("old"), FakeDevice("new"), FakeFrontend()

    async def prepare() -> None:
        attach(chardev, user)

    async with open_chardev(old) as chardev:
        await chardev.change(preparing(new, prepare))
        check_in_place(chardev, new, old)
        assert user.bound == "fake:new"
