"""A hub's line on PTYs: as serial lines, and as terminals that show settings."""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.fakes import any_opener, attach
from tests.services import until
from tests.users import PATIENCE
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.stacked.hub import HubOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.handlers import stateless
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.devices.table import driver_of
from trio_chardev.errors import BackendDisconnectedError, BackendError, NotSupportedError
from trio_chardev.events import Event, LineSettings, ModemLines
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeFrontend, FakeLine, FakeOptions

OSPEED = 5  # its place in what tcgetattr gives
B300, B9600 = LineSettings(300), LineSettings(9600)
BREAK_SECONDS = 3.0


@attrs.define
class Pair:
    """A PTY whose slave stands for a serial line."""

    master: int
    slave: int

    @property
    def options(self) -> SerialOptions:
        return SerialOptions(path=os.ttyname(self.slave))


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [Pair(*os.openpty()) for _ in range(2)]
    for pair in made:
        tty.setraw(pair.slave)
    yield made
    for pair in made:
        os.close(pair.slave)
        os.close(pair.master)


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    with trio.fail_after(10):
        async with open_registry_with(any_opener, driver_of) as registry:
            yield registry


@pytest.mark.parametrize("options", [MuxOptions(chardev="a"), HubOptions(chardevs=("a", "b"))])
@pytest.mark.parametrize("has_one", [False, True])
async def test_what_a_member_lacks_is_set_on_its_next_backend(
    registry: Registry, options: MuxOptions | HubOptions, has_one: bool
) -> None:
    user, other = FakeDevice("user"), FakeDevice("other", has_line=has_one)
    for id, device in {"a": FakeDevice("plain"), "b": other, "user": user}.items():
        await registry.add(id, FakeOptions(device=device))
    await registry.add("both", options)
    registry.devices.add(BridgeOptions(chardev="both", peer="user"))
    user.say(B300)
    await wait_all_tasks_blocked()
    new = FakeDevice("new", has_line=True)
    await registry.change("a", FakeOptions(device=new))
    assert new.line_calls == [B300]


def speed_of(fd: int) -> int:
    return int(termios.tcgetattr(fd)[OSPEED])


def set_speed(fd: int, speed: int) -> None:
    modes = termios.tcgetattr(fd)
    modes[OSPEED - 1] = modes[OSPEED] = speed
    termios.tcsetattr(fd, termios.TCSANOW, modes)


class Terminal:
    """A PTY chardev that somebody has open."""

    def __init__(self, chardev: Chardev) -> None:
        assert chardev.backend.pty is not None
        self.fd = os.open(chardev.backend.pty, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.fd)

    @property
    def speed(self) -> int:
        return speed_of(self.fd)

    def close(self) -> None:
        os.close(self.fd)


async def add_terminal(registry: Registry, id: str) -> Terminal:
    await registry.add(id, PtyOptions())
    return Terminal(registry[id])


# ---------------------------------------------------------------- line settings


async def test_what_one_member_refuses_the_others_have_back(
    registry: Registry, pairs: list[Pair]
) -> None:
    await registry.add("a", pairs[0].options)
    await registry.add("b", FakeOptions(device=FakeDevice("b", has_line=True, line_fails=True)))
    await registry.add("h", HubOptions(chardevs=("a", "b")))
    frontend = registry["h"].attach()
    with pytest.raises(BackendError, match=r"^b does not take 300 8N1$"):
        await frontend.line.set(B300)
    assert speed_of(pairs[0].slave) == termios.B115200
    assert frontend.line.settings == LineSettings()


async def test_a_setting_that_is_cancelled_half_way_has_changed_none(
    registry: Registry, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(line: FakeLine, settings: LineSettings) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(FakeLine, "set", never)
    await registry.add("a", pairs[0].options)
    await registry.add("b", FakeOptions(device=FakeDevice("b", has_line=True)))
    await registry.add("h", HubOptions(chardevs=("a", "b")))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry["h"].attach().line.set, B300)
        await until(lambda: speed_of(pairs[0].slave) == termios.B300)
        nursery.cancel_scope.cancel()
    assert speed_of(pairs[0].slave) == termios.B115200


async def test_a_member_that_is_away_is_passed_over_unless_all_are(registry: Registry) -> None:
    for id in "ab":
        await registry.add(id, FakeOptions(device=FakeDevice(id, has_line=True)))
    await registry.add("h", HubOptions(chardevs=("a", "b")))
    frontend = registry["h"].attach()
    away = set()

    async def get_modem(line: FakeLine) -> ModemLines:
        await trio.lowlevel.checkpoint()
        if line.device.name in away:
            raise BackendDisconnectedError(f"{line.device.name} went away")
        return ModemLines.CTS

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeLine, "get_modem", get_modem)
        away.add("a")
        assert await frontend.line.get_modem() == ModemLines.CTS
        away.add("b")
        with pytest.raises(BackendDisconnectedError, match=r"^a went away$"):
            await frontend.line.get_modem()


async def test_the_line_is_that_of_the_first_member_that_has_one(
    registry: Registry, pairs: list[Pair]
) -> None:
    await registry.add("a", NullOptions())
    await registry.add("b", attrs.evolve(pairs[0].options, speed=9600))
    await registry.add("c", pairs[1].options)
    await registry.add("h", HubOptions(chardevs=("a", "b", "c")))
    frontend = registry["h"].attach()
    assert frontend.line.settings == B9600
    await frontend.line.set(B300)
    assert frontend.line.settings == B300
    assert [speed_of(pair.slave) for pair in pairs] == [termios.B300] * 2


@pytest.mark.parametrize("call", ["settings", "show", "look"])
async def test_it_has_none_if_no_member_has(registry: Registry, call: str) -> None:
    await registry.add("a", NullOptions())
    await registry.add("h", HubOptions(chardevs=("a",)))
    frontend = registry["h"].attach()
    calls: dict[str, Callable[[], object]] = {
        "settings": lambda: frontend.line.settings,
        "show": lambda: frontend.line.show(B300),
        "look": frontend.line.look,
    }
    with pytest.raises(NotSupportedError, match=r"^'null' has no line "):
        calls[call]()


async def test_missing_is_what_no_member_has(registry: Registry) -> None:
    await registry.add("a", NullOptions())
    await registry.add("h", HubOptions(chardevs=("a",)))
    await registry.add("m", MuxOptions(chardev="h"))
    frontend = registry["m"].attach(be_change=stateless)
    assert frontend.line.missing == {"settings", "modem", "break", "purge", "window"}
    await registry.change("a", FakeOptions(device=FakeDevice("a", has_line=True)))
    assert frontend.line.missing == set()


# ---------------------------------------------------------------- breaks and modem lines


async def test_a_break_is_sent_to_all_at_the_same_time(
    registry: Registry, autojump_clock: MockClock
) -> None:
    devices = [FakeDevice(id, has_line=True) for id in "ab"]
    for device in devices:
        await registry.add(device.name, FakeOptions(device=device))
    await registry.add("h", HubOptions(chardevs=("a", "b")))
    begun = trio.current_time()
    await registry["h"].attach().line.send_break(BREAK_SECONDS)
    assert trio.current_time() - begun == pytest.approx(BREAK_SECONDS)
    assert [device.line_calls for device in devices] == [[BREAK_SECONDS]] * 2


async def test_told_are_the_modem_lines_that_are_on_at_any_member(registry: Registry) -> None:
    a, b = FakeDevice("a"), FakeDevice("b")
    for device in (a, b):
        await registry.add(device.name, FakeOptions(device=device))
    await registry.add("h", HubOptions(chardevs=("a", "b")))
    user = FakeFrontend()
    attach(registry["h"], user)
    a.say(ModemLines.CTS)
    b.say(ModemLines.DSR)
    a.say(ModemLines(0))
    a.say(ModemLines.CAR)
    a.connect(False)  # what it drove is off
    b.say(ModemLines.CTS)
    assert user.events == [
        Event.OPENED,
        ModemLines.CTS,
        ModemLines.CTS | ModemLines.DSR,
        ModemLines.DSR,
        ModemLines.CAR | ModemLines.DSR,
        ModemLines.CTS,
    ]


# ---------------------------------------------------------------- who sees the settings


async def test_all_terminals_show_what_is_to_be_shown_also_those_who_come_later(
    registry: Registry,
) -> None:
    first = await add_terminal(registry, "a")
    await registry.add("b", NullOptions())
    await registry.add("h", HubOptions(chardevs=("a", "b")))
    frontend = registry["h"].attach()
    frontend.line.show(B300)
    assert first.speed == termios.B300
    await registry.change("b", PtyOptions())
    later = Terminal(registry["b"])
    assert later.speed == termios.B300
    first.close()
    later.close()


async def test_a_terminal_beside_a_line_shows_how_that_is_set(
    registry: Registry, pairs: list[Pair]
) -> None:
    await registry.add("line", pairs[0].options)
    terminal = await add_terminal(registry, "terminal")
    await registry.add("h", HubOptions(chardevs=("line", "terminal")))
    await registry["h"].attach().line.set(B9600)
    assert terminal.speed == speed_of(pairs[0].slave) == termios.B9600
    terminal.close()


@pytest.mark.parametrize("below", ["hub", "mux on hub"])
async def test_each_of_the_users_of_a_bridge_sets_the_line_and_all_see_it(
    registry: Registry, pairs: list[Pair], below: str
) -> None:
    """The board is on a hub or mux, too."""
    terminals = [await add_terminal(registry, id) for id in "ab"]
    await registry.add("users", HubOptions(chardevs=("a", "b")))
    await registry.add("line", pairs[0].options)
    await registry.add("board", HubOptions(chardevs=("line",)))
    if below == "mux on hub":
        await registry.add("mux", MuxOptions(chardev="board"))
    chardev = "board" if below == "hub" else "mux"
    registry.devices.add(BridgeOptions(chardev=chardev, peer="users"))
    for terminal, speed in zip(terminals, (termios.B9600, termios.B300), strict=True):
        set_speed(terminal.fd, speed)
        with trio.fail_after(PATIENCE):
            while [speed_of(pairs[0].slave), *(t.speed for t in terminals)] != [speed] * 3:  # noqa: ASYNC110
                await trio.sleep(0.001)
    for terminal in terminals:
        terminal.close()


async def test_a_bridge_learns_that_a_mux_below_it_has_a_terminal_now(
    registry: Registry, pairs: list[Pair]
) -> None:
    """A hub stays open, but says that its line may be another."""
    await registry.add("base", NullOptions())
    await registry.add("other", NullOptions())
    await registry.add("users", HubOptions(chardevs=("base", "other")))
    await registry.add("board", pairs[0].options)
    registry.devices.add(BridgeOptions(chardev="board", peer="users"))
    await wait_all_tasks_blocked()
    await registry.change("base", PtyOptions())
    terminal = Terminal(registry["base"])
    set_speed(terminal.fd, termios.B300)
    await until(lambda: speed_of(pairs[0].slave) == termios.B300)
    assert terminal.speed == termios.B300
    terminal.close()
