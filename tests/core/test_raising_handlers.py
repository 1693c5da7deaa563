"""Callbacks that raise, wherever the core calls them, are logged and break nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, NoReturn

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.services import until
from trio_chardev.backends.null import NullOptions
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.handlers import stateless
from trio_chardev.core.tap import Tap
from trio_chardev.devices.echo import EchoOptions
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.registry import Registry, open_registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions, fake_opener, open_chardev

TAP_METHODS = ("activate", "sent", "refused", "received", "event", "replaced")
WORDS = "a bug of somebody else's"


def fail(*_: object) -> NoReturn:
    raise ZeroDivisionError(WORDS)


def fake(name: str, **faults: Any) -> FakeOptions:
    return FakeOptions(device=FakeDevice(name, eager=True, **faults))


def tapped(device: FakeDevice, *taps: Tap) -> Opener:
    """The opener of *device* with *taps*."""

    @asynccontextmanager
    async def open_it(request: OpenRequest) -> AsyncIterator[Backend]:
        async with device.open(request) as backend:
            backend.taps += taps
            yield backend

    return open_it


def raising(*methods: str) -> Tap:
    """A tap of which *methods* raise, each time."""
    return type("Raising", (Tap,), dict.fromkeys(methods, fail))()  # type: ignore[no-any-return]


class Watching(Tap):
    """A tap that remembers the bytes it was shown."""

    def __init__(self) -> None:
        self.seen = bytearray()

    def sent(self, data: memoryview) -> None:
        self.seen += data

    def received(self, data: bytes) -> None:
        self.seen += data


# ---------------------------------------------------------------- on_notice


async def test_an_on_notice_that_raises_touches_neither_commands_nor_the_registry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each command does what it did, and a backend that dies is a CLOSED and nothing else."""
    async with open_registry_with(fake_opener) as registry:
        registry.on_notice = fail
        old, new = fake("old"), fake("new")
        await registry.add("c", old)
        await registry.add("dies", fake("dying", dies_after=3))
        await registry.change("c", new)
        assert not old.device.is_held_open
        registry.send_break("c")
        with trio.fail_after(5):
            await until(lambda: not registry["dies"].is_open)
        await registry.remove("dies")
        async with registry["c"].attach() as frontend:
            new.device.feed(b"in")
            assert await frontend.receive_some() == b"in"
            await frontend.send_all(b"out")
        await registry.remove("c")
        assert not new.device.is_held_open
        assert not registry
    assert new.device.sent == b"out"
    assert {
        record.getMessage().partition(":")[0] for record in caplog.records if record.exc_info
    } == {"on_notice failed"}


async def test_an_on_notice_that_raises_lets_a_device_end() -> None:
    async with open_registry() as registry:
        registry.on_notice = fail
        await registry.add("c", NullOptions())
        registry.devices.add(EchoOptions(id="e", chardev="c"))
        await registry.devices.remove("e")
        assert not registry.devices
        await registry.remove("c")


async def test_an_observer_of_a_chardev_that_raises_does_not_break_a_change() -> None:
    old, new = FakeDevice("old"), FakeDevice("new")
    async with open_chardev(old) as chardev:
        chardev.on_event = fail
        await chardev.change(new.open)
        assert chardev.backend is new.backend
        assert not old.is_held_open
        new.connect(False)
        assert not chardev.is_open


# ---------------------------------------------------------------- frontends


@pytest.mark.parametrize("name", ["fe_open", "on_open", "on_line"])
async def test_a_handler_that_raises_ends_its_frontend_alone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """From the change on; *on_open* is called when it is attached, too."""
    is_failing = False

    def handle() -> Any:
        if is_failing:
            fail()
        return True

    async with open_registry_with(fake_opener) as registry:
        old, new = fake("old"), fake("new")
        await registry.add("c", old)
        handlers: dict[str, Any] = {name: handle}
        frontend = registry["c"].attach(be_change=stateless, **handlers)
        is_failing = True
        await registry.change("c", new)
        assert [(row.filename, row.frontend_open) for row in registry.query()] == [
            ("fake:new", False)
        ]
        assert not frontend.is_attached
        assert not old.device.is_held_open
        new.device.feed(b"in")
        async with registry["c"].attach() as other:
            assert await other.receive_some() == b"in"
    assert "it is detached" in caplog.text


async def test_an_on_event_that_raises_in_the_commit_ends_its_frontend_alone() -> None:
    def on_event(event: BackendEvent) -> None:
        if told:
            fail()
        told.append(event)

    told: list[BackendEvent] = []
    old, new = FakeDevice("old"), FakeDevice("new", eager=True)
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless, on_event=on_event)
        old.feed(b"unread")
        await chardev.change(new.open)
        assert chardev.backend is new.backend
        assert frontend.take_ready() == b"unread"
        with pytest.raises(trio.ClosedResourceError):
            frontend.take_ready()
        assert not old.is_held_open


async def test_an_on_event_that_raises_at_the_closed_before_a_change_leaves_the_change() -> None:
    def on_event(event: BackendEvent) -> None:
        if event is Event.CLOSED:
            fail()

    old, new = FakeDevice("old"), FakeDevice("new", connected=False)
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless, on_event=on_event)
        await chardev.change(new.open)
        assert not frontend.is_attached
        assert chardev.backend is new.backend
        assert not old.is_held_open


async def test_an_on_failure_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    old, new = FakeDevice("old"), FakeDevice("new")
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless, on_receive=fail, on_failure=fail)
        old.feed(b"in")
        await wait_all_tasks_blocked()
        assert not frontend.is_attached
        await chardev.change(new.open)
        assert chardev.attach().take_ready() == b"in"
    assert "on_failure failed" in caplog.text


# ---------------------------------------------------------------- taps


@pytest.mark.parametrize("method", TAP_METHODS)
async def test_a_tap_that_raises_is_logged_once_and_shown_nothing_more(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No byte is lost or repeated by it, whether it is of the old backend or of the new one."""
    old, new = FakeDevice("old", eager=True), FakeDevice("new", eager=True)
    watching = Watching(), Watching()
    chardev = Chardev("x")
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        await chardev.open(tapped(old, raising(method), watching[0]))
        frontend = chardev.attach(be_change=stateless)
        await frontend.send_all(b"one,")
        old.feed(b"1,")
        assert await frontend.receive_some() == b"1,"
        old.feed(b"2,")  # this one is drained by the commit
        await chardev.change(tapped(new, raising(method), watching[1]))
        assert not old.is_held_open
        new.feed(b"3")
        await wait_all_tasks_blocked()
        assert frontend.take_ready() + frontend.take_ready() == b"2,3"
        await frontend.send_all(b"two")
        await frontend.send_all(b",three")
        new.connect(False)
        for _ in range(2):
            with pytest.raises(BackendDisconnectedError):
                await frontend.send_all(b"x")
        nursery.cancel_scope.cancel()
    assert (bytes(old.sent), bytes(new.sent)) == (b"one,", b"two,three")
    assert [bytes(tap.seen) for tap in watching] == [b"one,1,2,", b"3two,three"]
    failures = [r.getMessage() for r in caplog.records if r.exc_info]
    assert 1 <= len(failures) <= 2
    assert all("is shown nothing more" in failure for failure in failures)


async def test_a_tap_that_raises_before_a_change_is_refused_leaves_the_original() -> None:
    old, new = FakeDevice("old", eager=True), FakeDevice("new", activates=False)
    chardev = Chardev("x")
    async with trio.open_nursery() as nursery:
        await nursery.start(chardev.run)
        await chardev.open(tapped(old, raising(*TAP_METHODS)))
        frontend = chardev.attach(be_change=stateless)
        with pytest.raises(BackendError):
            await chardev.change(tapped(new, raising(*TAP_METHODS)))
        await frontend.send_all(b"out")
        nursery.cancel_scope.cancel()
    assert old.sent == b"out"


# ---------------------------------------------------------------- all of it at once


async def test_a_registry_in_which_all_raises_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with open_registry_with(fake_opener) as registry:
        registry.on_notice = fail
        devices = [fake(name) for name in "abc"]
        await registry.add("c", devices[0])
        for before, options in pairwise(devices):
            registry["c"].attach(
                be_change=stateless, on_receive=fail, on_open=fail, on_failure=fail
            )
            before.device.feed(b"x")
            await registry.change("c", options)
            await registry["c"].attach(be_change=stateless).aclose()
        assert await data_of(registry) == b"xx"


async def data_of(registry: Registry) -> bytes:
    async with registry["c"].attach() as frontend:
        await wait_all_tasks_blocked()
        return frontend.take_ready()
