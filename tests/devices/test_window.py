"""The size of its users' window goes over a bridge to the device, and nothing comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from tests.devices.fakes import Journal, open_fakes
from tests.fakes import any_opener, attach, type_in
from trio_chardev.backends.stacked.hub import HubOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.devices.table import driver_of
from trio_chardev.events import UNKNOWN_SIZE, Event, WindowSize
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeFrontend, FakeOptions

SMALL, WIDE = WindowSize(80, 24), WindowSize(132, 43)
LINED: dict[str, Any] = {"has_line": True, "eager": True}


@asynccontextmanager
async def bridged(board: FakeDevice, user: FakeDevice) -> AsyncIterator[Registry]:
    async with open_fakes(board, user) as registry:
        registry.devices.add(BridgeOptions(id="b0", chardev="board", peer="user"))
        await wait_all_tasks_blocked()
        yield registry


async def test_a_size_goes_from_the_users_to_the_device_in_its_place() -> None:
    board, user = FakeDevice("board", **LINED), FakeDevice("user", **LINED)
    told = Journal(board)
    async with bridged(board, user):
        for data, size in ((b"a", WIDE), (b"b", UNKNOWN_SIZE), (b"c", SMALL)):
            await type_in(user, data)
            user.say(size)
            await wait_all_tasks_blocked()
        board.say(WIDE)
        await wait_all_tasks_blocked()
    assert told == [(WIDE, b"a"), (SMALL, b"abc")]
    assert user.line_calls == [], "a device has no window"


async def test_of_many_that_wait_the_last_one_is_told() -> None:
    board, user = FakeDevice("board", **LINED), FakeDevice("user")
    async with bridged(board, user):
        for cols in range(100):
            user.say(WindowSize(cols, 24))
        await wait_all_tasks_blocked()
    assert board.line_calls == [WindowSize(99, 24)]


@pytest.mark.parametrize("is_before", [True, False])
async def test_the_size_is_known_to_a_bridge_and_to_a_peer_that_come_later(is_before: bool) -> None:
    board, user = FakeDevice("board", **LINED), FakeDevice("user", connected=not is_before)
    async with open_fakes(board, user) as registry:
        user.say(WIDE)
        registry.devices.add(BridgeOptions(chardev="board", peer="user"))
        await wait_all_tasks_blocked()
        assert board.line_calls == ([] if is_before else [WIDE])
        user.connect()
        await wait_all_tasks_blocked()
    assert board.line_calls == [WIDE]


async def test_a_new_device_is_told_before_it_is_in_place_and_the_original_again() -> None:
    board, user = FakeDevice("board"), FakeDevice("user")
    new, refusing = FakeDevice("new", **LINED), FakeDevice("refusing", **LINED, activates=False)
    async with bridged(board, user) as registry:
        user.say(WIDE)
        await wait_all_tasks_blocked()
        await registry.change("board", FakeOptions(device=new))
        assert new.line_calls == [WIDE], "which the one before it could not be told"
        new.line_calls.clear()
        with pytest.raises(Exception, match=r"refusing does not take its place"):
            await registry.change("board", FakeOptions(device=refusing))
    assert refusing.line_calls == new.line_calls == [WIDE]


async def test_a_new_device_is_told_the_window_of_users_who_are_away() -> None:
    """As that of a PTY is, whose user may come before he is noticed."""
    board, user = FakeDevice("board"), FakeDevice("user", connected=False)
    new = FakeDevice("new", **LINED)
    async with bridged(board, user) as registry:
        user.say(WIDE)
        await registry.change("board", FakeOptions(device=new))
        assert new.line_calls[0] == WIDE


async def test_new_users_have_another_window() -> None:
    board, old, new = FakeDevice("board", **LINED), FakeDevice("user"), FakeDevice("new")
    async with bridged(board, old) as registry:
        old.say(WIDE)
        await wait_all_tasks_blocked()
        changed = registry["user"]
        await registry.change("user", FakeOptions(device=new))
        await wait_all_tasks_blocked()
        assert changed.window_size == UNKNOWN_SIZE
        assert board.line_calls == [WIDE], "what is unknown is not told"
        new.say(SMALL)
        await wait_all_tasks_blocked()
    assert board.line_calls == [WIDE, SMALL]


# ---------------------------------------------------------------- mux and hub


async def test_with_a_mux_the_focused_device_is_told_and_who_gets_the_focus_then() -> None:
    base = FakeDevice("base", **LINED)
    boards = [FakeDevice(name, **LINED) for name in ("board0", "board1")]
    async with open_registry_with(any_opener, driver_of) as registry:
        await registry.add("base", FakeOptions(device=base))
        await registry.add("m", MuxOptions(chardev="base"))
        for board in boards:
            await registry.add(board.name, FakeOptions(device=board))
            registry.devices.add(BridgeOptions(chardev=board.name, peer="m"))
        await wait_all_tasks_blocked()
        base.say(WIDE)
        await wait_all_tasks_blocked()
        assert [board.line_calls for board in boards] == [[], [WIDE]]
        await type_in(base, b"\x01c")
        assert [board.line_calls for board in boards] == [[WIDE], [WIDE]]
        base.say(SMALL)
        await wait_all_tasks_blocked()
        assert [board.line_calls for board in boards] == [[WIDE, SMALL], [WIDE]]


async def test_a_mux_has_the_size_of_its_base() -> None:
    base, user = FakeDevice("base", connected=False), FakeFrontend()
    async with open_registry_with(any_opener) as registry:
        await registry.add("base", FakeOptions(device=base))
        base.say(WIDE)
        await registry.add("m", MuxOptions(chardev="base"))
        frontend = attach(registry["m"], user)
        assert frontend.window_size == WIDE
        base.say(SMALL)
        assert frontend.window_size == WIDE, "nobody is there, so that is no event"
        base.connect()
        assert (frontend.window_size, user.seen) == (SMALL, [Event.MUX_IN, Event.OPENED])
        await registry.change("base", FakeOptions(device=FakeDevice("other")))
        assert frontend.window_size == UNKNOWN_SIZE


async def test_in_a_hub_the_last_size_of_those_there_counts() -> None:
    members = [FakeDevice(name) for name in "abc"]
    async with open_registry_with(any_opener) as registry:
        for member in members:
            await registry.add(member.name, FakeOptions(device=member))
        members[0].say(WIDE)
        await registry.add("h", HubOptions(chardevs=tuple("abc")))
        hub, user = registry["h"], FakeFrontend()
        attach(hub, user)
        assert hub.window_size == WIDE
        members[1].say(SMALL)
        members[2].connect(False)
        assert hub.window_size == SMALL
        members[1].connect(False)
        assert hub.window_size == WIDE, "a has still that window"
        members[0].say(UNKNOWN_SIZE)
        members[1].connect()
        assert hub.window_size == SMALL
        hub.resized(WIDE)
        members[2].connect()
        assert hub.window_size == WIDE
    assert user.events == [Event.OPENED, SMALL, WIDE, UNKNOWN_SIZE, SMALL, WIDE]


async def test_a_hub_that_comes_to_members_with_windows_has_that_of_the_last_one_there() -> None:
    members, user = [FakeDevice(name) for name in "abc"], FakeFrontend()
    async with open_registry_with(any_opener) as registry:
        for member, size in zip(members, (SMALL, WIDE, SMALL), strict=True):
            await registry.add(member.name, FakeOptions(device=member))
            member.say(size)
        members[2].connect(False)
        await registry.add("h", HubOptions(chardevs=tuple("abc")))
        attach(registry["h"], user)
        assert registry["h"].window_size == WIDE
        for member in members[:2]:
            member.connect(False)
        assert registry["h"].window_size == UNKNOWN_SIZE
    assert user.events == [Event.OPENED, Event.CLOSED]


async def test_a_size_goes_through_mux_and_hub_to_what_they_stand_on() -> None:
    devices = [FakeDevice(name, **LINED) for name in "ab"]
    async with open_registry_with(any_opener) as registry:
        for device in devices:
            await registry.add(device.name, FakeOptions(device=device))
        await registry.add("m", MuxOptions(chardev="a"))
        await registry.add("h", HubOptions(chardevs=("m", "b")))
        await registry["h"].attach().line.set_window_size(WIDE)
        assert [device.line_calls for device in devices] == [[WIDE], [WIDE]]
