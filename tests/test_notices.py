"""What a registry reports about its chardevs: the notices, with which names, in which order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.services import until
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.core.backend import Opener
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import BackendError, ChangeFailedError, ChardevBusyError
from trio_chardev.events import Event
from trio_chardev.notices import (
    ChardevAdded,
    ChardevBreak,
    ChardevChanged,
    ChardevClosed,
    ChardevOpened,
    ChardevRemoved,
    Notice,
)
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry, open_registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeFrontend, FakeOptions, fake_opener

PATIENCE = 5  # seconds


class Told(list[Notice]):
    """What was told since the last time."""

    def take(self) -> list[Notice]:
        notices = list(self)
        self.clear()
        return notices


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    async with open_registry_with(fake_opener) as registry:
        yield registry


@pytest.fixture
async def told(registry: Registry) -> Told:
    told = Told()
    registry.on_notice = told.append
    return told


def fake(name: str, **faults: bool | float) -> FakeOptions:
    return FakeOptions(device=FakeDevice(name, **faults))  # type: ignore[arg-type]


# ---------------------------------------------------------------- add and remove


async def test_added_comes_before_opened(registry: Registry, told: Told) -> None:
    await registry.add("c", fake("a"))
    assert told.take() == [ChardevAdded("c", "fake:a"), ChardevOpened("c", "fake:a")]


async def test_nobody_there_is_not_told(registry: Registry, told: Told) -> None:
    await registry.add("c", fake("a", connected=False))
    assert told.take() == [ChardevAdded("c", "fake:a")]


async def test_when_it_is_told_it_is_listed(registry: Registry) -> None:
    """Who hears of it may ask for it at once."""
    listed: list[tuple[str, list[str]]] = []
    registry.on_notice = lambda notice: listed.append((type(notice).__name__, list(registry)))
    await registry.add("c", fake("a"))
    await registry.remove("c")
    assert listed == [("ChardevAdded", ["c"]), ("ChardevOpened", ["c"]), ("ChardevRemoved", [])]


@pytest.mark.parametrize("fault", ["opens", "activates"])
async def test_an_add_that_fails_is_not_told(registry: Registry, told: Told, fault: str) -> None:
    with pytest.raises(BackendError):
        await registry.add("c", fake("a", **{fault: False}))
    assert told.take() == []


async def test_a_cancelled_add_is_not_told(registry: Registry, told: Told) -> None:
    with trio.move_on_after(0):
        await registry.add("c", fake("a"))
    assert told.take() == []


async def test_removed_is_the_last_that_is_told(registry: Registry, told: Told) -> None:
    options = fake("a")
    await registry.add("c", options)
    chardev = registry["c"]
    told.clear()
    await registry.remove("c")
    assert told.take() == [ChardevRemoved("c")]
    assert chardev.on_event is not None
    chardev.on_event(chardev, Event.CLOSED, chardev.backend)
    assert told.take() == []


async def test_a_remove_that_is_refused_is_not_told(registry: Registry, told: Told) -> None:
    await registry.add("c", fake("a", connected=False))
    told.clear()
    async with registry["c"].attach():
        with pytest.raises(ChardevBusyError):
            await registry.remove("c")
    assert told.take() == []


# ---------------------------------------------------------------- change


@pytest.mark.parametrize("is_used", [False, True])
@pytest.mark.parametrize(
    ("before", "after", "event"),
    [
        (True, True, ChardevOpened("c", "fake:b")),
        (True, False, ChardevClosed("c", "fake:b")),
        (False, True, ChardevOpened("c", "fake:b")),
        (False, False, None),
    ],
)
async def test_changed_comes_before_what_the_new_backend_reports(
    registry: Registry,
    told: Told,
    *,
    is_used: bool,
    before: bool,
    after: bool,
    event: Notice | None,
) -> None:
    await registry.add("c", fake("a", connected=before))
    told.clear()
    async with contextlib.AsyncExitStack() as stack:
        if is_used:
            await stack.enter_async_context(registry["c"].attach(be_change=stateless))
        await registry.change("c", fake("b", connected=after))
        assert told.take() == [ChardevChanged("c", "fake:a", "fake:b"), *([event] if event else [])]


async def test_changes_one_after_the_other_have_the_names_of_both(
    registry: Registry, told: Told
) -> None:
    await registry.add("c", fake("a", connected=False))
    for name in "bcd":
        await registry.change("c", fake(name, connected=False))
    assert told.take() == [
        ChardevAdded("c", "fake:a"),
        *(ChardevChanged("c", f"fake:{a}", f"fake:{b}") for a, b in pairwise("abcd")),
    ]


@pytest.mark.parametrize("fault", ["opens", "activates"])
async def test_a_change_that_fails_is_not_told(registry: Registry, told: Told, fault: str) -> None:
    await registry.add("c", fake("a"))
    told.clear()
    with pytest.raises(BackendError):
        await registry.change("c", fake("b", **{fault: False}))
    assert told.take() == []


async def test_a_change_that_the_user_refuses_is_not_told(registry: Registry, told: Told) -> None:
    options = fake("a")
    await registry.add("c", options)
    told.clear()
    async with registry["c"].attach(be_change=FakeFrontend(refuses=FakeDevice("b")).be_change):
        with pytest.raises(ChangeFailedError):
            await registry.change("c", fake("b", connected=False))
        assert told.take() == []
        options.device.connect(False)
    assert told.take() == [ChardevClosed("c", "fake:a")]


async def test_while_a_change_waits_the_original_is_heard_and_the_new_one_not(
    registry: Registry, told: Told
) -> None:
    old, new = fake("a"), fake("b", opens_late=True)
    await registry.add("c", old)
    told.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.change, "c", new)
        await wait_all_tasks_blocked()
        old.device.connect(False)
        old.device.connect()
        assert told.take() == [ChardevClosed("c", "fake:a"), ChardevOpened("c", "fake:a")]
        nursery.cancel_scope.cancel()
    assert told.take() == []


async def test_a_chardev_that_is_removed_while_its_old_backend_closes(
    registry: Registry, told: Told
) -> None:
    """CHANGED came with the commit, and does not come again behind REMOVED."""
    await registry.add("c", fake("a", close_seconds=0.02))
    told.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.change, "c", fake("b"))
        await wait_all_tasks_blocked(0.002)
        assert told.take() == [
            ChardevChanged("c", "fake:a", "fake:b"),
            ChardevOpened("c", "fake:b"),
        ]
        await registry.remove("c")
    assert told.take() == [ChardevRemoved("c")]


async def test_what_the_old_backend_says_after_the_commit_is_not_told(
    registry: Registry, told: Told
) -> None:
    old = fake("a", close_seconds=0.02)
    await registry.add("c", old)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.change, "c", fake("b"))
        await wait_all_tasks_blocked(0.002)
        told.clear()
        old.device.connect(False)
    assert told.take() == []


# ---------------------------------------------------------------- what happens by itself


async def test_opened_closed_and_break_are_told_with_and_without_a_user(
    registry: Registry, told: Told
) -> None:
    options = fake("a", connected=False)
    await registry.add("c", options)
    told.clear()

    def all_of_them() -> list[Notice]:
        options.device.connect()
        options.device.say(Event.BREAK)
        options.device.connect(False)
        return told.take()

    expected = [ChardevOpened("c", "fake:a"), ChardevBreak("c"), ChardevClosed("c", "fake:a")]
    assert all_of_them() == expected
    user = FakeFrontend()
    async with registry["c"].attach(on_event=user.on_event):
        assert all_of_them() == expected
    assert user.events == [Event.OPENED, Event.BREAK, Event.CLOSED]


async def test_a_break_by_command_is_told_once(registry: Registry, told: Told) -> None:
    await registry.add("c", fake("a", connected=False))
    told.clear()
    registry.send_break("c")
    assert told.take() == [ChardevBreak("c")]


async def test_a_backend_that_dies_is_closed(registry: Registry, told: Told) -> None:
    await registry.add("c", fake("a", dies_after=3))
    await wait_all_tasks_blocked()
    assert told.take()[-1] == ChardevClosed("c", "fake:a")


async def test_at_the_end_nothing_is_told() -> None:
    told = Told()
    async with open_registry_with(fake_opener) as registry:
        registry.on_notice = told.append
        await registry.add("c", fake("a"))
        told.clear()
    assert told == []


# ---------------------------------------------------------------- a mux


async def test_a_mux_opens_and_closes_with_its_base() -> None:
    told, base = Told(), fake("a", connected=False)

    def opener_of(options: BackendOptions) -> Opener:
        return fake_opener(options) if isinstance(options, FakeOptions) else mux_opener(options)

    async with open_registry() as every_kind:
        mux_opener: Callable[[BackendOptions], Opener] = every_kind._opener_of
        async with open_registry_with(opener_of) as registry:
            registry.on_notice = told.append
            await registry.add("a", base)
            await registry.add("m", MuxOptions(chardev="a"))
            assert told.take() == [ChardevAdded("a", "fake:a"), ChardevAdded("m", "mux")]
            base.device.connect()
            assert told.take() == [ChardevOpened("a", "fake:a"), ChardevOpened("m", "mux")]
            base.device.connect(False)
            assert told.take() == [ChardevClosed("a", "fake:a"), ChardevClosed("m", "mux")]
            base.device.say(Event.BREAK)
            assert set(told.take()) == {ChardevBreak("a"), ChardevBreak("m")}


# ---------------------------------------------------------------- real kinds


async def test_a_pty_is_told_by_its_path() -> None:
    told = Told()
    async with open_registry() as registry:
        registry.on_notice = told.append
        path = (await registry.add("c", PtyOptions())).pty
        assert path is not None
        name = f"pty:{path}"
        assert told.take() == [ChardevAdded("c", name)]
        terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
        with trio.fail_after(PATIENCE):
            await until(lambda: len(told) == 1)
            os.close(terminal)
            await until(lambda: len(told) == 2)
        assert told.take() == [ChardevOpened("c", name), ChardevClosed("c", name)]


async def test_the_user_hears_of_an_event_as_well_as_the_registry(registry: Registry) -> None:
    """Neither is told instead of the other, also by a notice that comes late in the commit."""
    heard: list[object] = []
    registry.on_notice = heard.append
    await registry.add("c", fake("a", connected=False))
    chardev: Chardev = registry["c"]
    async with chardev.attach(be_change=stateless, on_event=heard.append):
        heard.clear()
        await registry.change("c", fake("b"))
    assert heard == [
        ChardevChanged("c", "fake:a", "fake:b"),
        ChardevOpened("c", "fake:b"),
        Event.OPENED,
    ]
