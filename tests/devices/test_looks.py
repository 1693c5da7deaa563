"""What a bridge looks at, and for whom: an idle one costs nothing."""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_chardev as tc
from tests.devices.fakes import open_fakes
from tests.fakes import any_opener
from tests.services import until
from trio_chardev.backends.terminal_window import get_window_size, set_window_size
from trio_chardev.devices.bridge import Bridge
from trio_chardev.devices.looks import LOOK_INTERVAL, RARELY, RESTS_AFTER, Looked, get_looks
from trio_chardev.devices.table import driver_of
from trio_chardev.events import LineSettings, WindowSize
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions

OSPEED = 5  # its place in what tcgetattr gives
SERIAL: dict[str, Any] = {"has_line": True, "polled": frozenset({"modem"})}
PTY: dict[str, Any] = {"has_line": True, "polled": frozenset({"settings"})}
LINE: dict[str, Any] = {"has_line": True}
WINDOW: dict[str, Any] = {"has_line": True, "polled": frozenset({"window"})}


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks but the test's own."""

    def __init__(self) -> None:
        self.count = 0
        self._own = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is not self._own


async def steps_in(seconds: float) -> int:
    """Return how many steps other tasks make in that time, after what they do now."""
    await wait_all_tasks_blocked()
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    await trio.sleep(seconds)
    trio.lowlevel.remove_instrument(steps)
    return steps.count


@asynccontextmanager
async def bridged(board: FakeDevice, user: FakeDevice) -> AsyncIterator[Registry]:
    async with open_fakes(board, user) as registry:
        registry.devices.add(tc.BridgeOptions(id="b0", chardev="board", peer="user"))
        await wait_all_tasks_blocked()
        yield registry


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize(
    ("board", "user"),
    [(SERIAL, {}), ({}, PTY), (PTY, {}), ({}, {}), (LINE, LINE), ({}, WINDOW), (WINDOW, LINE)],
    ids=[
        *("serial to plain", "plain to PTY", "PTY to plain", "plain", "lines that report"),
        *("a window and nobody who can be told", "a device's window"),
    ],
)
async def test_an_idle_bridge_wakes_nobody_for_a_minute(
    board: dict[str, Any], user: dict[str, Any], connected: bool, autojump_clock: MockClock
) -> None:
    devices = FakeDevice("board", **board), FakeDevice("user", connected=connected, **user)
    async with bridged(*devices):
        assert await steps_in(60) == 0
        assert [device.looks for device in devices] == [0, 0]


async def test_nor_does_one_whose_other_side_could_follow_but_is_away(
    autojump_clock: MockClock,
) -> None:
    board, user = FakeDevice("board", **SERIAL), FakeDevice("user", connected=False, **LINE)
    async with bridged(board, user):
        assert await steps_in(60) == 0
        looks = board.looks
        user.connect()
        await wait_all_tasks_blocked()
        assert board.looks > looks


async def test_the_users_window_is_looked_at_while_the_device_can_be_told(
    autojump_clock: MockClock,
) -> None:
    board, user = FakeDevice("board", **LINE), FakeDevice("user", **WINDOW)
    async with bridged(board, user):
        user.looks = 0
        await trio.sleep(10 * LOOK_INTERVAL + 0.01)
        assert user.looks == 10
        board.connect(False)
        assert await steps_in(60) < 5


async def test_a_line_is_looked_at_while_the_other_side_can_follow(
    autojump_clock: MockClock,
) -> None:
    board, user = FakeDevice("board", **SERIAL), FakeDevice("user")
    async with bridged(board, user) as registry:
        for faults, looks in ((LINE, 10), ({}, 0), (LINE, 10)):
            await registry.change("user", FakeOptions(device=FakeDevice("new", **faults)))
            await wait_all_tasks_blocked()
            board.looks = 0
            await trio.sleep(10 * LOOK_INTERVAL + 0.01)
            assert board.looks == looks
        board.connect(False)
        assert await steps_in(60) < 5


async def test_a_terminal_at_which_nothing_happens_is_looked_at_rarely(
    autojump_clock: MockClock,
) -> None:
    board, user = FakeDevice("board", **LINE), FakeDevice("user", **PTY)
    async with bridged(board, user):
        await trio.sleep((RESTS_AFTER + 2) * LOOK_INTERVAL)
        user.looks = 0
        await trio.sleep(RARELY * LOOK_INTERVAL)
        assert user.looks == 1
        board.feed(b"a line of text")
        await trio.sleep(RARELY * LOOK_INTERVAL)
        user.looks = 0
        await trio.sleep(10 * LOOK_INTERVAL)
        assert user.looks == 10


async def test_modem_lines_are_looked_at_as_often_as_ever(autojump_clock: MockClock) -> None:
    board, user = FakeDevice("board", **SERIAL), FakeDevice("user", **LINE)
    async with bridged(board, user):
        await trio.sleep((RESTS_AFTER + 2) * LOOK_INTERVAL)
        board.looks = 0
        await trio.sleep(10 * LOOK_INTERVAL)
        assert board.looks == 10


async def test_a_hundred_that_are_looked_at_wake_one_task(autojump_clock: MockClock) -> None:
    looked = [0]

    def look() -> None:
        looked[0] += 1

    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(get_looks().at(Looked(look, on_failure=lambda: None)))
        assert await steps_in(LOOK_INTERVAL + 0.01) <= 3
        assert looked == [100]
    assert await steps_in(60) == 0


async def test_a_look_that_raises_ends_its_device_alone(autojump_clock: MockClock) -> None:
    history = []

    def fail() -> None:
        history.append("look")
        raise ValueError("a bug")

    with (
        get_looks().at(Looked(fail, on_failure=lambda: history.append("failed"))),
        get_looks().at(Looked(lambda: history.append("other"), on_failure=lambda: None)),
    ):
        await trio.sleep(2 * LOOK_INTERVAL + 0.01)
    assert history == ["look", "failed", "other", "other"]


@pytest.mark.parametrize("user", ["a line", "TCP"])
async def test_nor_is_a_line_looked_at_that_has_nothing_or_for_who_can_follow_nothing(
    user: str,
) -> None:
    """The slave of a PTY has no modem lines, and plain TCP no way to tell of them."""

    def is_idle() -> bool:
        return trio.lowlevel.current_statistics().seconds_to_next_deadline > 60

    master, slave = os.openpty()
    tty.setraw(slave)
    async with open_registry_with(any_opener, driver_of) as registry:
        await registry.add("board", tc.SerialOptions(path=os.ttyname(slave)))
        if user == "TCP":
            addr = tc.InetAddress("127.0.0.1", "0")
            port = (await registry.add("user", tc.SocketOptions(addr=addr, wait=False))).port
            assert port is not None
            client = await trio.open_tcp_stream("127.0.0.1", port)
        else:
            client = None
            await registry.add("user", FakeOptions(device=FakeDevice("user", **LINE)))
        registry.devices.add(tc.BridgeOptions(id="b0", chardev="board", peer="user"))
        await until(lambda: registry["user"].is_open and is_idle())
        if client is not None:
            await client.aclose()
    os.close(master)
    os.close(slave)


async def test_what_was_set_while_nobody_could_follow_is_set_before_the_next_commit() -> None:
    """Nobody has looked at the PTY until then."""
    master, slave = os.openpty()
    tty.setraw(slave)
    async with tc.open_registry() as registry:
        await registry.add("board", tc.NullOptions())
        await registry.add("user", tc.PtyOptions())
        device = registry.devices.add(tc.BridgeOptions(id="b0", chardev="board", peer="user"))
        assert registry["user"].pty is not None
        user = os.open(registry["user"].pty, os.O_RDWR | os.O_NOCTTY)
        modes = termios.tcgetattr(user)
        modes[OSPEED - 1] = modes[OSPEED] = termios.B9600
        termios.tcsetattr(user, termios.TCSANOW, modes)
        await registry.change("board", tc.SerialOptions(path=os.ttyname(slave)))
        assert termios.tcgetattr(slave)[OSPEED] == termios.B9600
        await wait_all_tasks_blocked()
        assert isinstance(device, Bridge)
        assert device.info.to_chardev.line == "9600 8N1"
    for fd in (master, slave, user):
        os.close(fd)


async def test_a_window_that_nobody_could_be_told_of_is_told_before_the_next_commit() -> None:
    async with tc.open_registry() as registry:
        await registry.add("board", tc.NullOptions())
        await registry.add("user", tc.PtyOptions())
        registry.devices.add(tc.BridgeOptions(id="b0", chardev="board", peer="user"))
        await wait_all_tasks_blocked()
        assert registry["user"].pty is not None
        user = os.open(registry["user"].pty, os.O_RDWR | os.O_NOCTTY)
        set_window_size(user, WindowSize(132, 43))
        chardev = await registry.change("board", tc.PtyOptions())
        assert chardev.pty is not None
        board = os.open(chardev.pty, os.O_RDWR | os.O_NOCTTY)
        assert get_window_size(board) == WindowSize(132, 43)
    for fd in (user, board):
        os.close(fd)


@pytest.mark.parametrize("below", ["mux", "hub", "mux on hub"])
async def test_a_mux_or_hub_tells_that_it_stands_on_another_line_now(
    below: str, autojump_clock: MockClock
) -> None:
    board = FakeDevice("board", **SERIAL)
    async with open_registry_with(any_opener, driver_of) as registry:
        await registry.add("board", FakeOptions(device=board))
        await registry.add("base", FakeOptions(device=FakeDevice("base")))
        user = "base"
        for kind in below.split(" on ")[::-1]:
            if kind == "hub":
                await registry.add(kind, tc.HubOptions(chardevs=(user,)))
            else:
                await registry.add(kind, tc.MuxOptions(chardev=user))
            user = kind
        registry.devices.add(tc.BridgeOptions(id="b0", chardev="board", peer=user))
        assert await steps_in(60) == 0
        for faults, is_polled in ((LINE, True), ({}, False), (LINE, True)):
            await registry.change("base", FakeOptions(device=FakeDevice("new", **faults)))
            assert (await steps_in(60) > 100) == is_polled


async def test_a_hubs_member_is_looked_at_only_while_somebody_is_there(
    autojump_clock: MockClock,
) -> None:
    members = [FakeDevice(name, connected=False, **PTY) for name in "ab"]
    async with open_registry_with(any_opener, driver_of) as registry:
        for device in (FakeDevice("board", **LINE), FakeDevice("plain"), *members):
            await registry.add(device.name, FakeOptions(device=device))
        await registry.add("hub", tc.HubOptions(chardevs=("plain", "a", "b")))
        registry.devices.add(tc.BridgeOptions(id="b0", chardev="board", peer="hub"))
        assert await steps_in(60) == 0
        for device in members:
            device.connect()
            assert await steps_in(60) > 100
            device.connect(False)
            assert await steps_in(60) == 0


async def test_who_shares_a_mux_shows_what_another_user_has_set() -> None:
    """And nobody has to look for that."""
    master, slave = os.openpty()
    tty.setraw(slave)
    async with tc.open_registry() as registry:
        await registry.add("board", tc.SerialOptions(path=os.ttyname(slave)))
        await registry.add("mux", tc.MuxOptions(chardev="board"))
        await registry.add("user", tc.PtyOptions())
        registry.devices.add(tc.BridgeOptions(id="b0", chardev="mux", peer="user"))
        await wait_all_tasks_blocked()
        assert registry["user"].pty is not None
        user = os.open(registry["user"].pty, os.O_RDWR | os.O_NOCTTY)
        async with registry["mux"].attach(be_change=tc.stateless) as another:
            await another.line.set(LineSettings(speed=300))
        await wait_all_tasks_blocked()
        assert termios.tcgetattr(user)[OSPEED] == termios.B300
    for fd in (master, slave, user):
        os.close(fd)
