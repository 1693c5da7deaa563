"""hub: input of all members, output to all, what counts as sent, and changes above and below."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
import trio
import trio._core._run as trio_run
from trio.testing import wait_all_tasks_blocked

from tests.fakes import FakeLog, any_opener, attach, bytes_of, rows, type_in
from tests.steps import steps
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked.hub import BACKLOG, MAX_MEMBERS, PIECE, HubOptions, Slow
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChangeFailedError,
    ChangeRefusedError,
    ChardevBusyError,
    ChardevError,
    NotSupportedError,
    OptionsError,
)
from trio_chardev.events import Event, LineSettings, ModemLines
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import CancelAtStep, FakeBackend, FakeDevice, FakeFrontend, FakeOptions

BREAK, CLOSED, OPENED = Event.BREAK, Event.CLOSED, Event.OPENED
STUCK_AFTER = 0.01  # seconds

# A schedule is a seed: what pytest-trio does for hypothesis.
trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]


@pytest.fixture
def a() -> FakeDevice:
    """What is behind the member ``a``."""
    return FakeDevice("a", eager=True)


@pytest.fixture
def b() -> FakeDevice:
    """What is behind the member ``b``."""
    return FakeDevice("b", eager=True)


@pytest.fixture
async def registry(a: FakeDevice, b: FakeDevice) -> AsyncIterator[Registry]:
    """``a`` and ``b`` on their devices."""
    async with open_registry_with(any_opener) as registry:
        await registry.add("a", FakeOptions(device=a))
        await registry.add("b", FakeOptions(device=b))
        yield registry


async def add_hub(registry: Registry, slow: Slow = "wait") -> Chardev:
    """The hub ``h`` over both."""
    await registry.add("h", HubOptions(chardevs=("a", "b"), slow=slow))
    return registry["h"]


def sent(*devices: FakeDevice) -> list[bytes]:
    return [bytes(device.sent) for device in devices]


async def is_stuck(chardev: Chardev, data: bytes) -> bool:
    """Has its user sent nothing of *data* after a while?"""
    with trio.move_on_after(STUCK_AFTER) as scope:
        await chardev.frontends[0].send_some(data)
    return scope.cancelled_caught


async def test_who_waits_to_send_hears_of_a_member_whose_own_bytes_are_not_read(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    for device in (a, b):
        device.connect(False)
    calls: list[bool] = []
    frontend = (await add_hub(registry)).attach(on_open=lambda: calls.append(registry["h"].is_open))
    await type_in(a, bytes(300_000))
    a.connect()
    assert calls == [False]
    assert frontend.try_send(b"x") == 1
    assert sent(a, b) == [b"x", b""]


# ---------------------------------------------------------------- input


async def test_what_any_member_receives_is_input(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    user = FakeFrontend()
    attach(await add_hub(registry), user)
    for device, data in ((a, b"1"), (b, b"2"), (a, b"3\x01c")):
        await type_in(device, data)
    assert user.seen == [OPENED, b"1", b"2", b"3\x01c"]


async def test_a_user_that_does_not_read_stops_the_members_and_loses_nothing(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    """Then all goes on without a byte more, and the members take turns."""
    frontend = (await add_hub(registry)).attach()
    await type_in(a, b"a" * 300_000)
    await type_in(b, b"b" * 300_000)
    assert a.unread > 100_000
    assert b.unread > 100_000
    got = b""
    with trio.fail_after(5):
        while len(got) < 600_000:
            got += await frontend.receive_some()
    assert sorted(got) == sorted(a.fed + b.fed)
    assert b"b" in got[:300_000]


async def test_input_comes_before_the_closing_of_its_member(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    b.connect(False)
    user = FakeFrontend(appetite=0)
    frontend = attach(await add_hub(registry), user)
    await type_in(a, b"x" * 120_000)
    a.connect(False)
    assert user.seen == [OPENED]
    user.appetite = None
    frontend.accept_input()
    await wait_all_tasks_blocked()
    assert user.seen[-1] is CLOSED
    assert bytes_of(user) == a.fed


async def test_what_comes_while_it_has_no_user_is_kept_for_the_next(
    registry: Registry, a: FakeDevice
) -> None:
    hub = await add_hub(registry)
    await type_in(a, b"early")
    assert await hub.attach().receive_some() == b"early"


# ---------------------------------------------------------------- events


async def test_the_first_that_opens_and_the_last_that_closes_are_told(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    for device in (a, b):
        device.connect(False)
    hub, user = await add_hub(registry), FakeFrontend()
    attach(hub, user)
    assert (hub.is_open, user.events) == (False, [])
    steps = [(a, True, [OPENED]), (b, True, []), (a, False, []), (a, True, []), (b, False, [])]
    for device, is_there, events in [*steps, (a, False, [CLOSED])]:
        user.events.clear()
        device.connect(is_there)
        await wait_all_tasks_blocked()
        assert user.events == events
    assert not hub.is_open


async def test_a_break_at_a_member_is_told_and_one_by_command(
    registry: Registry, a: FakeDevice
) -> None:
    """QEMU from 10.0 on calls a null pointer for a hub's."""
    user = FakeFrontend()
    attach(await add_hub(registry), user)
    a.say(BREAK)
    registry.send_break("b")
    registry.send_break("h")
    await wait_all_tasks_blocked()
    assert user.events == [OPENED, BREAK, BREAK, BREAK]


# ---------------------------------------------------------------- output


async def test_output_goes_to_all(registry: Registry, a: FakeDevice, b: FakeDevice) -> None:
    frontend = (await add_hub(registry)).attach()
    data = bytes(range(256)) * 300
    await frontend.send_all(data)
    assert a.sent == b.sent == data


@pytest.mark.parametrize("slow", ["wait", "drop"])
async def test_a_member_that_is_not_open_is_passed_over_until_it_opens(
    registry: Registry, a: FakeDevice, b: FakeDevice, slow: Slow
) -> None:
    frontend = (await add_hub(registry, slow)).attach()
    b.connect(False)
    await frontend.send_all(b"one ")
    b.connect()
    await frontend.send_all(b"two")
    assert sent(a, b) == [b"one two", b"two"]
    assert [info.lost for info in registry.query()] == [0, 0, 0]


async def test_without_an_open_member_nobody_is_there(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    frontend = (await add_hub(registry)).attach()
    for device in (a, b):
        device.connect(False)
    with pytest.raises(BackendDisconnectedError, match=r"^no member of hub 'h' is open$"):
        await frontend.send_all(b"x")


async def test_the_slowest_sets_the_pace(registry: Registry, a: FakeDevice, b: FakeDevice) -> None:
    """It is one piece behind at most, gets that by itself, and nobody gets a byte twice."""
    hub = await add_hub(registry)
    frontend = hub.attach()
    b.room = 2
    assert frontend.try_send(b"hello") == 5
    assert sent(a, b) == [b"hello", b"he"]
    assert frontend.try_send(b"again") == 0
    assert await is_stuck(hub, b"again")
    b.make_room(2)
    assert await is_stuck(hub, b"again")
    assert sent(a, b) == [b"hello", b"hell"]
    b.make_room(100)
    await wait_all_tasks_blocked()
    assert b.sent == b"hello"
    await frontend.send_all(b"!")
    assert a.sent == b.sent == b"hello!"


async def test_a_piece_is_no_larger_than_what_a_member_may_be_behind(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    frontend = (await add_hub(registry)).attach()
    b.room = 0
    assert frontend.try_send(b"x" * 100_000) == PIECE == len(a.sent)


async def test_where_no_member_takes_anything_nothing_is_sent_and_the_first_that_can_begins(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    hub = await add_hub(registry)
    frontend = hub.attach()
    a.room = b.room = 0
    assert await is_stuck(hub, b"never")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(frontend.send_all, b"data")
            await wait_all_tasks_blocked()
            b.make_room(3)
            await wait_all_tasks_blocked()
            assert sent(a, b) == [b"", b"dat"]
            a.make_room(10)
            b.make_room(10)
    await wait_all_tasks_blocked()
    assert a.sent == b.sent == b"data"


async def test_a_writer_that_waits_goes_on_when_a_member_opens(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    hub = await add_hub(registry)
    a.room = 0
    b.connect(False)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.attach().send_all, b"data")
            await wait_all_tasks_blocked()
            b.connect()
    assert b.sent == b"data"


async def test_a_member_whose_peer_has_left_keeps_nobody_waiting(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    """What it was owed is lost, as in a kernel's buffer; the next peer does not get it."""
    frontend = (await add_hub(registry)).attach()
    b.room = 1
    await frontend.send_all(b"old")
    b.connect(False)
    await frontend.send_all(b"!")
    b.connect()
    b.make_room(100)
    await frontend.send_all(b"new")
    await wait_all_tasks_blocked()
    assert sent(a, b) == [b"old!new", b"onew"]
    assert registry["b"].info.lost == 2


@pytest.mark.parametrize("room", [1, 3, 5000])
async def test_each_member_gets_everything_once_however_little_it_takes(
    registry: Registry, a: FakeDevice, b: FakeDevice, room: int
) -> None:
    frontend = (await add_hub(registry)).attach()
    a.room = b.room = 0
    data = b"".join(b"%d," % i for i in range(room * 60))
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(frontend.send_all, data)
            while len(a.sent) < len(data) or len(b.sent) < len(data):
                a.make_room(room)
                await wait_all_tasks_blocked()
                b.make_room(2 * room)
                await wait_all_tasks_blocked()
    assert a.sent == b.sent == data


# ---------------------------------------------------------------- slow=drop


async def test_with_drop_a_slow_member_is_owed_so_much_and_then_loses_whole_pieces(
    registry: Registry, a: FakeDevice, b: FakeDevice, caplog: pytest.LogCaptureFixture
) -> None:
    frontend = (await add_hub(registry, "drop")).attach()
    b.room = 0
    pieces = [b"%04d" % i * 1000 for i in range(20)]
    for piece in pieces:
        await frontend.send_all(piece)
    assert a.sent == b"".join(pieces)
    kept = BACKLOG // 4000
    assert registry["b"].info.lost == (20 - kept) * 4000
    assert caplog.messages == ["chardev 'b' loses output: it is too slow"]
    b.make_room(1 << 20)
    await wait_all_tasks_blocked()
    await frontend.send_all(b"on time")
    assert b.sent == b"".join(pieces[:kept]) + b"on time"
    assert caplog.messages[1:] == [f"chardev 'b' has lost {(20 - kept) * 4000} bytes"]
    assert {info.label: info.lost for info in registry.query()} == {"a": 0, "b": 16_000, "h": 0}


async def test_with_drop_the_fastest_sets_the_pace(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    hub = await add_hub(registry, "drop")
    frontend = hub.attach()
    a.room, b.room = 4, 0
    assert frontend.try_send(b"0123456789") == 4
    assert await is_stuck(hub, b"456789")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(frontend.send_all, b"456789")
            await wait_all_tasks_blocked()
            a.make_room(100)
    assert sent(a, b) == [b"0123456789", b""]
    b.make_room(100)
    await wait_all_tasks_blocked()
    assert b.sent == a.sent


async def test_what_is_lost_makes_the_row_of_a_list_new(registry: Registry, b: FakeDevice) -> None:
    frontend = (await add_hub(registry, "drop")).attach()
    b.room = 0
    await frontend.send_all(b"x" * BACKLOG)
    registry["b"].row = b"written before"
    await frontend.send_all(b"y")
    assert registry["b"].row is None


# ---------------------------------------------------------------- a member that fails


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of devices whose sends fail."""
    names: set[str] = set()
    send_nowait = FakeBackend.send_nowait

    def fail(self: FakeBackend, data: memoryview) -> int:
        if self.device.name in names:
            raise BackendError("No space left on device")
        return send_nowait(self, data)

    monkeypatch.setattr(FakeBackend, "send_nowait", fail)
    return names


async def test_an_error_of_one_member_does_not_keep_the_data_from_the_others(
    registry: Registry,
    a: FakeDevice,
    b: FakeDevice,
    broken: set[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    frontend = (await add_hub(registry)).attach()
    broken.add("a")
    for _ in range(3):
        await frontend.send_all(b"lost")
    broken.clear()
    await frontend.send_all(b"good")
    assert sent(a, b) == [b"good", b"lost" * 3 + b"good"]
    assert registry["a"].info.lost == 12
    assert caplog.messages == [
        "chardev 'a' loses output: No space left on device",
        "chardev 'a' has lost 12 bytes",
    ]


async def test_when_all_fail_the_writer_is_told(registry: Registry, broken: set[str]) -> None:
    frontend = (await add_hub(registry)).attach()
    broken |= {"a", "b"}
    with pytest.raises(BackendError, match=r"^No space left on device$"):
        await frontend.send_all(b"x")
    assert registry["a"].info.lost == 0


async def test_one_that_fails_does_not_make_a_loop_of_waiting_for_another(
    registry: Registry, a: FakeDevice, b: FakeDevice, broken: set[str]
) -> None:
    hub = await add_hub(registry)
    frontend = hub.attach()
    broken.add("a")
    b.room = 0
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(frontend.send_all, b"data")
            await wait_all_tasks_blocked()  # does not come back from a loop
            b.make_room(100)
    assert b.sent == b"data"


async def test_a_member_that_dies_is_passed_over(
    registry: Registry, b: FakeDevice, caplog: pytest.LogCaptureFixture
) -> None:
    await registry.change("a", FakeOptions(device=FakeDevice("mortal", dies_after=3)))
    user = FakeFrontend()
    frontend = attach(await add_hub(registry), user)
    await wait_all_tasks_blocked()
    assert "the backend is gone" in caplog.text
    await frontend.send_all(b"x")
    assert b.sent == b"x"
    assert user.events == [OPENED]


# ---------------------------------------------------------------- opening, and who is busy


@pytest.mark.parametrize(
    ("chardevs", "text"),
    [
        ((), "hub: 'chardevs' list is not defined"),
        (("a", "nosuch"), "hub: chardev can't be found by id 'nosuch'"),
        (("h",), "hub: chardev can't be found by id 'h'"),
        (("a", "busy"), "Device 'busy' is in use"),
        (("a", "a"), "Device 'a' is in use"),
    ],
)
async def test_members_must_be_there_and_free(
    registry: Registry, chardevs: tuple[str, ...], text: str
) -> None:
    await registry.add("busy", NullOptions())
    registry["busy"].attach()
    with pytest.raises(ChardevError, match=f"^Failed to add chardev 'h': {re.escape(text)}$"):
        await registry.add("h", HubOptions(chardevs=chardevs))
    registry["a"].attach()  # it was given back


async def test_it_has_32_members_and_no_more(registry: Registry) -> None:
    ids = tuple(f"m{i}" for i in range(MAX_MEMBERS + 1))
    for id in ids:
        await registry.add(id, RingbufOptions(size=16))
    text = r": hub: too many uses of chardevs 'h' \(maximum is 32\)$"
    with pytest.raises(OptionsError, match=text):
        await registry.add("h", HubOptions(chardevs=ids))
    await registry.add("h", HubOptions(chardevs=ids[:-1]))
    await registry["h"].attach().send_all(b"to all")
    for id in ids[:-1]:
        ring = registry[id].backend
        assert isinstance(ring, RingbufBackend)
        assert ring.read(100) == b"to all"


async def test_it_has_one_user_and_keeps_its_members_busy(registry: Registry) -> None:
    hub = await add_hub(registry)
    unused = {"a": ("fake:a", False), "b": ("fake:b", False), "h": ("hub", False)}
    assert rows(registry) == unused
    frontend = hub.attach()
    assert rows(registry) == {id: (name, True) for id, (name, _) in unused.items()}
    with pytest.raises(ChardevBusyError, match=r"^Device 'h' is in use$"):
        hub.attach()
    with pytest.raises(ChardevBusyError, match=r"^Device 'a' is in use$"):
        registry["a"].attach()
    for id in ("a", "h"):
        with pytest.raises(ChardevBusyError, match=rf"^Chardev '{id}' is busy$"):
            await registry.remove(id)
    await frontend.aclose()
    assert rows(registry) == unused
    await registry.remove("h")
    await registry.remove("a")
    await registry.remove("b")


# ---------------------------------------------------------------- hubs, muxes and hubs


async def test_a_hub_may_be_one_user_of_a_mux(registry: Registry, a: FakeDevice) -> None:
    """QEMU refuses. Its input is what is typed while it has the focus."""
    await registry.add("m", MuxOptions(chardev="a"))
    other, user = FakeFrontend(), FakeFrontend()
    attach(registry["m"], other)
    await registry.add("h", HubOptions(chardevs=("m", "b")))
    frontend = attach(registry["h"], user)
    await type_in(a, b"1\x01c2")
    await type_in(a, b"\x01c3")
    assert (bytes_of(user), bytes_of(other)) == (b"13", b"2")
    await frontend.send_all(b"out")
    assert a.sent == b"out"


async def test_a_hub_may_stand_on_a_hub(registry: Registry, a: FakeDevice, b: FakeDevice) -> None:
    await registry.add("lower", HubOptions(chardevs=("a",)))
    await registry.add("h", HubOptions(chardevs=("lower", "b")))
    user = FakeFrontend()
    frontend = attach(registry["h"], user)
    await frontend.send_all(b"out")
    await type_in(a, b"in")
    assert a.sent == b.sent == b"out"
    assert bytes_of(user) == b"in"


async def test_a_mux_on_a_hub_gives_several_users_several_terminals(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    await add_hub(registry)
    await registry.add("m", MuxOptions(chardev="h"))
    users = [FakeFrontend(), FakeFrontend()]
    frontends = [attach(registry["m"], user) for user in users]
    await type_in(a, b"1\x01c")
    await type_in(b, b"2")
    assert [bytes_of(user) for user in users] == [b"2", b"1"]
    for frontend in frontends:
        await frontend.send_all(b"out")
    assert a.sent == b.sent == b"outout"


async def test_it_cannot_stand_on_what_stands_on_it(registry: Registry) -> None:
    await add_hub(registry)
    await registry.add("top", MuxOptions(chardev="h"))
    with pytest.raises(ChardevError, match=r"Chardev 'top' stands on 'b' itself$"):
        await registry.change("b", HubOptions(chardevs=("top",)))
    with pytest.raises(ChardevError, match=r"hub: chardev can't be found by id 'h'$"):
        await registry.change("h", HubOptions(chardevs=("a", "h")))
    assert rows(registry)["h"][0] == "hub"


# ---------------------------------------------------------------- the lines


async def test_line_calls_go_to_all_members_that_have_a_line(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    lines = [FakeDevice("x", has_line=True), FakeDevice("y", has_line=True)]
    await registry.change("a", FakeOptions(device=lines[0]))
    await registry.add("c", FakeOptions(device=lines[1]))
    await registry.add("h", HubOptions(chardevs=("a", "b", "c")))
    frontend = registry["h"].attach()
    settings = LineSettings(speed=300)
    await frontend.line.set(settings)
    await frontend.line.set_modem(ModemLines.DTR)
    await frontend.line.send_break(0)
    for device in lines:
        assert device.line_calls == [settings, ModemLines.DTR, 0]
    assert await frontend.line.get_modem() == ModemLines.CTS | ModemLines.DSR


async def test_line_calls_are_refused_if_no_member_has_a_line(registry: Registry) -> None:
    frontend = (await add_hub(registry)).attach()
    with pytest.raises(NotSupportedError, match=r"^'fake:a' has no line settings$"):
        await frontend.line.set(LineSettings())


async def test_a_line_that_fails_is_an_error(registry: Registry) -> None:
    device = FakeDevice("x", has_line=True, line_fails=True)
    await registry.change("a", FakeOptions(device=device))
    frontend = (await add_hub(registry)).attach()
    with pytest.raises(BackendError, match=r"^x does not take "):
        await frontend.line.set(LineSettings())


# ---------------------------------------------------------------- a member is changed


async def test_the_user_is_set_up_for_a_members_new_line(registry: Registry, a: FakeDevice) -> None:
    user = FakeFrontend()
    frontend = attach(await add_hub(registry), user)
    new = FakeDevice("new", eager=True, has_line=True)
    await registry.change("a", FakeOptions(device=new))
    assert user.bound == "fake:new"
    await frontend.send_all(b"out")
    await type_in(new, b"in")
    assert new.sent == b"out"
    assert bytes_of(user) == b"in"
    assert user.events == [OPENED]
    assert not a.is_held_open


async def test_a_user_that_refuses_a_members_new_line_undoes_the_change(
    registry: Registry,
) -> None:
    new = FakeDevice("new", has_line=True)
    user = FakeFrontend(refuses=new)
    attach(await add_hub(registry), user)
    with pytest.raises(
        ChangeFailedError,
        match=r"^Chardev 'a' change failed: the frontend does not want this backend$",
    ):
        await registry.change("a", FakeOptions(device=new))
    assert rows(registry)["a"] == ("fake:a", True)
    assert not new.is_held_open


async def test_a_member_without_a_line_is_changed_without_asking(registry: Registry) -> None:
    """Its user has set up the hub, which stays, and may insist on a line."""
    user = FakeFrontend(refuses=FakeDevice("new"))
    attach(await add_hub(registry), user)
    await registry.change("a", FakeOptions(device=FakeDevice("new")))
    assert rows(registry)["a"] == ("fake:new", True)


async def test_that_nobody_is_at_a_members_new_backend_is_told_if_it_was_the_last(
    registry: Registry, b: FakeDevice
) -> None:
    user = FakeFrontend()
    attach(await add_hub(registry), user)
    new = FakeDevice("new", connected=False)
    await registry.change("a", FakeOptions(device=new))
    assert user.events == [OPENED]
    b.connect(False)
    new.connect()
    assert user.events == [OPENED, CLOSED, OPENED]


async def test_what_a_member_is_owed_goes_to_its_new_backend(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    frontend = (await add_hub(registry)).attach()
    b.room = 2
    await frontend.send_all(b"hello")
    new = FakeDevice("new", eager=True)
    await registry.change("b", FakeOptions(device=new))
    await wait_all_tasks_blocked()
    assert sent(a, b, new) == [b"hello", b"he", b"llo"]


@pytest.mark.parametrize("slow", ["wait", "drop"])
@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_or_repeated_when_members_are_changed_under_load(
    registry: Registry, a: FakeDevice, b: FakeDevice, seed: int, slow: Slow
) -> None:
    trio_run._r.seed(seed)
    of_a = [a, *(FakeDevice(f"a{i}", eager=i % 2 == 0) for i in range(4))]
    of_b = [b, *(FakeDevice(f"b{i}", eager=i % 2 == 1) for i in range(4))]
    frontend = (await add_hub(registry, slow)).attach()
    out = b"".join(b"<%04d>" % i for i in range(300))
    got = bytearray()

    async def read() -> None:
        while True:
            got.extend(await frontend.receive_some(7))

    async def feed(device: FakeDevice) -> None:
        for i in range(10):
            device.feed(b"(%s %d)" % (device.name.encode(), i))
            await trio.lowlevel.checkpoint()

    async def change(id: str, devices: list[FakeDevice]) -> None:
        for old, new in pairwise(devices):
            await feed(old)
            await registry.change(id, FakeOptions(device=new))
        await feed(devices[-1])

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with trio.open_nursery() as load:
                load.start_soon(frontend.send_all, out)
                load.start_soon(change, "a", of_a)
                load.start_soon(change, "b", of_b)
            while sum(len(device.sent) for device in of_a + of_b) < 2 * len(out):
                await wait_all_tasks_blocked()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    for devices in (of_a, of_b):
        assert b"".join(bytes(device.sent) for device in devices) == out
        fed = b"".join(bytes(device.fed) for device in devices)
        came = re.findall(rb"\(.*?\)", got)
        assert b"".join(item for item in came if item[1:2] == fed[1:2]) == fed


# ---------------------------------------------------------------- the hub is changed


@pytest.fixture
async def third(registry: Registry) -> FakeDevice:
    """What is behind another chardev, ``c``."""
    device = FakeDevice("c", eager=True)
    await registry.add("c", FakeOptions(device=device))
    return device


async def test_to_other_members_who_begin_where_those_before_ended(
    registry: Registry, a: FakeDevice, b: FakeDevice, third: FakeDevice
) -> None:
    user = FakeFrontend()
    frontend = attach(await add_hub(registry), user)
    await frontend.send_all(b"one ")
    await registry.change("h", HubOptions(chardevs=("c", "b")))
    await frontend.send_all(b"two")
    assert sent(a, b, third) == [b"one ", b"one two", b"two"]
    await type_in(third, b"in")
    await type_in(a, b"for its next user")
    assert bytes_of(user) == b"in"
    assert await registry["a"].attach().receive_some() == b"for its next user"
    assert user.bound == "hub"


async def test_what_a_member_is_owed_is_handed_over(
    registry: Registry, a: FakeDevice, b: FakeDevice, third: FakeDevice
) -> None:
    """And a write that was under way goes on for all: nobody gets a byte twice."""
    frontend = attach(await add_hub(registry), FakeFrontend())
    b.room = 2
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(frontend.send_all, b"hello")
            await wait_all_tasks_blocked()
            nursery.start_soon(frontend.send_all, b" world")
            await wait_all_tasks_blocked()
            assert sent(a, b) == [b"hello", b"he"]
            await registry.change("h", HubOptions(chardevs=("a", "b", "c"), slow="wait"))
            await wait_all_tasks_blocked()
            assert third.sent == b""
            b.make_room(100)
    assert sent(a, b, third) == [b"hello world", b"hello world", b" world"]


async def test_one_that_is_left_behind_gets_what_it_is_owed_or_it_is_told(
    registry: Registry, a: FakeDevice, b: FakeDevice, caplog: pytest.LogCaptureFixture
) -> None:
    plain = FakeDevice("plain", eager=True)
    frontend = attach(await add_hub(registry), FakeFrontend())
    a.room = 0
    await frontend.send_all(b"hello")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.change, "h", FakeOptions(device=plain))
            await wait_all_tasks_blocked()
            assert registry["h"].backend.filename == "fake:plain"
            a.make_room(3)
            await wait_all_tasks_blocked()
            await frontend.send_all(b"!")
    assert sent(a, b, plain) == [b"hel", b"hello", b"!"]
    assert caplog.messages == [
        "chardev 'a' loses output: its user was closed",
        "chardev 'a' has lost 2 bytes",
    ]


async def test_unread_input_of_its_members_comes_first(registry: Registry, a: FakeDevice) -> None:
    frontend = (await add_hub(registry)).attach(be_change=FakeFrontend().be_change)
    plain = FakeDevice("plain")
    await type_in(a, b"x" * 100_000)
    assert a.unread == 0
    await registry.change("h", FakeOptions(device=plain))
    await type_in(plain, b"new")
    got = b""
    while len(got) < 100_003:
        got += await frontend.receive_some()
    assert got == b"x" * 100_000 + b"new"


async def test_to_a_plain_backend_to_a_mux_and_back(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    user, plain = FakeFrontend(), FakeDevice("plain", eager=True)
    frontend = attach(await add_hub(registry), user)
    await frontend.send_all(b"1")
    await registry.change("h", FakeOptions(device=plain))
    assert rows(registry)["a"] == ("fake:a", False)
    await frontend.send_all(b"2")
    await registry.change("h", MuxOptions(chardev="a"))
    await frontend.send_all(b"3")
    await type_in(a, b"x\x01cy")
    await registry.change("h", HubOptions(chardevs=("a", "b")))
    await frontend.send_all(b"4")
    await type_in(a, b"\x01c")
    assert sent(a, b, plain) == [b"134", b"14", b"2"]
    assert bytes_of(user) == b"xy\x01c"
    attached = [id for id, (_, is_used) in rows(registry).items() if is_used]
    assert attached == ["a", "b", "h"]


async def test_of_two_users_of_a_mux_a_hub_would_leave_one_out(registry: Registry) -> None:
    await registry.add("m", MuxOptions(chardev="a"))
    for _ in range(2):
        attach(registry["m"], FakeFrontend())
    text = r"^Chardev 'm' has 2 users, but 'hub' can have only 1$"
    with pytest.raises(ChangeRefusedError, match=text):
        await registry.change("m", HubOptions(chardevs=("a", "b")))
    assert rows(registry)["m"] == ("mux", True)
    registry["b"].attach()


@pytest.mark.parametrize("chardevs", [("c", "nosuch"), ("a", "busy"), ("c", "a", "top"), ()])
async def test_a_change_that_fails_leaves_all_as_it_was(
    registry: Registry,
    a: FakeDevice,
    b: FakeDevice,
    third: FakeDevice,
    chardevs: tuple[str, ...],
) -> None:
    await registry.add("busy", NullOptions())
    registry["busy"].attach()
    user = FakeFrontend()
    frontend = attach(await add_hub(registry), user)
    await registry.add("d", FakeOptions(device=FakeDevice("d")))
    await registry.add("top", HubOptions(chardevs=("d",)))
    await registry.change("b", FakeOptions(device=FakeDevice("new", room=2, eager=True)))
    await registry.change("d", NullOptions())
    await frontend.send_all(b"owed")
    before = rows(registry)
    if "top" in chardevs:
        registry["top"].attach()
    with pytest.raises(ChardevError):
        await registry.change("h", HubOptions(chardevs=chardevs))
    if "top" not in chardevs:
        assert rows(registry) == before
    assert not registry["c"].frontends
    await type_in(a, b"in")
    assert bytes_of(user) == b"in"
    new = registry["b"].backend
    assert isinstance(new, FakeBackend)
    new.device.make_room(100)
    await frontend.send_all(b"out")
    await wait_all_tasks_blocked()
    assert a.sent == new.device.sent == b"owedout"


async def test_a_user_that_refuses_handed_over_members_has_the_old_hub_back(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    class Choosy(FakeFrontend):
        async def be_change(self, backend: Controls) -> None:
            if not backend.is_original:
                raise ValueError("no")

    user = Choosy()
    frontend = attach(await add_hub(registry), user)
    original = registry["h"].backend
    with pytest.raises(ChangeFailedError):
        await registry.change("h", HubOptions(chardevs=("b", "a")))
    assert registry["h"].backend is original
    await frontend.send_all(b"out")
    await type_in(b, b"in")
    assert a.sent == b.sent == b"out"
    assert bytes_of(user) == b"in"


# ---------------------------------------------------------------- cancelled at every step


@attrs.frozen
class Case:
    """A change of *target*; on each lane the devices get the whole message, one after another."""

    target: str
    options: Callable[[FakeDevice], BackendOptions]
    lanes: tuple[tuple[str, ...], ...]
    keeps_input: bool = False
    """Whatever becomes of the change, what has come is for the hub's user."""


CASES = {
    "member": Case("a", lambda new: FakeOptions(device=new), (("a", "new"), ("b",)), True),
    "to-plain": Case("h", lambda new: FakeOptions(device=new), (("a", "new"), ("b", "new"))),
    "handed-over": Case("h", lambda _: HubOptions(chardevs=("b", "a")), (("a",), ("b",)), True),
    "to-other": Case("h", lambda _: HubOptions(chardevs=("c", "b")), (("a", "c"), ("b",))),
    "to-mux": Case("h", lambda _: MuxOptions(chardev="a"), (("a",),), True),
}


async def change_cancelled(case: Case, injector: CancelAtStep) -> bool:
    """Change it under load, cancelled at a step; was that reached?"""
    devices = {name: FakeDevice(name) for name in ("a", "b", "c", "new")}
    message = b"<one><two><three>"
    user = FakeFrontend()
    got = bytearray()
    async with open_registry_with(any_opener) as registry:
        for id in ("a", "b", "c"):
            await registry.add(id, FakeOptions(device=devices[id]))
        hub = await add_hub(registry)
        frontend = hub.attach(be_change=user.be_change, on_event=user.on_event)

        async def read() -> None:
            while data := await frontend.receive_some(3):
                got.extend(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with trio.open_nursery() as writers:
                writers.start_soon(frontend.send_all, message)
                devices["a"].feed(b"before")
                injector.armed = True
                with injector.scope:
                    await registry.change(case.target, case.options(devices["new"]))
                injector.armed = False
            device = in_place(registry, *devices.values())
            device.feed(b"after")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        for lane in case.lanes:
            assert b"".join(bytes(devices[name].sent) for name in lane) == message
        assert all(message.startswith(device.sent) for device in (devices["a"], devices["b"]))
        assert bytes(got).endswith(b"after")
        assert b"before".startswith(bytes(got).removesuffix(b"after"))
        assert got == b"beforeafter" or not (case.keeps_input or injector.scope.cancelled_caught)
        await frontend.aclose()
        for id in ("h", "a", "b", "c"):
            await registry.remove(id)
    assert not any(device.is_held_open for device in devices.values())
    return injector.fired


def in_place(registry: Registry, *devices: FakeDevice) -> FakeDevice:
    """The device behind ``h``, or behind what that stands on first."""
    backend = registry["h"].backend
    while backend.stacking.bases:
        backend = registry[backend.stacking.bases[0]].backend
    return next(device for device in devices if device.backend is backend)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_cancelled_at_every_step_a_change_happens_whole_or_not_at_all(
    case: Case, when: str
) -> None:
    is_undone = is_done = False
    for k in steps(1000):
        trio_run._r.seed(0)
        injector = CancelAtStep(k, when, trio.CancelScope())
        try:
            fired = trio.run(change_cancelled, case, injector, instruments=[injector])
        except BaseException as exc:
            exc.add_note(f"{when} {k=}")
            raise
        is_undone |= injector.scope.cancelled_caught
        is_done |= fired and not injector.scope.cancelled_caught
        if not fired:
            break
    assert is_undone
    assert is_done


# ---------------------------------------------------------------- on real descriptors


async def test_a_console_at_a_pty_in_a_ring_and_in_a_file_at_a_time(tmp_path: Path) -> None:
    async with open_registry_with(any_opener) as registry:
        await registry.add("pty", PtyOptions(path=str(tmp_path / "pty")))
        await registry.add("ring", RingbufOptions(size=4096))
        await registry.add("log", FileOptions(out=str(tmp_path / "log")))
        await registry.add("h", HubOptions(chardevs=("pty", "ring", "log"), slow="drop"))
        frontend = registry["h"].attach(be_change=FakeFrontend().be_change)
        await frontend.send_all(b"nobody at the pty\n")
        address = UnixAddress(str(tmp_path / "s"))
        await registry.change("pty", SocketOptions(addr=address))
        with trio.fail_after(5):
            async with await trio.open_unix_socket(address.path) as peer:
                await peer.send_all(b"hello")
                assert await frontend.receive_some() == b"hello"
                await frontend.send_all(b"welcome\n")
                assert await peer.receive_some() == b"welcome\n"
        ring = registry["ring"].backend
        assert isinstance(ring, RingbufBackend)
        expected = b"nobody at the pty\nwelcome\n"
        assert ring.read(100) == expected
    assert (tmp_path / "log").read_bytes() == expected


# ---------------------------------------------------------------- the logs of members and hub


async def test_the_logs_have_once_what_a_user_offers_again_until_a_member_is_open(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    hub = await add_hub(registry)
    logs = FakeLog(a), FakeLog(b), FakeLog.of(hub.backend)
    user = hub.attach()
    user.relay.keeps_refused = True
    a.connect(False)
    b.connect(False)
    for _ in range(3):
        with pytest.raises(BackendDisconnectedError):
            user.try_send(b"held")
        with pytest.raises(BackendDisconnectedError):
            await user.send_some(b"held")
    assert [log.data for log in logs] == [b"", b"", b""]
    a.connect()
    assert user.try_send(b"held") == 4
    assert [log.data for log in logs] == [b"held", b"held", b"held"]  # b, too, will not get it


async def test_the_logs_have_once_what_nobody_was_there_for(
    registry: Registry, a: FakeDevice, b: FakeDevice
) -> None:
    """A member that is not open has it in its log, as it would have without the hub."""
    hub = await add_hub(registry)
    logs = FakeLog(a), FakeLog(b), FakeLog.of(hub.backend)
    user = hub.attach()
    a.connect(False)
    await user.send_all(b"1")
    b.connect(False)
    with pytest.raises(BackendDisconnectedError):
        await user.send_all(b"2")
    with pytest.raises(BackendDisconnectedError):
        user.try_send(b"3")
    assert [log.data for log in logs] == [b"123", b"123", b"123"]


@pytest.mark.parametrize("slow", ["wait", "drop"])
async def test_the_log_has_once_what_a_member_is_owed_and_loses(
    registry: Registry, a: FakeDevice, b: FakeDevice, slow: Slow
) -> None:
    user = (await add_hub(registry, slow)).attach()
    log = FakeLog(b)
    b.room = 2
    await user.send_all(b"owed")
    await wait_all_tasks_blocked()
    assert log.data == b"ow"
    b.connect(False)
    await user.send_all(b" or not")
    assert log.data == b"owed or not"
    b.connect()
    b.make_room(100)
    await user.send_all(b"!")
    await wait_all_tasks_blocked()
    assert log.data == b"owed or not!"
    assert b.sent == b"ow!"


async def test_the_log_has_once_what_an_error_keeps_from_a_member(
    registry: Registry, a: FakeDevice, b: FakeDevice, broken: set[str]
) -> None:
    user = (await add_hub(registry)).attach()
    log = FakeLog(b)
    broken.add("b")
    await user.send_all(b"lost")
    broken.clear()
    await user.send_all(b"good")
    assert log.data == b"lostgood"
