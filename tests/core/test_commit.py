"""The commit: the order of its steps, and that nothing is touched when it is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core import change
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.effects import Effects
from trio_chardev.core.handlers import stateless
from trio_chardev.core.tap import Tap
from trio_chardev.errors import BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing import FakeDevice, FakeFrontend, FakeLeaving, FakePeer, open_chardev

STEPS_TO_DIE = 10  # checkpoints that a user takes; `FakeDevice.dies_early` needs less


@attrs.define(eq=False)
class Witness(Tap):
    """Writes down what it is told, with the name of the backend that is in place then."""

    chardev: Chardev
    seen: list[tuple[str, str]] = attrs.Factory(list)

    def _note(self, what: str) -> None:
        place = self.chardev.backend.filename if self.chardev.is_started else "nothing"
        self.seen.append((what, place))

    def activate(self) -> None:
        self._note("activate")

    def event(self, event: BackendEvent) -> None:
        self._note(str(event))

    def received(self, data: bytes) -> None:
        self._note(data.decode())

    def replaced(self, before: str, after: str) -> None:
        self._note(f"{before} gives way to {after}")


def witnessed(device: FakeDevice, witness: Tap) -> Opener:
    """The opener of *device* with *witness* as its tap."""

    @asynccontextmanager
    async def open_it(request: OpenRequest) -> AsyncIterator[Backend]:
        async with device.open(request) as backend:
            backend.taps += (witness,)
            yield backend

    return open_it


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (FakeDevice("old"), FakeDevice("new", activates=False)),
        (FakeDevice("old", lets_go=False), FakeDevice("new")),
        (FakeDevice("old"), FakeDevice("new", dies_early=True)),
        (FakeDevice("old"), FakeDevice("new", dies_early=True, close_seconds=1)),
    ],
    ids=["not-activated", "not-let-go", "dead", "dying"],
)
async def test_a_commit_that_is_refused_has_touched_nothing(
    old: FakeDevice, new: FakeDevice
) -> None:
    async with open_chardev(old) as chardev:
        user, witness = FakeFrontend(steps=STEPS_TO_DIE), Witness(chardev)
        chardev.attach(be_change=user.be_change, on_event=user.on_event)
        with pytest.raises(BackendError):
            await chardev.change(witnessed(new, witness))
        assert witness.seen == []
        told: list[BackendEvent] = []
        chardev.on_event = lambda _, event, backend: told.append(event)
        chardev.backend.set_open(False)
        assert told == [Event.CLOSED], "what happens afterwards is told at once"
        assert chardev.backend is old.backend
        assert not old.is_leaving
        assert user.bound == "fake:old"


async def test_who_does_not_fit_does_not_have_the_old_one_prepare_to_leave() -> None:
    old, user = FakeDevice("old", lets_go=False), FakeFrontend(steps=STEPS_TO_DIE)
    async with open_chardev(old) as chardev:
        chardev.attach(be_change=user.be_change)
        with pytest.raises(BackendError, match="closed before it was in place"):
            await chardev.change(FakeDevice("new", dies_early=True).open)


async def test_guards_are_asked_of_the_new_one_before_it_is_activated() -> None:
    """A backend that can't be guarded has never been reachable."""

    def refuse(peer: FakePeer) -> None:
        raise BackendError("it can't know who comes")

    old, new = FakeDevice("old"), FakeDevice("new")

    @asynccontextmanager
    async def open_unguardable(request: OpenRequest) -> AsyncIterator[Backend]:
        async with new.open(request) as backend:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(FakePeer, "guard", refuse)
                yield backend

    async with open_chardev(old) as chardev:
        chardev.guard()
        with pytest.raises(BackendError, match="who comes"):
            await chardev.change(open_unguardable)
        assert not new.is_active
        assert not old.is_leaving


# ---------------------------------------------------------------- done


async def test_what_the_taps_are_told_in_which_order() -> None:
    old, new = FakeDevice("old"), FakeDevice("new", connected=False)
    chardev = Chardev("x")
    first, second = Witness(chardev), Witness(chardev)
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        await chardev.open(witnessed(old, first))
        first.seen.clear()
        old.feed(b"unread")
        await chardev.change(witnessed(new, second))
        assert first.seen == [
            ("unread", "fake:old"),
            ("fake:old gives way to fake:new", "fake:new"),
        ]
        assert second.seen[:2] == [("activate", "fake:new"), (str(Event.CLOSED), "fake:new")]
        nursery.cancel_scope.cancel()


async def test_what_came_before_the_commit_counts_and_is_not_read_twice() -> None:
    """The old one is replaced only once it has been drained."""
    old, new = FakeDevice("old"), FakeDevice("new")
    async with open_chardev(old) as chardev:
        user = FakeFrontend()
        frontend = chardev.attach(be_change=user.be_change, on_event=user.on_event)
        old.feed(b"before")
        new.feed(b"after")
        await chardev.change(new.open)
        assert await frontend.receive_some() == b"before"
        assert await frontend.receive_some() == b"after"


async def test_a_peer_that_left_before_the_commit_is_told_of_before_the_next() -> None:
    """Its leaving is found by the drain, while it still has the place."""
    old, new = FakeDevice("old"), FakeDevice("new", connected=False)
    observed: list[tuple[BackendEvent, str]] = []
    async with open_chardev(old) as chardev:
        chardev.on_event = lambda _, event, backend: observed.append((event, backend.filename))
        old.has_left = True  # and nobody has looked since
        await chardev.change(new.open)
    assert observed == [(Event.CLOSED, "fake:old")]


async def test_what_is_carried_is_taken_back_after_the_drain_and_sent_first() -> None:
    old, new = FakeDevice("old", eager=True, holds=True), FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev:
        user = FakeFrontend()
        frontend = chardev.attach(be_change=user.be_change, on_event=user.on_event)
        await frontend.send_all(b"untaken")
        await chardev.change(new.open, carry=True)
        await frontend.send_all(b", then this")
        assert old.sent == b""
        assert new.sent == b"untaken, then this"


# ---------------------------------------------------------------- its effects


@attrs.define(eq=False)
class Watched:
    """A chardev that is changed, and who may be told: each notes whether the commit is over."""

    chardev: Chardev
    is_committing: bool = False
    seen: list[str] = attrs.Factory(list)

    def note(self, who: str) -> None:
        assert not self.is_committing, f"{who} was called by the commit"
        self.seen.append(f"{who}: {self.chardev.backend.filename}")

    def observe(self, chardev: Chardev, event: BackendEvent, backend: Backend) -> None:
        self.note(f"{event} of {backend.filename}")

    def receive(self, data: bytes) -> int:
        self.note(data.decode())
        return len(data)


@attrs.define(eq=False)
class WatchedTap(Tap):
    """A tap that notes what it is told by the commit."""

    watched: Watched

    def activate(self) -> None:
        self.watched.note("activate")

    def event(self, event: BackendEvent) -> None:
        self.watched.note(f"the tap's {event}")


@pytest.fixture
def commit_watcher(monkeypatch: pytest.MonkeyPatch) -> Callable[[Chardev], Watched]:
    def watch(chardev: Chardev) -> Watched:
        watched, commit = Watched(chardev), change.commit

        def commit_it(*args: Any, **kwargs: Any) -> Effects:
            watched.is_committing = True
            try:
                return commit(*args, **kwargs)
            finally:
                watched.is_committing = False

        monkeypatch.setattr(change, "commit", commit_it)
        return watched

    return watch


async def test_the_commit_calls_nobody_and_when_they_are_told_the_new_one_is_in_place(
    commit_watcher: Callable[[Chardev], Watched],
) -> None:
    """Observer, taps and handlers: what the drain meets and what the commit does."""
    old, new = FakeDevice("old"), FakeDevice("new")

    async def leave_last_words(_: Controls) -> None:
        """Nobody looks at the old one after this but the drain."""
        old.feed(b"last words")
        old.has_left = True

    async with open_chardev(old) as chardev:
        watched = commit_watcher(chardev)
        chardev.on_event = watched.observe
        chardev.attach(
            be_change=leave_last_words,
            on_event=lambda event: watched.note(str(event)),
            on_receive=watched.receive,
            on_open=lambda: watched.note("on_open"),
        )
        watched.seen.clear()
        await chardev.change(witnessed(new, WatchedTap(watched)))
    assert watched.seen == [
        "activate: fake:new",
        "Event.CLOSED of fake:old: fake:new",
        "the tap's Event.OPENED: fake:new",
        "Event.OPENED of fake:new: fake:new",
        "last words: fake:new",
        "Event.CLOSED: fake:new",
        "on_open: fake:new",
        "Event.OPENED: fake:new",
    ]


# ---------------------------------------------------------------- what a list shows


@pytest.mark.parametrize(
    "happen",
    [
        lambda chardev: chardev.attach(),
        lambda chardev: chardev.detach(chardev.frontends[0]),
        lambda chardev: chardev.backend.set_open(not chardev.is_open),
        lambda chardev: chardev.touch(),
    ],
    ids=["attach", "detach", "event", "touch"],
)
async def test_a_row_of_a_list_is_forgotten_when_it_may_have_changed(
    happen: Callable[[Chardev], object],
) -> None:
    async with open_chardev(FakeDevice("old", max_frontends=2)) as chardev:
        chardev.attach()
        chardev.row = b"a row"
        happen(chardev)
        assert chardev.row is None


async def test_a_row_of_a_list_is_forgotten_by_a_change() -> None:
    async with open_chardev(FakeDevice("old", connected=False)) as chardev:
        chardev.row = b"a row"
        await chardev.change(FakeDevice("new", connected=False).open)
        assert chardev.row is None


async def test_who_is_told_of_an_event_finds_no_row_of_before() -> None:
    rows = []
    async with open_chardev(FakeDevice("old")) as chardev:
        chardev.on_event = lambda chardev, *_: rows.append(chardev.row)
        chardev.row = b"a row"
        chardev.backend.set_open(False)
    assert rows == [None]


async def test_who_is_told_of_a_change_finds_no_row_of_before() -> None:
    rows = []
    async with open_chardev(FakeDevice("old")) as chardev:
        chardev.on_event = lambda chardev, *_: rows.append(chardev.row)
        chardev.row = b"a row"
        await chardev.change(FakeDevice("new").open)
    assert rows == [None]


async def test_what_it_stands_on_is_told_when_its_users_change() -> None:
    touched: list[str] = []
    device = FakeDevice("old", on_touch=lambda: touched.append("now"))
    async with open_chardev(device) as chardev:
        touched.clear()  # it was told of the backend
        frontend = chardev.attach()
        assert touched == ["now"]
        chardev.detach(frontend)
        assert touched == ["now", "now"]


async def test_a_user_may_come_before_the_first_backend() -> None:
    """A monitor does: its chardev's first client must find it there."""
    device, user = FakeDevice("old"), FakeFrontend()
    chardev = Chardev("x")
    chardev.attach(on_event=user.on_event)
    assert user.events == []
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        await chardev.open(device.open)
        assert user.events == [Event.OPENED]
        nursery.cancel_scope.cancel()


async def test_the_first_backend_runs_while_its_chardev_has_begun() -> None:
    """So `nursery.start` returns when the chardev is there, not when its backend has ended."""
    chardev, device = Chardev("x"), FakeDevice("first")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chardev.open, device.open)
        await wait_all_tasks_blocked()
        with trio.fail_after(5):
            await nursery.start(chardev.run)
            await wait_all_tasks_blocked()
            assert chardev.backend is device.backend
            await chardev.aclose()


async def test_a_request_names_the_backend_to_be_replaced_until_the_commit() -> None:
    old, new = FakeDevice("old"), FakeDevice("new")
    requests: list[OpenRequest] = []

    def open_new(request: OpenRequest) -> Any:
        requests.append(request)
        return new.open(request)

    async def be_change(backend: Controls) -> None:
        await wait_all_tasks_blocked()
        assert requests[0].replaces is old.backend

    async with open_chardev(old) as chardev:
        chardev.attach(be_change=be_change)
        await chardev.change(open_new)
        await wait_all_tasks_blocked()
        assert requests[0].replaces is None


async def test_taps_see_an_event_before_the_user_answers_it() -> None:
    seen: list[object] = []

    class Order(Tap):
        def event(self, event: BackendEvent) -> None:
            seen.append(event)

        def sent(self, data: memoryview) -> None:
            seen.append(bytes(data))

    device = FakeDevice("x", eager=True, connected=False)
    async with open_chardev(device) as chardev:
        chardev.backend.taps += (Order(),)
        chardev._parts.users.taps = chardev.backend.taps

        def greet(event: BackendEvent) -> None:
            if event is Event.OPENED:
                frontend.try_send(b"hello")

        frontend = chardev.attach(on_event=greet)
        device.connect()
    assert seen[:2] == [Event.OPENED, b"hello"]


async def test_a_drain_sends_what_was_carried_then_hears_the_peer_then_lets_it_take_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []

    async def finish(leaving: FakeLeaving, take: Callable[[bytes], None]) -> None:
        done.append(f"finish after {bytes(leaving.device.sent).decode()}")

    async def drain(leaving: FakeLeaving) -> None:
        done.append("drain")

    monkeypatch.setattr(FakeLeaving, "finish", finish)
    monkeypatch.setattr(FakeLeaving, "drain", drain)
    device = FakeDevice("x", eager=True)
    async with open_chardev(device) as chardev:
        runner = chardev._parts.runner
        runner.carried = memoryview(b"carried")
        await runner.drain(1, lambda data: None)
    assert done == ["finish after carried", "drain"]


async def test_the_end_of_the_output_comes_after_what_was_carried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = FakeDevice("x", eager=True)
    ends: list[bytes] = []
    monkeypatch.setattr(FakePeer, "send_eof", lambda peer: ends.append(bytes(device.sent)))
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        chardev._parts.runner.carried = memoryview(b"carried")
        await frontend.send_eof()
    assert ends == [b"carried"]


async def test_users_are_told_that_the_line_may_be_another() -> None:
    told: list[str] = []
    async with open_chardev(FakeDevice("old")) as chardev:
        chardev.attach(be_change=stateless, on_line=lambda: told.append(chardev.backend.filename))
        told.clear()
        await chardev.change(FakeDevice("new").open)
        assert told == ["fake:new"]
