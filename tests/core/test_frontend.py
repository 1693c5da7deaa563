"""The user's end: a stream, line calls, and what happens when the chardev is removed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChangeFailedError,
    ChardevClosedError,
    NotSupportedError,
)
from trio_chardev.events import LineSettings, ModemLines
from trio_chardev.testing import FakeDevice, FakeFrontend, open_chardev

PATIENCE = 5  # seconds


# ---------------------------------------------------------------- receiving


async def test_receive_some_waits_through_disconnects_and_changes(schedule: int) -> None:
    old, new = FakeDevice("old"), FakeDevice("new")
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def read() -> None:
                    assert await frontend.receive_some() == b"at last"

                await wait_all_tasks_blocked()
                old.connect(False)
                old.connect(True)
                await chardev.change(new.open)
                await wait_all_tasks_blocked()
                new.feed(b"at last")


@pytest.mark.parametrize("size", [0, -1])
async def test_receive_some_wants_a_size_of_at_least_1(size: int) -> None:
    async with open_chardev(FakeDevice("old")) as chardev:
        with pytest.raises(ValueError, match=r"^max_bytes must be >= 1$"):
            await chardev.attach().receive_some(size)


async def test_receiving_is_a_checkpoint() -> None:
    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        device.feed(b"ab")
        await wait_all_tasks_blocked()
        with trio.testing.assert_checkpoints():
            assert await frontend.receive_some(1) == b"a"
        with trio.CancelScope() as scope:
            scope.cancel()
            await frontend.receive_some()
        assert scope.cancelled_caught
        assert frontend.take_ready() == b"b", "Cancelled: nothing was taken"


async def test_only_one_task_at_a_time_may_receive() -> None:
    async with open_chardev(FakeDevice("old")) as chardev, trio.open_nursery() as nursery:
        frontend = chardev.attach()
        nursery.start_soon(frontend.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await frontend.receive_some()
        nursery.cancel_scope.cancel()
        await frontend.aclose()


async def test_a_reader_gets_the_end_after_the_unread_bytes_when_the_chardev_goes() -> None:
    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        device.feed(b"ab")
        await wait_all_tasks_blocked()
        await chardev.aclose()
        with trio.fail_after(PATIENCE):
            assert [await frontend.receive_some(1) for _ in range(4)] == [b"a", b"b", b"", b""]


@pytest.mark.parametrize("by", ["aclose", "the end of the service"])
async def test_a_waiting_reader_gets_the_end_when_the_chardev_goes(by: str, schedule: int) -> None:
    got = []

    async def read(frontend: Frontend) -> None:
        got.append(await frontend.receive_some())

    async def live() -> None:
        async with open_chardev(FakeDevice("old")) as chardev:
            nursery.start_soon(read, chardev.attach())
            await wait_all_tasks_blocked()
            if by == "aclose":
                await chardev.aclose()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112 - as a service would
            nursery.start_soon(live)
    assert got == [b""]


async def test_a_reader_gets_the_end_after_the_unread_bytes_when_it_goes_in_a_change() -> None:
    """While the change holds the bytes back they are not all."""
    old, new = FakeDevice("old"), FakeDevice("new")
    user, got = FakeFrontend(hangs_at=new), []
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=user.be_change)

        async def read() -> None:
            while data := await frontend.receive_some():
                got.append(data)

        async def change() -> None:
            with pytest.raises(ChardevClosedError):
                await chardev.change(new.open)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(change)
                await wait_all_tasks_blocked()
                old.feed(b"unread")
                nursery.start_soon(read)
                await wait_all_tasks_blocked()
                await chardev.aclose()
    assert got == [b"unread"]


# ---------------------------------------------------------------- closing it


async def test_a_closed_frontend_can_do_nothing_and_the_chardev_stays() -> None:
    device = FakeDevice("old", has_line=True)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        await frontend.aclose()
        await frontend.aclose()
        assert not frontend.is_attached
        waits: list[Callable[[], Awaitable[object]]] = [
            frontend.receive_some,
            frontend.line.get_modem,
            frontend.line.send_break,
            frontend.wait_send_all_might_not_block,
            lambda: frontend.send_all(b"x"),
            lambda: frontend.send_some(b"x"),
            lambda: frontend.line.set(LineSettings()),
        ]
        for call in waits:
            with pytest.raises(trio.ClosedResourceError):
                await call()
        for sync_call in (
            frontend.take_ready,
            frontend.accept_input,
            lambda: frontend.try_send(b"x"),
        ):
            with pytest.raises(trio.ClosedResourceError):
                sync_call()
        assert device.is_held_open
        assert not chardev.frontends
        await chardev.attach().send_all(b"x")


async def test_closing_it_ends_a_receive_some_that_waits() -> None:
    async with open_chardev(FakeDevice("old")) as chardev:
        frontend = chardev.attach()
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def read() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await frontend.receive_some()

                await wait_all_tasks_blocked()
                await frontend.aclose()


async def test_closing_an_old_frontend_leaves_the_next_one_alone() -> None:
    async with open_chardev(FakeDevice("old")) as chardev:
        first = chardev.attach()
        await first.aclose()
        second = chardev.attach()
        await first.aclose()
        assert second.is_attached


# ---------------------------------------------------------------- the line


async def test_line_calls_reach_the_backend_in_place() -> None:
    device = FakeDevice("old", has_line=True)
    settings = LineSettings(speed=9600, parity="E")
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        await frontend.line.set(settings)
        await frontend.line.set_modem(ModemLines.DTR)
        await frontend.line.send_break(0.001)
        await frontend.line.set_echo(True)
        assert await frontend.line.get_modem() == ModemLines.CTS | ModemLines.DSR
        assert device.line_calls == [settings, ModemLines.DTR, 0.001, True]


async def test_line_calls_that_the_backend_lacks_are_not_supported() -> None:
    async with open_chardev(FakeDevice("old")) as chardev:
        with pytest.raises(NotSupportedError, match=r"^'fake:old' has no line settings$"):
            await chardev.attach().line.set(LineSettings())


@pytest.mark.parametrize(
    ("closed", "error"), [(False, BackendDisconnectedError), (True, ChardevClosedError)]
)
async def test_line_calls_do_not_touch_a_backend_that_is_gone(
    closed: bool, error: type[Exception]
) -> None:
    device = FakeDevice("old", has_line=True, dies_after=0)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        await wait_all_tasks_blocked()
        if closed:
            await chardev.aclose()
        with pytest.raises(error):
            await frontend.line.set(LineSettings())
        with pytest.raises(error):
            await frontend.line.set_echo(True)
        assert not device.line_calls


async def test_a_line_call_in_line_behind_a_change_goes_to_the_new_backend() -> None:
    old, new = FakeDevice("old", has_line=True), FakeDevice("new", has_line=True)
    asked, release = trio.Event(), trio.Event()

    async def be_change(backend: Controls) -> None:
        asked.set()
        await release.wait()

    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=be_change)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chardev.change, new.open)
                await asked.wait()
                nursery.start_soon(frontend.line.set, LineSettings())
                await wait_all_tasks_blocked()
                release.set()
        assert (old.line_calls, new.line_calls) == ([], [LineSettings()])


async def test_a_frontend_redoes_its_settings_in_be_change_or_undoes_the_change() -> None:
    """Promise 4, as the bridge uses it."""
    settings = LineSettings(speed=9600)
    old, new = FakeDevice("old", has_line=True), FakeDevice("new", has_line=True)
    bad = FakeDevice("bad", has_line=True, line_fails=True)

    async def be_change(backend: Controls) -> None:
        assert backend.is_open
        await backend.line.set(settings)

    async with open_chardev(old) as chardev:
        chardev.attach(be_change=be_change)
        with pytest.raises(ChangeFailedError) as caught:
            await chardev.change(bad.open)
        assert isinstance(caught.value.__cause__, BackendError)
        assert old.line_calls == [settings], "set up for the original again"
        await chardev.change(new.open)
        assert new.line_calls == [settings]
        assert chardev.backend is new.backend


async def test_is_open_follows_the_backend_in_place() -> None:
    old, new = FakeDevice("old"), FakeDevice("new", connected=False)
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless)
        assert frontend.is_open
        await chardev.change(new.open)
        assert not frontend.is_open
        new.connect()
        assert frontend.is_open
        await chardev.aclose()
        assert not frontend.is_open
