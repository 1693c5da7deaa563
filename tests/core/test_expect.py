"""`Frontend.expect`: what it returns, what it leaves, and that it loses nothing however it ends."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.expect import MAX_LOOKED_AT, MAX_MATCH
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import ChardevClosedError, ExpectError, ExpectTimeoutError
from trio_chardev.events import Event
from trio_chardev.testing import CancelAtStep, FakeDevice, FakeFrontend, open_chardev


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice("old")


@pytest.fixture
async def chardev(device: FakeDevice) -> AsyncIterator[Chardev]:
    async with open_chardev(device) as chardev:
        yield chardev


@pytest.fixture
def frontend(chardev: Chardev) -> Frontend:
    return chardev.attach(be_change=stateless)


# ---------------------------------------------------------------- what it returns


@pytest.mark.parametrize(
    ("pattern", "before", "match"),
    [
        (b"login: ", b"Debian\r\nboard ", b"login: "),
        ("login: ", b"Debian\r\nboard ", b"login: "),
        (re.compile(rb"(\w+) login: "), b"Debian\r\n", b"board login: "),
        (b".", None, None),
    ],
    ids=["bytes", "text", "expression", "no-expression"],
)
async def test_what_came_before_and_the_match_are_returned_and_what_follows_stays(
    frontend: Frontend, device: FakeDevice, pattern: Any, before: bytes | None, match: bytes
) -> None:
    device.feed(b"Debian\r\nboard login: root")
    if before is None:
        with pytest.raises(ExpectTimeoutError):
            await frontend.expect(pattern, timeout=0)
        return
    found = await frontend.expect(pattern, timeout=5)
    assert (found.before, found.match[0]) == (before, match)
    assert await frontend.receive_some() == b"root"


async def test_the_groups_of_an_expression_are_those_of_its_match(
    frontend: Frontend, device: FakeDevice
) -> None:
    device.feed(b"board login: ")
    _, match = await frontend.expect(re.compile(rb"(\w+) login"), timeout=5)
    assert match[1] == b"board"


async def test_a_text_is_looked_for_as_utf_8(frontend: Frontend, device: FakeDevice) -> None:
    device.feed("grün".encode())
    assert (await frontend.expect("ü", timeout=5)).before == b"gr"


async def test_what_comes_in_pieces_is_found(frontend: Frontend, device: FakeDevice) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            assert (await frontend.expect(b"login: ", timeout=5)).before == b"..."
            assert (await frontend.expect(b"word: ", timeout=5)).before == b"root\r\npass"

        for piece in (b"...log", b"in", b": ro", b"ot\r\n", b"password: "):
            await wait_all_tasks_blocked()
            device.feed(piece)


async def test_one_that_has_come_already_is_found_without_waiting_but_is_a_checkpoint(
    frontend: Frontend, device: FakeDevice
) -> None:
    device.feed(b"login: ")
    await wait_all_tasks_blocked()
    with trio.testing.assert_checkpoints():
        await frontend.expect(b"login: ", timeout=5)


async def test_it_goes_on_through_a_disconnect_and_a_change(
    chardev: Chardev, frontend: Frontend, device: FakeDevice
) -> None:
    new = FakeDevice("new")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            assert (await frontend.expect(b"login: ", timeout=5)).before == b"of the old, new "

        await wait_all_tasks_blocked()
        device.feed(b"of the old, ")
        device.connect(False)
        await chardev.change(new.open)
        new.feed(b"new login: ")


async def test_events_are_told_in_order_with_what_it_has_looked_at(device: FakeDevice) -> None:
    user = FakeFrontend()
    async with open_chardev(device) as chardev:
        frontend = chardev.attach(on_event=user.on_event)
        device.feed(b"a")
        device.say(Event.BREAK)
        device.feed(b"b")
        assert (await frontend.expect(b"b", timeout=5)).before == b"a"
    assert user.events == [Event.OPENED, Event.BREAK]


# ---------------------------------------------------------------- what stays


async def test_a_timeout_says_what_came_and_that_stays(
    frontend: Frontend, device: FakeDevice, autojump_clock: trio.testing.MockClock
) -> None:
    device.feed(b"Kernel panic")
    with pytest.raises(ExpectTimeoutError) as caught:
        await frontend.expect(b"login: ", timeout=60)
    assert str(caught.value) == "no b'login: ' in 60 seconds; came b'Kernel panic'"
    assert isinstance(caught.value, trio.TooSlowError)
    device.feed(b" - not syncing")
    await wait_all_tasks_blocked()
    assert await frontend.receive_some() == b"Kernel panic - not syncing"


async def test_a_timeout_at_which_nothing_came_says_so(frontend: Frontend) -> None:
    with pytest.raises(ExpectTimeoutError, match="^no 'login' in 0 seconds; nothing came$"):
        await frontend.expect("login", timeout=0)


async def test_of_much_that_came_the_end_is_shown(frontend: Frontend, device: FakeDevice) -> None:
    device.feed(b"x" * 1000 + b"the end")
    await wait_all_tasks_blocked()
    with pytest.raises(ExpectTimeoutError, match=r"came \.\.\. b'x{193}the end'$"):
        await frontend.expect(b"login", timeout=0)


async def expect_and_cancel(step: int, when: str) -> bool:
    """Expect what comes in pieces, cancelled at that step; was there such a step?"""
    device, injector = FakeDevice("old"), CancelAtStep(step, when, trio.CancelScope())
    taken = b""
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()

        async def read() -> None:
            nonlocal taken
            with injector.scope:
                found = await frontend.expect(b"c", timeout=5)
                taken = found.before + found.match[0]

        trio.lowlevel.add_instrument(injector)
        injector.armed = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for piece in (b"a", b"b", b"cd"):
                await wait_all_tasks_blocked()
                device.feed(piece)
        injector.armed = False
        trio.lowlevel.remove_instrument(injector)
        await wait_all_tasks_blocked()
        assert taken + frontend.take_ready() == b"abcd"
        assert taken in (b"", b"abc")
    return injector.fired


@pytest.mark.parametrize("when", ["before", "after"])
async def test_cancelled_at_any_step_it_has_taken_all_or_nothing(when: str) -> None:
    step = 1
    while await expect_and_cancel(step, when):
        step += 1
    assert step > 6, "each piece is a step of the reader's and of the device's"


async def test_a_chardev_that_is_closed_meanwhile_is_an_error_that_says_what_came(
    device: FakeDevice,
) -> None:
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        device.feed(b"Power down")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(
                    ChardevClosedError, match=r"it is closed: no b'x'; came b'Power down'$"
                ):
                    await frontend.expect(b"x")

            await wait_all_tasks_blocked()
            await chardev.aclose()
        assert frontend.take_ready() == b"Power down"


async def test_a_user_that_leaves_meanwhile_leaves_what_was_looked_at_to_the_next(
    device: FakeDevice,
) -> None:
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        device.feed(b"for whoever reads")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await frontend.expect(b"x")

            await wait_all_tasks_blocked()
            await frontend.aclose()
        assert await chardev.attach().receive_some() == b"for whoever reads"


async def test_only_one_task_at_a_time_may_receive_or_expect(frontend: Frontend) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(frontend.expect, b"x")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await frontend.receive_some()
        with pytest.raises(trio.BusyResourceError):
            await frontend.expect(b"y")
        nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- bounds


async def test_so_much_without_a_match_is_an_error_and_stays() -> None:
    device = FakeDevice("old", endless=True)
    async with open_chardev(device) as chardev:
        frontend = chardev.attach()
        with pytest.raises(ExpectError, match=f"in {MAX_LOOKED_AT} bytes; came "):
            await frontend.expect(b"never")
        size = 0
        while size < MAX_LOOKED_AT:
            size += len(await frontend.receive_some(MAX_LOOKED_AT - size))


async def test_a_match_in_pieces_may_be_of_that_many_bytes(
    frontend: Frontend, device: FakeDevice
) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def read() -> None:
            _, match = await frontend.expect(re.compile(b"<a*>"), timeout=5)
            assert len(match[0]) == MAX_MATCH + 1

        for piece in (b"." * MAX_MATCH, b"<" + b"a" * (MAX_MATCH - 1), b">"):
            await wait_all_tasks_blocked()
            device.feed(piece)


@pytest.mark.parametrize("pattern", [5, re.compile("text"), None])
async def test_what_is_no_pattern_is_refused_in_a_sentence(
    frontend: Frontend, pattern: Any
) -> None:
    with pytest.raises(
        TypeError, match=r"^a pattern is bytes, str, or re\.compile\(b'...'\), not "
    ):
        await frontend.expect(pattern)
