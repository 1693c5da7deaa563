"""Backends that are opened at once: by a call, without a task that opens, closes or need read them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_chardev as tc
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.core.at_once import AtOnce
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import BackendError, ChardevClosedError
from trio_chardev.testing import FakeBackend, FakeDevice, open_chardev


class Tasks(trio.abc.Instrument):
    """Counts the tasks that are started, and the passes of the scheduler."""

    def __init__(self) -> None:
        self.started = self.passes = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.started += 1

    def after_io_wait(self, timeout: float) -> None:
        self.passes += 1


def at_once(name: str, **faults: bool) -> FakeDevice:
    return FakeDevice(name, at_once=True, **faults)  # type: ignore[arg-type]


async def test_it_is_entered_or_opened_by_a_call_and_closed_once() -> None:
    request = OpenRequest(id="x", on_event=lambda event: None)
    closed: list[Backend] = []
    device = FakeDevice("a")
    async with AtOnce(partial(FakeBackend, request, device), closed.append) as entered:
        assert not closed
    assert closed == [entered]
    opening = AtOnce(partial(FakeBackend, request, device), closed.append)
    called = opening.open()
    opening.close()
    opening.close()
    assert closed == [entered, called]


@pytest.mark.parametrize("options", [tc.NullOptions(), RingbufOptions()], ids=["null", "ringbuf"])
async def test_a_change_to_a_kind_that_is_never_read_starts_no_task(
    options: tc.BackendOptions,
) -> None:
    async with tc.open_registry() as registry:
        await registry.add("x", tc.NullOptions())
        tasks = Tasks()
        trio.lowlevel.add_instrument(tasks)
        await registry.change("x", options)
        trio.lowlevel.remove_instrument(tasks)
        assert (tasks.started, tasks.passes) == (0, 1)


async def test_a_change_to_one_that_is_read_starts_the_task_that_reads() -> None:
    new = at_once("new")
    async with open_chardev(at_once("old")) as chardev:
        frontend = chardev.attach(be_change=stateless)
        tasks = Tasks()
        trio.lowlevel.add_instrument(tasks)
        await chardev.change(new.open)
        trio.lowlevel.remove_instrument(tasks)
        assert tasks.started == 1
        new.feed(b"to be read")
        assert await frontend.receive_some() == b"to be read"


async def test_the_next_change_may_come_before_the_chardev_has_run() -> None:
    async with tc.open_registry() as registry:
        await registry.add("x", tc.NullOptions())
        await registry.change("x", tc.PtyOptions())
        assert registry["x"].pty is not None


async def test_it_is_closed_with_its_chardev() -> None:
    for device in (at_once("read"), at_once("silent", is_silent=True)):
        async with open_chardev(device):
            assert device.is_held_open
        assert not device.is_held_open


async def test_what_ends_its_reading_closes_it_and_the_chardev_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    old, new = at_once("old"), FakeDevice("new", at_once=True, dies_after=0)
    async with open_chardev(old) as chardev:
        await chardev.change(new.open)
        await wait_all_tasks_blocked()
        assert not new.is_held_open
        assert (chardev.is_open, chardev.state.state) == (False, "failed")
        assert "the backend is gone: new died" in caplog.text


def broken(request: OpenRequest) -> Backend:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize(
    ("opener", "error"),
    [
        (lambda request: AtOnce(partial(broken, request)), "ZeroDivisionError: a bug"),
        (at_once("new", opens=False).open, "new does not open"),
        (at_once("new", activates=False).open, "new does not take its place"),
    ],
    ids=["bug", "open", "activate"],
)
async def test_one_that_does_not_open_leaves_nothing_behind(opener: Opener, error: str) -> None:
    old = at_once("old")
    async with open_chardev(old) as chardev:
        with pytest.raises(BackendError, match=error):
            await chardev.change(opener)
        assert chardev.backend is old.backend
    async with trio.open_nursery() as nursery:
        first = Chardev("first")
        nursery.start_soon(first.run)
        with pytest.raises(BackendError, match=error):
            await first.open(opener)
        await first.aclose()  # else the nursery would wait for ever


async def test_a_first_one_that_does_not_take_its_place_is_closed() -> None:
    device = at_once("a", activates=False)
    async with trio.open_nursery() as nursery:
        chardev = Chardev("x")
        nursery.start_soon(chardev.run)
        with pytest.raises(BackendError):
            await chardev.open(device.open)
        assert not device.is_held_open
        await chardev.aclose()


async def test_an_add_that_is_cancelled_before_leaves_nothing_behind() -> None:
    async with tc.open_registry() as registry:
        with trio.CancelScope() as scope:
            scope.cancel()
            await registry.add("x", tc.NullOptions())
        assert scope.cancelled_caught
        assert not registry
        await registry.add("x", tc.NullOptions())


async def test_an_error_of_closing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    request_of: Callable[[OpenRequest], Backend] = lambda request: FakeBackend(  # noqa: E731
        request, FakeDevice("a")
    )

    def close(backend: Backend) -> None:
        raise ZeroDivisionError

    async with open_chardev(at_once("old")) as chardev:
        await chardev.change(lambda request: AtOnce(partial(request_of, request), close))
        await chardev.change(at_once("new").open)
        assert "fake:a: cannot close" in caplog.text


async def test_it_is_refused_once_the_chardev_is_closed() -> None:
    async with open_chardev(at_once("old")) as chardev:
        chardev.shut()
        new = at_once("new")
        with pytest.raises(ChardevClosedError):
            await chardev.change(new.open, timeout=math.inf)
        assert not new.is_held_open
