"""mux: which user gets the input, what keys do, where output goes, and changes above and below."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import trio
import trio._core._run as trio_run
import trio.testing
from trio.testing import wait_all_tasks_blocked

from tests.fakes import FakeLog, any_opener, attach, bytes_of, rows, type_in
from tests.links import until
from tests.places import connect_to
from tests.steps import steps
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked import mux as module
from trio_chardev.backends.stacked.mux import LOOK_AHEAD, PIECES_AT_ONCE, MuxBackend, MuxOptions
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.inbox import INBOX_CAPACITY
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
from trio_chardev.events import BackendEvent, Event, LineSettings, ModemLines
from trio_chardev.protocols.escape import EscapeParser
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import CancelAtStep, FakeDevice, FakeFrontend, FakeOptions

BREAK, CLOSED, OPENED = Event.BREAK, Event.CLOSED, Event.OPENED
MUX_IN, MUX_OUT = Event.MUX_IN, Event.MUX_OUT
FULL = INBOX_CAPACITY + LOOK_AHEAD  # bytes that a user who does not read is given
STAMP = rb"\[\d\d:\d\d:\d\d\.\d{3}\] "

# A schedule is a seed: what pytest-trio does for hypothesis.
trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]


@pytest.fixture
def device() -> FakeDevice:
    """What is behind the base."""
    return FakeDevice("base", eager=True, has_line=True)


@pytest.fixture
async def registry(device: FakeDevice) -> AsyncIterator[Registry]:
    """``b`` on the device, and the mux ``m`` on that."""
    async with open_registry_with(any_opener) as registry:
        await registry.add("b", FakeOptions(device=device))
        await registry.add("m", MuxOptions(chardev="b"))
        yield registry


def attach_reader(registry: Registry) -> Frontend:
    """A user that gets its bytes by receive_some."""
    return registry["m"].attach(be_change=FakeFrontend().be_change)


async def read_all(frontend: Frontend, size: int) -> bytes:
    data = b""
    with trio.fail_after(5):
        while len(data) < size:
            data += await frontend.receive_some()
    return data


# ---------------------------------------------------------------- who has the focus


async def test_the_last_to_come_has_the_focus_and_gets_all_that_is_typed(
    registry: Registry, device: FakeDevice
) -> None:
    first, last = FakeFrontend(), FakeFrontend()
    attach(registry["m"], first)
    await type_in(device, b"1")
    attach(registry["m"], last)
    await type_in(device, b"2")
    assert first.seen == [OPENED, MUX_IN, b"1", MUX_OUT]
    assert last.seen == [OPENED, MUX_IN, b"2"]


async def test_a_key_passes_the_focus_round(registry: Registry, device: FakeDevice) -> None:
    users = [FakeFrontend() for _ in range(3)]
    for user in users:
        attach(registry["m"], user)
    for user in users:
        user.seen.clear()
    await type_in(device, b"x\x01ca\x01cb\x01cc\x01cd")
    assert users[0].seen == [MUX_IN, b"a", MUX_OUT, MUX_IN, b"d"]
    assert users[1].seen == [MUX_IN, b"b", MUX_OUT]
    assert users[2].seen == [b"x", MUX_OUT, MUX_IN, b"c", MUX_OUT]


async def test_alone_the_focus_stays(registry: Registry, device: FakeDevice) -> None:
    user = FakeFrontend()
    attach(registry["m"], user)
    await type_in(device, b"a\x01cb")
    assert user.seen == [OPENED, MUX_IN, b"a", b"b"]


async def test_when_the_focused_leaves_another_gets_the_focus(
    registry: Registry, device: FakeDevice
) -> None:
    stays, leaves = FakeFrontend(), FakeFrontend()
    attach(registry["m"], stays)
    frontend = attach(registry["m"], leaves)
    stays.seen.clear()
    await frontend.aclose()
    await type_in(device, b"a")
    assert stays.seen == [MUX_IN, b"a"]
    assert leaves.seen == [OPENED, MUX_IN]


async def test_when_one_without_the_focus_leaves_it_stays(
    registry: Registry, device: FakeDevice
) -> None:
    leaves, stays = FakeFrontend(), FakeFrontend()
    frontend = attach(registry["m"], leaves)
    attach(registry["m"], stays)
    stays.seen.clear()
    await frontend.aclose()
    await type_in(device, b"a\x01cb")
    assert stays.seen == [b"a", b"b"]


async def test_a_user_that_fails_on_its_first_event_does_not_get_the_focus(
    registry: Registry, device: FakeDevice, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: BackendEvent) -> None:
        raise ValueError("not today")

    user = FakeFrontend()
    attach(registry["m"], user)
    assert not registry["m"].attach(on_event=fail).is_attached
    assert "on_event failed" in caplog.text
    await type_in(device, b"a\x01cb")
    assert bytes_of(user) == b"ab"
    assert user.events == [OPENED, MUX_IN]


async def test_what_is_typed_with_no_user_there_is_kept_for_the_first(
    registry: Registry, device: FakeDevice
) -> None:
    await type_in(device, b"early")
    user = FakeFrontend()
    attach(registry["m"], user)
    await wait_all_tasks_blocked()
    assert bytes_of(user) == b"early"


# ---------------------------------------------------------------- keys


async def test_a_break_typed_or_sent_by_command_is_for_the_focused(
    registry: Registry, device: FakeDevice
) -> None:
    other, focused = FakeFrontend(), FakeFrontend()
    attach(registry["m"], other)
    attach(registry["m"], focused)
    await type_in(device, b"a\x01bb")
    registry.send_break("m")
    assert focused.seen == [OPENED, MUX_IN, b"a", BREAK, b"b", BREAK]
    assert BREAK not in other.events


async def test_a_break_sent_to_the_base_is_for_all(registry: Registry) -> None:
    users = [FakeFrontend(), FakeFrontend()]
    for user in users:
        attach(registry["m"], user)
    registry.send_break("b")
    await wait_all_tasks_blocked()
    assert [user.events.count(BREAK) for user in users] == [1, 1]


@pytest.mark.parametrize("key", [b"h", b"?"])
async def test_help_goes_to_the_base(registry: Registry, device: FakeDevice, key: bytes) -> None:
    user = FakeFrontend()
    attach(registry["m"], user)
    await type_in(device, b"\x01" + key)
    assert device.sent == EscapeParser().help_text(may_quit=False)
    assert bytes_of(user) == b""


async def test_help_that_nobody_is_there_to_read_is_dropped(
    registry: Registry, device: FakeDevice
) -> None:
    frontend = attach(registry["m"], FakeFrontend())
    device.connect(False)
    await type_in(device, b"\x01h")
    device.connect()
    await frontend.send_all(b"x")
    assert device.sent == b"x"


async def test_help_that_finds_the_base_full_goes_as_soon_as_it_can(
    registry: Registry, device: FakeDevice
) -> None:
    """Without anything else being sent."""
    attach(registry["m"], FakeFrontend())
    device.room = 10
    await type_in(device, b"\x01h")
    assert device.sent == EscapeParser().help_text(may_quit=False)[:10]
    device.make_room(1000)
    await wait_all_tasks_blocked()
    assert device.sent == EscapeParser().help_text(may_quit=False)


async def test_another_escape_character_can_be_chosen(device: FakeDevice) -> None:
    async with open_registry_with(any_opener) as registry:
        registry.environment = attrs.evolve(registry.environment, escape=0x14)
        await registry.add("b", FakeOptions(device=device))
        await registry.add("m", MuxOptions(chardev="b"))
        user = FakeFrontend()
        attach(registry["m"], user)
        await type_in(device, b"\x01c\x14\x14\x14h")
        assert bytes_of(user) == b"\x01c\x14"
        assert device.sent == EscapeParser(0x14).help_text(may_quit=False)


@pytest.mark.parametrize("escape_quit", [False, True])
async def test_only_with_escape_quit_a_peer_can_stop_the_service(
    device: FakeDevice, *, escape_quit: bool
) -> None:
    """With stdio below it needs no option: tests/cli/test_serve.py has a terminal."""
    quits = []
    async with open_registry_with(any_opener) as registry:
        registry.environment = attrs.evolve(registry.environment, quit=lambda: quits.append(True))
        await registry.add("b", FakeOptions(device=device))
        await registry.add("m", MuxOptions(chardev="b", escape_quit=escape_quit))
        user = FakeFrontend()
        attach(registry["m"], user)
        await type_in(device, b"a\x01xb")
        assert bytes_of(user) == b"ab"
        assert quits == [True] * escape_quit
        assert device.sent == b"trio-chardev: Terminated\r\n" * escape_quit
        await type_in(device, b"\x01h")
        assert (b" x " in device.sent) is escape_quit


async def test_nothing_is_said_while_what_was_said_before_waits(
    registry: Registry, device: FakeDevice
) -> None:
    """A peer that asks for help again and again and does not read it costs no memory."""
    attach(registry["m"], FakeFrontend())
    device.room = 10
    await type_in(device, b"\x01h" * 8192)
    device.make_room(1 << 20)
    await wait_all_tasks_blocked()
    assert device.sent == EscapeParser().help_text(may_quit=False)


@pytest.mark.parametrize("keys", [b"\x01h", b"\x01\x01", b"\x01b", b"\x01c", b"\x01t"])
async def test_others_have_a_turn_while_a_peer_sends_nothing_but_commands(
    registry: Registry, device: FakeDevice, keys: bytes
) -> None:
    """And all of them are carried out, also while the focused user has no room."""
    for _ in range(2):
        registry["m"].attach(be_change=FakeFrontend().be_change)
    device.feed(keys * 8192)
    base = registry["b"].frontends[0]
    turns = 0
    with trio.fail_after(30):
        while device.unread or base.statistics().bytes_waiting:
            await trio.lowlevel.checkpoint()
            turns += 1
    assert turns >= 8192 // PIECES_AT_ONCE  # two pieces a command, and some turns are missed


@pytest.mark.parametrize(
    ("typed", "got"),
    [(b"a\x01\x01b", b"a\x01b"), (b"a\x01zb", b"ab"), (b"a\x01\x00b", b"ab")],
    ids=["itself", "unknown", "nul"],
)
async def test_the_escape_key_is_itself_when_doubled_and_swallows_what_is_no_command(
    registry: Registry, device: FakeDevice, typed: bytes, got: bytes
) -> None:
    user = FakeFrontend()
    attach(registry["m"], user)
    for size in (len(typed), 1):  # also over the border of two chunks
        user.seen.clear()
        for start in range(0, len(typed), size):
            await type_in(device, typed[start : start + size])
        assert bytes_of(user) == got


async def test_a_key_is_known_over_the_border_of_two_chunks(
    registry: Registry, device: FakeDevice
) -> None:
    first, last = FakeFrontend(), FakeFrontend()
    attach(registry["m"], first)
    attach(registry["m"], last)
    await type_in(device, b"a\x01")
    await type_in(device, b"cb")
    assert (bytes_of(first), bytes_of(last)) == (b"b", b"a")


# ---------------------------------------------------------------- a user that does not read


async def test_a_user_that_does_not_read_gets_so_much_and_no_more_and_loses_nothing(
    registry: Registry, device: FakeDevice
) -> None:
    """Then the base is not read; all goes on as soon as the user reads, without a byte more."""
    frontend = attach_reader(registry)
    data = bytes(range(2, 256)) * 1200  # without the escape character
    await type_in(device, data)
    assert frontend.statistics().bytes_waiting == FULL
    assert device.unread == len(data) - FULL - INBOX_CAPACITY  # the base's own queue
    assert await read_all(frontend, len(data)) == data
    assert device.unread == 0


async def test_keys_are_seen_while_the_focused_does_not_read(
    registry: Registry, device: FakeDevice
) -> None:
    awake = FakeFrontend()
    attach(registry["m"], awake)
    sleeper = attach_reader(registry)
    await type_in(device, b"s" * (FULL - 1))
    await type_in(device, b"\x01ca")
    assert bytes_of(awake) == b"a"
    assert await read_all(sleeper, FULL - 1) == b"s" * (FULL - 1)


async def test_what_the_base_holds_goes_at_once_to_who_gets_the_focus(
    registry: Registry, device: FakeDevice
) -> None:
    awake = FakeFrontend()
    attach(registry["m"], awake)
    sleeper = attach_reader(registry)
    await type_in(device, b"s" * FULL + b"rest")
    assert bytes_of(awake) == b""
    await sleeper.aclose()
    await wait_all_tasks_blocked()
    assert bytes_of(awake) == b"rest"


async def test_what_a_user_has_not_read_waits_for_it_and_needs_no_focus(
    registry: Registry, device: FakeDevice
) -> None:
    """In QEMU it comes only after the user has the focus again and another byte was typed."""
    slow, other = FakeFrontend(appetite=1), FakeFrontend()
    frontend = attach(registry["m"], slow)
    await type_in(device, b"abc")
    attach(registry["m"], other)
    await type_in(device, b"x")
    slow.appetite = None
    frontend.accept_input()
    assert slow.seen == [OPENED, MUX_IN, b"a", b"bc", MUX_OUT]
    await type_in(device, b"\x01cd")
    assert slow.seen[-2:] == [MUX_IN, b"d"]


async def test_the_queues_are_bounded_however_often_the_focus_moves(
    registry: Registry, device: FakeDevice
) -> None:
    """The room that counts is that of who has the focus when the byte is its turn."""
    first, last = attach_reader(registry), attach_reader(registry)
    stretch = b"\x01c" + b"1" * 50_000 + b"\x01c"
    for _ in range(8):
        await type_in(device, stretch)
    assert first.statistics().bytes_waiting <= FULL + 2 * 64  # two events
    assert device.unread > 0
    assert await read_all(first, 400_000) == b"1" * 400_000
    assert last.take_ready() == b""


async def test_a_user_that_has_another_come_while_it_receives_gets_nothing_twice(
    registry: Registry, device: FakeDevice
) -> None:
    users = [FakeFrontend(appetite=0), FakeFrontend()]
    got = bytearray()

    def on_receive(data: bytes) -> int:
        if users[0].appetite == 0:
            return 0
        if len(got) >= FULL and len(registry["m"].frontends) == 1:
            attach(registry["m"], users[1])
        got.extend(data)
        return len(data)

    first = registry["m"].attach(on_receive=on_receive)
    typed = b"".join(b"%06d" % i for i in range(40_000))
    await type_in(device, typed)
    users[0].appetite = None
    first.accept_input()
    await wait_all_tasks_blocked()
    assert bytes(got) + bytes_of(users[1]) == typed


async def test_a_user_that_pauses_its_input_is_obeyed(
    registry: Registry, device: FakeDevice
) -> None:
    user = FakeFrontend()
    frontend = attach(registry["m"], user)
    frontend.pause_input()
    await type_in(device, b"x" * 300_000)
    assert bytes_of(user) == b""
    assert device.unread >= 300_000 - INBOX_CAPACITY
    frontend.accept_input()
    await wait_all_tasks_blocked()
    assert bytes_of(user) == b"x" * 300_000


async def test_each_of_many_commands_in_one_chunk_costs_no_copy_of_the_rest(
    registry: Registry, device: FakeDevice
) -> None:
    first, last = FakeFrontend(), FakeFrontend()
    attach(registry["m"], first)
    attach(registry["m"], last)
    with trio.fail_after(5):
        await type_in(device, b"\x01ca\x01cb" * 5_000)
    assert bytes_of(first) == b"a" * 5_000
    assert bytes_of(last) == b"b" * 5_000


# ---------------------------------------------------------------- events of the base


async def test_the_coming_and_going_at_the_base_is_told_to_all(
    registry: Registry, device: FakeDevice
) -> None:
    users = [FakeFrontend(), FakeFrontend()]
    for user in users:
        attach(registry["m"], user)
        user.events.clear()
    users[0].events.clear()
    device.connect(False)
    assert not registry["m"].is_open
    device.say(BREAK)
    device.connect()
    await wait_all_tasks_blocked()
    assert registry["m"].is_open
    assert [user.events for user in users] == [[CLOSED, BREAK, OPENED]] * 2


async def test_the_peers_of_a_socket_come_and_go_for_all_users(tmp_path: Path) -> None:
    """The last bytes of one that leaves are read before CLOSED is heard."""
    users = [FakeFrontend(), FakeFrontend()]
    address = UnixAddress(str(tmp_path / "s"))
    async with open_registry_with(any_opener) as registry:
        await registry.add("b", SocketOptions(addr=address, server=True, wait=False))
        await registry.add("m", MuxOptions(chardev="b"))
        frontends = [attach(registry["m"], user) for user in users]
        for text in (b"one", b"two"):
            for user in users:
                user.seen.clear()
            async with connect_to(registry["b"].backend) as peer:
                await until(lambda: registry["m"].is_open)
                await frontends[0].send_all(b"out")
                assert await peer.receive_some() == b"out"
                await peer.send_all(text)
            await until(lambda: not registry["m"].is_open)
            assert users[0].seen == [OPENED, CLOSED]
            assert users[1].seen == [OPENED, text, CLOSED]


async def test_nobody_at_the_base_is_nobody_at_the_mux(device: FakeDevice) -> None:
    device.connected = False
    async with open_registry_with(any_opener) as registry:
        await registry.add("b", FakeOptions(device=device))
        await registry.add("m", MuxOptions(chardev="b"))
        user = FakeFrontend()
        frontend = attach(registry["m"], user)
        assert user.events == [MUX_IN]
        with pytest.raises(BackendDisconnectedError):
            await frontend.send_all(b"x")


async def test_an_event_that_came_while_the_mux_was_opened_is_told_once(
    device: FakeDevice,
) -> None:
    """It waits in the base's queue, behind bytes, when the commit has told it already."""

    class Slow(FakeFrontend):
        async def be_change(self, backend: Controls) -> None:
            device.connect()

    device.connected = False
    async with open_registry_with(any_opener) as registry:
        await registry.add("b", FakeOptions(device=device))
        await registry.add("m", NullOptions())
        await type_in(device, b"early")
        user = Slow()
        attach(registry["m"], user)
        await registry.change("m", MuxOptions(chardev="b"))
        await wait_all_tasks_blocked()
        assert user.seen == [OPENED, b"early"]


# ---------------------------------------------------------------- how many, and who is busy


async def test_it_has_32_users_and_no_more(registry: Registry, device: FakeDevice) -> None:
    users = [FakeFrontend() for _ in range(32)]
    frontends = [attach(registry["m"], user) for user in users]
    with pytest.raises(ChardevBusyError, match=r"^Device 'm' is in use$"):
        registry["m"].attach()
    await type_in(device, b"".join(b"\x01c%c" % (65 + i) for i in range(32)))
    assert b"".join(bytes_of(user) for user in users) == bytes(range(65, 97))
    await frontends[7].aclose()
    attach(registry["m"], users[7])


async def test_unused_it_can_be_removed_and_then_its_base(registry: Registry) -> None:
    with pytest.raises(ChardevBusyError, match=r"^Chardev 'b' is busy$"):
        await registry.remove("b")
    frontends = [attach(registry["m"], FakeFrontend()) for _ in range(2)]
    for frontend in frontends:
        with pytest.raises(ChardevBusyError, match=r"^Chardev 'm' is busy$"):
            await registry.remove("m")
        await frontend.aclose()
    await registry.remove("m")
    await registry.remove("b")


async def test_the_base_of_a_mux_that_is_removed_can_be_used(
    registry: Registry, device: FakeDevice
) -> None:
    await registry.remove("m")
    user = FakeFrontend()
    attach(registry["b"], user)
    await type_in(device, b"a\x01c")
    assert bytes_of(user) == b"a\x01c"


async def test_query_shows_whether_mux_and_base_are_used(registry: Registry) -> None:
    await registry.add("top", MuxOptions(chardev="m"))
    unused = {"b": ("fake:base", False), "m": ("mux", False), "top": ("mux", False)}
    assert rows(registry) == unused
    for chardev in registry.values():
        chardev.row = b"a list that was written"
    is_ready = True
    frontend = registry["top"].attach(fe_open=lambda: is_ready)
    assert all(is_open for _, is_open in rows(registry).values())
    assert all(chardev.row is None for chardev in registry.values())
    for chardev in registry.values():
        chardev.row = b"a list that was written"
    is_ready = False
    assert rows(registry) == unused
    await frontend.aclose()
    assert rows(registry) == unused
    assert all(chardev.row is None for chardev in registry.values())


# ---------------------------------------------------------------- opening


@pytest.mark.parametrize("id", ["nosuch", "new", ""])
async def test_the_base_must_be_there(registry: Registry, id: str) -> None:
    with pytest.raises(OptionsError, match=rf": mux: base chardev {id} not found$"):
        await registry.add("new", MuxOptions(chardev=id))
    assert "new" not in registry


async def test_the_base_must_be_free(registry: Registry) -> None:
    text = r"^Failed to add chardev 'new': Device 'b' is in use$"
    with pytest.raises(BackendError, match=text):
        await registry.add("new", MuxOptions(chardev="b"))


async def test_a_mux_that_has_users_takes_another_mux_for_one_more(
    registry: Registry, device: FakeDevice
) -> None:
    """Each has the focus when its turn comes; the upper's keys are doubled for the lower."""
    lower, upper = FakeFrontend(), [FakeFrontend(), FakeFrontend()]
    attach(registry["m"], lower)
    await registry.add("top", MuxOptions(chardev="m"))
    frontends = [attach(registry["top"], user) for user in upper]
    await type_in(device, b"a\x01\x01cb\x01cc")
    assert [bytes_of(user) for user in (lower, *upper)] == [b"c", b"b", b"a"]
    for frontend, text in zip(frontends, (b"one ", b"two"), strict=True):
        await frontend.send_all(text)
    assert device.sent == b"one two"


async def test_it_cannot_stand_on_what_stands_on_it(registry: Registry) -> None:
    await registry.add("top", MuxOptions(chardev="m"))
    with pytest.raises(ChardevError, match=r"Chardev 'top' stands on 'b' itself$"):
        await registry.change("b", MuxOptions(chardev="top"))
    with pytest.raises(ChardevError, match=r"mux: base chardev m not found$"):
        await registry.change("m", MuxOptions(chardev="m"))
    assert rows(registry)["b"][0] == "fake:base"


@pytest.mark.parametrize("seed", range(4))
async def test_two_changes_at_a_time_do_not_make_a_ring(seed: int) -> None:
    """Each would stand on the other, which did not when it was looked at."""
    trio_run._r.seed(seed)
    errors = []
    async with open_registry_with(any_opener) as registry:

        async def change(id: str, base: str) -> None:
            try:
                await registry.change(id, MuxOptions(chardev=base))
            except BackendError as exc:
                errors.append(str(exc))

        for id in "xy":
            await registry.add(id, FakeOptions(device=FakeDevice(id)))
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(change, "x", "y")
                nursery.start_soon(change, "y", "x")
        names = sorted(info.filename for info in registry.query())
        assert names in (["fake:x", "mux"], ["fake:y", "mux"])
    assert len(errors) == 1
    assert re.search("stands on '[xy]' itself$", errors[0])


# ---------------------------------------------------------------- output


async def test_a_send_all_is_one_piece(registry: Registry, device: FakeDevice) -> None:
    device.room = 3
    frontends = [attach(registry["m"], FakeFrontend()) for _ in range(3)]
    pieces = [letter * 40 for letter in (b"a", b"b", b"c")]
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for frontend, piece in zip(frontends, pieces, strict=True):
                nursery.start_soon(frontend.send_all, piece)
            while len(device.sent) < 120:
                await wait_all_tasks_blocked()
                device.make_room(7)
    assert sorted(re.findall(rb"a+|b+|c+", device.sent)) == pieces


async def test_a_cancelled_send_some_has_sent_nothing(
    registry: Registry, device: FakeDevice
) -> None:
    device.room = 0
    frontend = attach(registry["m"], FakeFrontend())
    with trio.move_on_after(0.01) as scope:
        await frontend.send_some(b"never")
    assert scope.cancelled_caught
    device.make_room(10)
    await frontend.send_all(b"sent")
    assert device.sent == b"sent"


async def test_line_calls_go_to_the_base(registry: Registry, device: FakeDevice) -> None:
    frontend = attach(registry["m"], FakeFrontend())
    settings = LineSettings(speed=300)
    await frontend.line.set(settings)
    await frontend.line.set_modem(ModemLines.DTR)
    await frontend.line.send_break(0)
    assert device.line_calls == [settings, ModemLines.DTR, 0]
    assert await frontend.line.get_modem() == ModemLines.CTS | ModemLines.DSR


async def test_line_calls_find_a_base_that_is_gone_away(
    registry: Registry, device: FakeDevice
) -> None:
    """A handler of the mux that fails detaches it from its base; its users are told as usual."""
    frontend = registry["m"].attach()
    registry["b"].detach(registry["b"].frontends[0])
    with pytest.raises(BackendDisconnectedError):
        await frontend.line.set(LineSettings())
    with pytest.raises(BackendDisconnectedError):
        frontend.line.look()


async def test_line_calls_are_refused_in_the_bases_name() -> None:
    async with open_registry_with(any_opener) as registry:
        await registry.add("b", NullOptions())
        await registry.add("m", MuxOptions(chardev="b"))
        with pytest.raises(NotSupportedError, match=r"^'null' has no modem lines$"):
            await attach(registry["m"], FakeFrontend()).line.get_modem()


# ---------------------------------------------------------------- time stamps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``clock.now`` is the time, in seconds."""
    clock = SimpleNamespace(now=0.0)
    fake = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr("trio_chardev.backends.stacked.mux.time", fake)
    return clock


async def test_from_the_next_line_on_each_is_stamped(
    registry: Registry, device: FakeDevice, clock: SimpleNamespace
) -> None:
    frontend = attach(registry["m"], FakeFrontend())
    await frontend.send_all(b"in pro")
    await type_in(device, b"\x01t")
    await frontend.send_all(b"gress\n")
    clock.now = 3661.25
    await frontend.send_all(b"a\nb")
    clock.now = 400_000.0
    await frontend.send_all(b"b\n\n")
    await type_in(device, b"\x01t")
    await frontend.send_all(b"c\nd\n")
    assert device.sent == (
        b"in progress\n[01:01:01.250] a\n[01:01:01.250] bb\n[111:06:40.000] \nc\nd\n"
    )


@pytest.mark.parametrize("room", [1, 5, 13, 16, 17, 40])
async def test_stamps_are_whole_however_little_the_base_takes(
    registry: Registry, device: FakeDevice, room: int
) -> None:
    frontend = attach(registry["m"], FakeFrontend())
    await type_in(device, b"\x01t")
    await frontend.send_all(b"\n")
    device.room = 0
    lines = [b"%d%s\n" % (i, b"." * i) for i in range(6)]
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(frontend.send_all, b"".join(lines))
            while not device.sent.endswith(lines[-1]):
                await wait_all_tasks_blocked()
                device.make_room(room)
    assert re.fullmatch(b"\n" + b"".join(STAMP + re.escape(line) for line in lines), device.sent)


async def test_a_line_behind_help_that_had_to_wait_is_stamped(
    registry: Registry, device: FakeDevice
) -> None:
    frontend = attach(registry["m"], FakeFrontend())
    await type_in(device, b"\x01t")
    await frontend.send_all(b"\n")
    device.room = 10
    await type_in(device, b"\x01h")
    assert frontend.try_send(b"line\n") == 0
    device.make_room(1000)
    await frontend.send_all(b"line\n")
    help_text = re.escape(EscapeParser().help_text(may_quit=False))
    assert re.fullmatch(b"\n" + help_text + STAMP + b"line\n", device.sent)


async def test_help_in_the_midst_of_a_line_does_not_have_it_stamped(
    registry: Registry, device: FakeDevice
) -> None:
    frontend = attach(registry["m"], FakeFrontend())
    await type_in(device, b"\x01t")
    await frontend.send_all(b"\nab")
    await type_in(device, b"\x01h")
    await frontend.send_all(b"cd\n")
    help_text = re.escape(EscapeParser().help_text(may_quit=False))
    assert re.fullmatch(b"\n" + STAMP + b"ab" + help_text + b"cd\n", device.sent)


async def test_a_cancelled_send_does_not_stamp_a_line_twice(
    registry: Registry, device: FakeDevice
) -> None:
    frontend = attach(registry["m"], FakeFrontend())
    await type_in(device, b"\x01t")
    await frontend.send_all(b"\n")
    device.room = 4
    for _ in range(2):
        with trio.move_on_after(0.01) as scope:
            await frontend.send_some(b"line\n")
        assert scope.cancelled_caught
    device.make_room(100)
    await frontend.send_all(b"line\n")
    assert re.fullmatch(b"\n" + STAMP + b"line\n", device.sent)


async def test_each_stamp_costs_no_copy_of_the_rest(
    registry: Registry, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []

    def copy(data: memoryview) -> bytes:
        copied.append(len(data))
        return bytes(data)

    frontend = attach(registry["m"], FakeFrontend())
    await type_in(device, b"\x01t")
    monkeypatch.setattr(module, "bytes", copy, raising=False)
    await frontend.send_all(b"x" * 99 + b"\n" + b"x\n" * 5_000 + b"y" * (1 << 23))
    assert max(copied) == module.STAMPED_AT_ONCE
    assert len(re.findall(STAMP, device.sent)) == 5_001
    assert device.sent.count(b"y") == 1 << 23


# ---------------------------------------------------------------- the base is changed


async def test_the_users_are_set_up_for_a_new_base_and_stay(
    registry: Registry, device: FakeDevice
) -> None:
    new, users = FakeDevice("new", eager=True), [FakeFrontend(), FakeFrontend()]
    frontends = [attach(registry["m"], user) for user in users]
    registry["m"].attach(on_event=FakeFrontend().on_event)  # its line needs no set-up
    await registry.change("b", FakeOptions(device=new))
    assert [user.bound for user in users] == ["fake:new"] * 2
    assert rows(registry)["b"] == ("fake:new", True)
    await frontends[0].send_all(b"out")
    await type_in(new, b"\x01cin")
    assert new.sent == b"out"
    assert bytes_of(users[0]) == b"in"
    assert not device.is_held_open


async def test_a_user_that_refuses_the_new_base_undoes_the_change(registry: Registry) -> None:
    new = FakeDevice("new")
    users = [FakeFrontend(), FakeFrontend(refuses=new), FakeFrontend()]
    frontends = [attach(registry["m"], user) for user in users]
    with pytest.raises(
        ChangeFailedError,
        match=r"^Chardev 'b' change failed: the frontend does not want this backend$",
    ):
        await registry.change("b", FakeOptions(device=new))
    assert [user.bound for user in users] == ["fake:base"] * 3
    assert rows(registry)["b"] == ("fake:base", True)
    assert all(frontend.is_attached for frontend in frontends)
    assert not new.is_held_open


async def test_every_user_is_set_back_when_one_does_not_take_the_original(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    class Stubborn(FakeFrontend):
        async def be_change(self, backend: Controls) -> None:
            if backend.is_original:
                raise ValueError("nor the old one")
            await super().be_change(backend)

    new = FakeDevice("new")
    users = [FakeFrontend(), Stubborn(), FakeFrontend(), FakeFrontend(refuses=new)]
    for user in users:
        attach(registry["m"], user)
    with pytest.raises(ChangeFailedError):
        await registry.change("b", FakeOptions(device=new))
    assert [user.bound for user in users] == ["fake:base", "fake:new", "fake:base", "fake:base"]
    assert "a user does not take the original: ValueError('nor the old one')" in caplog.text


async def test_one_that_hangs_does_not_keep_the_others_from_being_set_back(
    registry: Registry, device: FakeDevice, autojump_clock: trio.testing.MockClock
) -> None:
    new = FakeDevice("new")
    users = [FakeFrontend(hangs_at=device), FakeFrontend(), FakeFrontend(refuses=new)]
    for user in users:
        attach(registry["m"], user)
    with pytest.raises(ChangeFailedError):
        await registry.change("b", FakeOptions(device=new))
    assert [user.bound for user in users] == [None, "fake:base", "fake:base"]


async def test_a_user_that_comes_while_the_base_changes_is_set_up_too(registry: Registry) -> None:
    new, late = FakeDevice("new"), FakeFrontend()

    class Host(FakeFrontend):
        async def be_change(self, backend: Controls) -> None:
            attach(registry["m"], late)

    attach(registry["m"], Host())
    await registry.change("b", FakeOptions(device=new))
    assert late.bound == "fake:new"


async def test_users_hear_that_at_the_new_base_nobody_is_there(registry: Registry) -> None:
    new, users = FakeDevice("new", connected=False), [FakeFrontend(), FakeFrontend()]
    for user in users:
        attach(registry["m"], user)
        user.events.clear()
    users[0].events.clear()
    await registry.change("b", FakeOptions(device=new))
    new.connect()
    assert [user.events for user in users] == [[CLOSED, OPENED]] * 2


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_or_repeated_when_the_base_is_changed_under_load(
    device: FakeDevice, registry: Registry, seed: int
) -> None:
    trio_run._r.seed(seed)
    devices = [device, *(FakeDevice(f"d{i}", eager=i % 2 == 0) for i in range(6))]
    reader = attach_reader(registry)
    writer = attach(registry["m"], FakeFrontend())
    await type_in(device, b"\x01c")
    out = b"".join(b"<%04d>" % i for i in range(300))
    got = bytearray()

    async def read() -> None:
        while True:
            got.extend(await reader.receive_some(7))

    async def feed(device: FakeDevice) -> None:
        for i in range(20):
            device.feed(b"(%s %d)" % (device.name.encode(), i))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with trio.open_nursery() as load:
                load.start_soon(writer.send_all, out)
                for old, new in pairwise(devices):
                    await feed(old)
                    await registry.change("b", FakeOptions(device=new))
            await feed(devices[-1])
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert b"".join(bytes(device.sent) for device in devices) == out
    fed = b"".join(bytes(device.fed) for device in devices)
    assert bytes(got) == fed.removeprefix(b"\x01c")


async def test_a_base_that_dies_can_be_changed(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    await registry.change("b", FakeOptions(device=FakeDevice("mortal", dies_after=1)))
    user = FakeFrontend()
    frontend = attach(registry["m"], user)
    await wait_all_tasks_blocked()
    assert "the backend is gone" in caplog.text
    assert not registry["m"].is_open
    with pytest.raises(BackendDisconnectedError):
        await frontend.send_all(b"x")
    new = FakeDevice("new")
    await registry.change("b", FakeOptions(device=new))
    await frontend.send_all(b"x")
    assert new.sent == b"x"


# ---------------------------------------------------------------- the mux is changed


async def test_to_another_base(registry: Registry, device: FakeDevice) -> None:
    other = FakeDevice("other", eager=True)
    await registry.add("c", FakeOptions(device=other))
    users = [FakeFrontend(), FakeFrontend()]
    frontends = [attach(registry["m"], user) for user in users]
    await registry.change("m", MuxOptions(chardev="c"))
    assert not registry["b"].frontends
    await registry.remove("b")
    await frontends[0].send_all(b"out")
    await type_in(other, b"a\x01cb")
    assert other.sent == b"out"
    assert [bytes_of(user) for user in users] == [b"b", b"a"]


async def test_what_is_typed_at_the_base_it_has_left_is_for_the_bases_next_user(
    registry: Registry, device: FakeDevice
) -> None:
    """Also while the mux is being closed, which is when it is drained."""
    user, plain = FakeFrontend(), FakeDevice("plain")
    attach(registry["m"], user)
    device.room = 0
    await type_in(device, b"before\x01h")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.change, "m", FakeOptions(device=plain))
        await wait_all_tasks_blocked()
        assert registry["m"].backend.filename == "fake:plain"
        await type_in(device, b"after")
    assert bytes_of(user) == b"before"
    assert await registry["b"].attach().receive_some() == b"after"


async def test_over_the_same_base_which_is_handed_over(
    registry: Registry, device: FakeDevice
) -> None:
    users = [FakeFrontend(), FakeFrontend()]
    frontends = [attach(registry["m"], user) for user in users]
    before = registry["m"].backend
    await registry.change("m", MuxOptions(chardev="b"))
    assert registry["m"].backend is not before
    assert len(registry["b"].frontends) == 1
    await frontends[0].send_all(b"out")
    await type_in(device, b"a\x01cb")
    assert device.sent == b"out"
    assert [bytes_of(user) for user in users] == [b"b", b"a"]
    assert users[0].events.count(OPENED) <= 2
    for frontend in frontends:
        await frontend.aclose()
    await registry.remove("m")
    await registry.remove("b")


async def test_to_a_plain_backend_and_back(registry: Registry, device: FakeDevice) -> None:
    user, plain = FakeFrontend(), FakeDevice("plain", eager=True)
    frontend = attach(registry["m"], user)
    await type_in(device, b"1\x01")
    await registry.change("m", FakeOptions(device=plain))
    assert rows(registry) == {"b": ("fake:base", False), "m": ("fake:plain", True)}
    await frontend.send_all(b"out")
    await type_in(plain, b"\x01c")
    with pytest.raises(ChardevBusyError):
        registry["m"].attach()
    await registry.change("m", MuxOptions(chardev="b"))
    await type_in(device, b"2\x01c3")
    attach(registry["m"], FakeFrontend())
    assert plain.sent == b"out"
    assert bytes_of(user) == b"1\x01c23"


async def test_of_two_users_a_plain_backend_would_leave_one_out(registry: Registry) -> None:
    users = [FakeFrontend(), FakeFrontend()]
    for user in users:
        attach(registry["m"], user)
    text = r"^Chardev 'm' has 2 users, but 'fake:plain' can have only 1$"
    with pytest.raises(ChangeRefusedError, match=text):
        await registry.change("m", FakeOptions(device=FakeDevice("plain")))
    assert rows(registry) == {"b": ("fake:base", True), "m": ("mux", True)}
    assert [user.bound for user in users] == ["mux", "mux"]


@pytest.mark.parametrize("base", ["nosuch", "busy", "m", "top"])
async def test_a_change_that_fails_leaves_all_as_it_was(
    registry: Registry, device: FakeDevice, base: str
) -> None:
    await registry.add("busy", NullOptions())
    registry["busy"].attach()
    user = FakeFrontend()
    frontend = attach(registry["m"], user)
    await registry.add("top", MuxOptions(chardev="m"))
    before = rows(registry)
    await type_in(device, b"\x01c\x01")
    with pytest.raises(ChardevError):
        await registry.change("m", MuxOptions(chardev=base))
    await frontend.send_all(b"out")
    await type_in(device, b"\x01in")  # the escape key came before the change
    assert device.sent == b"out"
    assert bytes_of(user) == b"\x01in"
    assert rows(registry) == before


async def test_a_user_that_refuses_a_handed_over_base_has_the_old_mux_back(
    registry: Registry, device: FakeDevice
) -> None:
    class Choosy(FakeFrontend):
        async def be_change(self, backend: Controls) -> None:
            if backend.backend is not original:
                raise ValueError("no")

    user = Choosy()
    attach(registry["m"], user)
    original = registry["m"].backend
    with pytest.raises(ChangeFailedError):
        await registry.change("m", MuxOptions(chardev="b"))
    assert registry["m"].backend is original
    assert len(registry["b"].frontends) == 1
    await type_in(device, b"in")
    assert bytes_of(user) == b"in"


# ---------------------------------------------------------------- cancelled at every step


async def change_cancelled(target: str, options: str, injector: CancelAtStep) -> bool:
    """Change *target* under load, cancelled at a step; was it reached?"""
    old, new, other = (FakeDevice(name) for name in ("old", "new", "other"))
    user = FakeFrontend()
    got = bytearray()
    message = b"<one><two><three>"
    async with open_registry_with(any_opener) as registry:
        await registry.add("b", FakeOptions(device=old))
        await registry.add("c", FakeOptions(device=other))
        await registry.add("m", MuxOptions(chardev="b"))
        frontend = registry["m"].attach(be_change=user.be_change, on_event=user.on_event)
        choices = {"fake": FakeOptions(device=new)}

        async def read() -> None:
            while data := await frontend.receive_some(3):
                got.extend(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            async with trio.open_nursery() as writers:
                writers.start_soon(frontend.send_all, message)
                old.feed(b"before")
                injector.armed = True
                with injector.scope:
                    await registry.change(
                        target, choices.get(options) or MuxOptions(chardev=options)
                    )
                injector.armed = False
            assert isinstance(registry["m"].backend, MuxBackend) or options == "fake"
            device = in_place(registry, old, new, other)
            if device is not new:
                assert not new.is_held_open
            device.feed(b"after")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert old.sent + new.sent + other.sent == message
        assert bytes(got).endswith(b"after")
        assert b"before".startswith(bytes(got)[: -len(b"after")])
        if target == "b" or device is old:
            assert bytes(got) == b"beforeafter"
        await frontend.aclose()
        await registry.remove("m")
        await registry.remove("b")
        await registry.remove("c")
    assert not any(device.is_held_open for device in (old, new, other))
    return injector.fired


def in_place(registry: Registry, *devices: FakeDevice) -> FakeDevice:
    """The device behind ``m``."""
    backend = registry["m"].backend
    if isinstance(backend, MuxBackend):
        backend = registry[backend.stacking.bases[0]].backend
    return next(device for device in devices if device.backend is backend)


@pytest.mark.parametrize(
    ("target", "options"),
    [("b", "fake"), ("m", "fake"), ("m", "b"), ("m", "c")],
    ids=["base", "mux-to-plain", "mux-handed-over", "mux-to-other-base"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_cancelled_at_every_step_a_change_happens_whole_or_not_at_all(
    target: str, options: str, when: str
) -> None:
    is_undone = is_done = False
    for seed in range(2):
        for k in steps(1000):
            trio_run._r.seed(seed)
            injector = CancelAtStep(k, when, trio.CancelScope())
            try:
                fired = trio.run(
                    change_cancelled, target, options, injector, instruments=[injector]
                )
            except BaseException as exc:
                exc.add_note(f"{when} {k=} {seed=}")
                raise
            is_undone |= injector.scope.cancelled_caught
            is_done |= fired and not injector.scope.cancelled_caught
            if not fired:
                break
    assert is_undone
    assert is_done


# ---------------------------------------------------------------- the logs of base and mux


async def test_the_logs_have_once_what_a_user_offers_again_until_somebody_is_there(
    registry: Registry, device: FakeDevice
) -> None:
    logs = FakeLog(device), FakeLog.of(registry["m"].backend)
    user = attach(registry["m"], FakeFrontend())
    user.relay.keeps_refused = True
    device.connect(False)
    for _ in range(3):
        with pytest.raises(BackendDisconnectedError):
            user.try_send(b"held")
        with pytest.raises(BackendDisconnectedError):
            await user.send_some(b"held")
    assert [log.data for log in logs] == [b"", b""]
    device.connect()
    assert user.try_send(b"held") == 4
    assert [log.data for log in logs] == [b"held", b"held"]


async def test_the_logs_have_once_what_nobody_was_there_for(
    registry: Registry, device: FakeDevice
) -> None:
    logs = FakeLog(device), FakeLog.of(registry["m"].backend)
    user = attach(registry["m"], FakeFrontend())
    device.connect(False)
    with pytest.raises(BackendDisconnectedError):
        user.try_send(b"1")
    with pytest.raises(BackendDisconnectedError):
        await user.send_some(b"2")
    with pytest.raises(BackendDisconnectedError):
        await user.send_all(b"3")
    assert [log.data for log in logs] == [b"123", b"123"]


async def test_the_base_has_in_its_log_what_the_mux_says_to_nobody_once(
    registry: Registry, device: FakeDevice
) -> None:
    log = FakeLog(device)
    attach(registry["m"], FakeFrontend())
    device.connect(False)
    await type_in(device, b"\x01h")
    assert log.data == EscapeParser(1).help_text(may_quit=False)
