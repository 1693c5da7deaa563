"""A bridge that translates, frames, paces or tells: in order, and without a byte too many or few."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.devices.fakes import Journal, open_fakes
from trio_chardev.core.inbox import INBOX_CAPACITY
from trio_chardev.core.line import BREAK_DURATION
from trio_chardev.core.timer import PreciseTimer
from trio_chardev.devices import shaped
from trio_chardev.devices.bridge import Bridge, BridgeOptions
from trio_chardev.devices.flow import Flow
from trio_chardev.devices.framing import MAX_FRAME
from trio_chardev.errors import OptionsError
from trio_chardev.events import Event, LineSettings
from trio_chardev.registry import Registry
from trio_chardev.testing import FakeDevice, FakeOptions
from trio_chardev.testing.backend import FakePeer

EAGER: dict[str, Any] = {"eager": True}
LINED: dict[str, Any] = {"eager": True, "has_line": True}
MODBUS: dict[str, Any] = {"frame_silence_us": 1750}


@pytest.fixture(autouse=True)
def imprecise_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's timer knows nothing of a clock that a test has."""
    monkeypatch.setattr(shaped, "open_timer", lambda: nullcontext(PreciseTimer(None)))


class Pieces(bytearray):
    """Replaces a device's `sent`: keeps when each piece was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.times: list[float] = []

    def __iadd__(self, data: Any) -> Pieces:  # type: ignore[misc]
        self.pieces.append(bytes(data))
        self.times.append(trio.current_time())
        self.extend(data)
        return self


class Bridged:
    """A bridge between two fakes, and what it has sent them."""

    def __init__(self, registry: Registry, board: FakeDevice, user: FakeDevice) -> None:
        self.registry, self.board, self.user = registry, board, user
        self.to_board, self.to_user = Pieces(), Pieces()
        board.sent, user.sent = self.to_board, self.to_user
        self.begin = trio.current_time()
        self.device: Bridge

    def add(self, **options: Any) -> None:
        device = self.registry.devices.add(
            BridgeOptions(id="b0", chardev="board", peer="user", **options)
        )
        assert isinstance(device, Bridge)
        self.device = device

    def times(self, sent: Pieces) -> list[float]:
        return [round(time - self.begin, 6) for time in sent.times]

    async def change(self, id: str, **faults: Any) -> FakeDevice:
        new = FakeDevice("new", **faults)
        await self.registry.change(id, FakeOptions(device=new))
        return new


@asynccontextmanager
async def bridged(
    board: dict[str, Any] = EAGER, user: dict[str, Any] = EAGER, **options: Any
) -> AsyncIterator[Bridged]:
    both = FakeDevice("board", **board), FakeDevice("user", **user)
    async with open_fakes(*both) as registry:
        run = Bridged(registry, *both)
        run.add(**options)
        await wait_all_tasks_blocked()
        yield run


# ---------------------------------------------------------------- off


async def test_without_these_options_both_directions_are_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task that reads sends, too, and the fast paths are there."""
    async with bridged() as run:
        assert type(run.device.to_peer) is type(run.device.to_chardev) is Flow
        assert run.device.to_peer.exchange is run.device.to_chardev.exchange is not None
        woken: list[Flow] = []
        monkeypatch.setattr(Flow, "set_to_work", woken.append)
        run.board.feed(b"x")
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b"x"
        assert woken == []


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"translate_to_peer": "lf"}, "to_peer"),
        ({"translate_to_chardev": "cr"}, "to_chardev"),
        ({"pace_char_us": 1}, "to_chardev"),
        ({"pace_line_ms": 1}, "to_chardev"),
        ({"frame_silence_us": 1}, "to_peer"),
        ({"frame_delimiter": "x"}, "to_peer"),
        ({"notice": True}, None),
    ],
)
async def test_an_option_leaves_the_other_direction_alone(
    options: dict[str, Any], changed: str | None
) -> None:
    async with bridged(**options) as run:
        for name in ("to_peer", "to_chardev"):
            assert (type(getattr(run.device, name)) is Flow) == (name != changed)
        assert (run.device.to_peer.exchange is None) == (changed is not None)


# ---------------------------------------------------------------- translation


@pytest.mark.parametrize("room", [None, 1, 3])
@pytest.mark.parametrize("cut", range(8))
async def test_line_ends_are_translated_each_way_wherever_the_bytes_are_cut(
    cut: int, room: int | None
) -> None:
    options = {"translate_to_peer": "crlf", "translate_to_chardev": "cr"}
    device = {**EAGER, "gulp": room}
    async with bridged(device, device, **options) as run:
        for data in (b"a\r\nb\n\r"[:cut], b"a\r\nb\n\r"[cut:]):
            run.board.feed(data)
            run.user.feed(data)
            await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b"a\r\nb\r\n\r\n"
        assert bytes(run.to_board) == b"a\rb\r\r"
        assert run.device.info.to_peer.bytes == len(run.to_user)


async def test_half_a_line_end_goes_to_the_old_backend_and_half_to_the_new_one() -> None:
    async with bridged(user={**EAGER, "room": 2}, translate_to_peer="onlcr") as run:
        run.board.feed(b"a\nb")
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b"a\r"
        new = await run.change("user", eager=True)
        await wait_all_tasks_blocked()
        assert new.sent == b"\nb"


async def test_a_side_where_nobody_is_drops_or_holds_what_is_translated() -> None:
    async with bridged(user={"connected": False}, translate_to_peer="onlcr") as run:
        run.board.feed(b"a\nb")
        await wait_all_tasks_blocked()
        assert run.device.info.to_peer.dropped == 4
        await run.registry.devices.remove("b0")
        run.add(translate_to_peer="onlcr", when_closed="hold")
        run.board.feed(b"c\nd")
        await wait_all_tasks_blocked()
        run.user.connect()
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b"c\r\nd"


async def test_what_becomes_nothing_is_taken_all_the_same() -> None:
    async with bridged(translate_to_peer="igncr") as run:
        run.board.feed(b"\r\r")
        await wait_all_tasks_blocked()
        assert run.device.chardev.statistics().bytes_waiting == 0
        run.board.feed(b"\ra")
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b"a"


# ---------------------------------------------------------------- pacing


async def test_bytes_are_paced_and_lines_more_so(autojump_clock: MockClock) -> None:
    async with bridged(pace_char_us=1000, pace_line_ms=100) as run:
        run.user.feed(b"a\r\nb\nc")
        await trio.sleep(10)
        assert run.to_board.pieces == [bytes([byte]) for byte in b"a\r\nb\nc"]
        assert run.times(run.to_board) == [0, 0.001, 0.002, 0.102, 0.103, 0.203]


async def test_lines_alone_are_paced_as_pieces(autojump_clock: MockClock) -> None:
    async with bridged(pace_line_ms=100) as run:
        run.user.feed(b"one\ntwo\r\nrest")
        await trio.sleep(10)
        assert run.to_board.pieces == [b"one\n", b"two\r\n", b"rest"]
        assert run.times(run.to_board) == [0, 0.1, 0.2]


async def test_a_slow_lines_own_time_is_counted_in(autojump_clock: MockClock) -> None:
    """The kernel takes bytes faster than the line sends them."""
    line = LineSettings(speed=1000)  # a byte takes 10 ms
    async with bridged({**LINED, "line": line}, pace_char_us=5000) as run:
        run.user.feed(b"abc")
        await trio.sleep(10)
        assert run.times(run.to_board) == [0, 0.015, 0.03]


async def test_a_line_that_is_taken_in_parts_is_paced_once(autojump_clock: MockClock) -> None:
    async with bridged({**EAGER, "gulp": 2}, pace_line_ms=100) as run:
        run.user.feed(b"abc\nde")
        await trio.sleep(10)
        assert run.to_board.pieces == [b"ab", b"c\n", b"de"]
        assert run.times(run.to_board) == [0, 0, 0.1]


async def test_what_is_for_nobody_is_not_slow() -> None:
    async with bridged(pace_char_us=1_000_000) as run:
        run.user.feed(b"a")
        await wait_all_tasks_blocked()
        run.board.connect(False)
        run.user.feed(bytes(1000))
        await wait_all_tasks_blocked()
        assert run.device.info.to_chardev.dropped == 1000


async def test_a_break_and_settings_keep_their_places_among_paced_bytes(
    autojump_clock: MockClock,
) -> None:
    async with bridged(LINED, pace_char_us=1000) as run:
        journal = Journal(run.board)
        run.user.feed(b"12")
        run.user.say(Event.BREAK)
        run.user.feed(b"34")
        await trio.sleep(0.0005)
        run.user.say(LineSettings(speed=300))
        run.user.feed(b"5")
        await trio.sleep(10)
        assert journal == [(BREAK_DURATION, b""), (LineSettings(speed=300), b"1234")]
        assert bytes(run.to_board) == b"12345"


async def test_a_change_in_between_loses_and_repeats_no_paced_byte(
    autojump_clock: MockClock,
) -> None:
    async with bridged(pace_char_us=1_000_000) as run:
        run.user.feed(b"paced")
        await trio.sleep(1.5)
        new = await run.change("board", eager=True)
        await trio.sleep(1)
        await run.change("user", eager=True)
        await trio.sleep(10)
        assert run.to_board + new.sent == b"paced"


async def test_what_was_not_sent_stays_for_the_next_user(autojump_clock: MockClock) -> None:
    async with bridged(pace_char_us=1_000_000) as run:
        run.user.feed(b"paced")
        await trio.sleep(1.5)
        await run.registry.devices.remove("b0")
        run.add()
        await wait_all_tasks_blocked()
        assert run.to_board.pieces == [b"p", b"a", b"ced"]


async def test_delays_of_less_than_a_millisecond_are_possible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trio alone waits for whole ones. This one is of the kernel's time, and of no other."""
    monkeypatch.undo()
    async with bridged(pace_char_us=100) as run:
        run.user.feed(bytes(20))
        with trio.fail_after(60):
            while len(run.to_board) < 20:  # noqa: ASYNC110 - it is real time that matters
                await trio.sleep(0.001)
        gaps = [after - before for before, after in pairwise(run.to_board.times)]
        assert min(gaps) >= 0.000_1
        assert open_descriptors("[timerfd]") == 1
        await run.registry.devices.remove("b0")
        assert open_descriptors("[timerfd]") == 0


def open_descriptors(kind: str) -> int:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum(kind in link for link in links)


# ---------------------------------------------------------------- frames


async def test_a_frame_is_passed_on_as_one_piece_after_a_silence(autojump_clock: MockClock) -> None:
    async with bridged(**MODBUS) as run:
        for piece in (b"\x01\x03", b"\x02\x00", b"\x2a"):
            run.board.feed(piece)
            await trio.sleep(0.001)
        await trio.sleep(0.01)
        run.board.feed(b"next")
        await trio.sleep(1)
        assert run.to_user.pieces == [b"\x01\x03\x02\x00\x2a", b"next"]
        assert run.times(run.to_user) == [0.00375, 0.01475]


async def test_a_delimiter_ends_a_frame_and_each_is_a_piece(autojump_clock: MockClock) -> None:
    async with bridged(frame_delimiter=r"\r\n") as run:
        run.board.feed(b"one\r\ntwo\r")
        await trio.sleep(0.05)
        run.board.feed(b"\nlogin: ")
        await trio.sleep(1)
        assert run.to_user.pieces == [b"one\r\n", b"two\r\n", b"login: "]
        assert run.times(run.to_user) == [0, 0.05, 0.15]


async def test_what_is_held_is_in_the_queue_and_bounded(autojump_clock: MockClock) -> None:
    async with bridged(user={"stuck": True}, frame_silence_us=10_000_000) as run:
        run.board.feed(bytes(3 * INBOX_CAPACITY))
        await trio.sleep(1)
        assert run.board.unread == 2 * INBOX_CAPACITY
        assert run.device.chardev.statistics().bytes_waiting == INBOX_CAPACITY
    async with bridged(frame_silence_us=10_000_000) as run:
        run.board.feed(bytes(MAX_FRAME + 1))
        await wait_all_tasks_blocked()
        assert len(run.to_user) == MAX_FRAME


@pytest.mark.parametrize("event", [Event.BREAK, LineSettings(speed=300)])
async def test_what_comes_before_an_event_waits_for_no_silence(event: Any) -> None:
    async with bridged(user=LINED, frame_silence_us=10_000_000) as run:
        run.board.feed(b"half")
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b""
        run.board.say(event)
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b"half"


async def test_a_frame_that_is_not_over_stays_for_the_next_user() -> None:
    async with bridged(frame_silence_us=10_000_000) as run:
        run.board.feed(b"half")
        await wait_all_tasks_blocked()
        await run.registry.devices.remove("b0")
        run.add()
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b"half"


async def test_a_change_in_between_loses_and_repeats_nothing_of_a_frame(
    autojump_clock: MockClock,
) -> None:
    async with bridged(frame_silence_us=1_000_000) as run:
        run.board.feed(b"half")
        await trio.sleep(0.5)
        new = await run.change("board", eager=True)
        new.feed(b" and half")
        await trio.sleep(0.1)
        last = await run.change("user", eager=True)
        await trio.sleep(5)
        assert bytes(run.to_user) == b"half"  # one device's frame does not go on with another's
        assert last.sent == b" and half"


async def test_at_the_end_of_the_service_half_a_frame_is_passed_on() -> None:
    async with bridged(frame_silence_us=10_000_000) as run:
        run.board.feed(b"last words")
        await wait_all_tasks_blocked()
        await run.registry.devices.settle()
        assert bytes(run.to_user) == b"last words"


async def test_frames_are_found_before_they_are_translated(autojump_clock: MockClock) -> None:
    async with bridged(frame_delimiter=r"\r\n", translate_to_peer="lf") as run:
        run.board.feed(b"a\r\nb\r\n")
        await trio.sleep(1)
        assert run.to_user.pieces == [b"a\n", b"b\n"]


# ---------------------------------------------------------------- notices


def notice(text: str) -> bytes:
    return f"\r\n[trio-chardev: {text}]\r\n".encode()


async def test_users_are_told_that_the_device_went_came_and_was_changed() -> None:
    async with bridged(notice=True) as run:
        run.board.feed(b"last")
        await wait_all_tasks_blocked()
        run.board.connect(False)
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b"last" + notice("device gone")
        run.board.connect()
        run.board.feed(b"first")
        await wait_all_tasks_blocked()
        assert run.to_user.endswith(notice("device back") + b"first")
        new = await run.change("board", eager=True)
        new.feed(b"another")
        await wait_all_tasks_blocked()
        assert run.to_user.endswith(notice("backend changed") + b"another")
        assert run.device.info.to_peer.bytes == len(b"lastfirstanother")


async def test_a_change_to_one_where_nobody_is_yet_is_told_and_then_who_comes() -> None:
    async with bridged(notice=True) as run:
        new = await run.change("board", connected=False)
        await wait_all_tasks_blocked()
        new.connect()
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == notice("backend changed") + notice("device back")


async def test_a_change_that_fails_is_not_told() -> None:
    async with bridged(notice=True) as run:
        with pytest.raises(Exception, match="does not open"):
            await run.change("board", opens=False)
        with pytest.raises(Exception, match="does not take its place"):
            await run.change("board", activates=False, connected=False)
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b""


@pytest.mark.parametrize("when_closed", ["drop", "hold"])
async def test_what_nobody_is_there_to_be_told_is_neither_lost_nor_held(when_closed: str) -> None:
    async with bridged(user={"connected": False}, notice=True, when_closed=when_closed) as run:
        run.board.connect(False)
        await wait_all_tasks_blocked()
        run.user.connect()
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b""
        assert run.device.info.to_peer.dropped == 0


async def test_nor_is_one_told_who_may_have_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """He could be told nothing without the loss of a byte that is held for the next one."""
    monkeypatch.setattr(FakePeer, "may_have_left", True)
    async with bridged(notice=True, when_closed="hold") as run:
        run.board.connect(False)
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b""


async def test_a_slow_user_gets_all_of_a_notice() -> None:
    async with bridged(user={}, notice=True) as run:
        run.board.connect(False)
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == notice("device gone")


async def test_a_notice_waits_for_the_last_bytes_though_the_line_is_set_meanwhile() -> None:
    async with bridged(LINED, {**EAGER, "room": 0}, notice=True) as run:
        run.board.feed(b"last")
        await wait_all_tasks_blocked()
        run.board.connect(False)
        await run.registry["board"].line.set(LineSettings(speed=300))
        run.user.make_room(2)
        await wait_all_tasks_blocked()
        run.user.make_room(1000)
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b"last" + notice("device gone")


async def test_without_notice_nothing_is_told() -> None:
    async with bridged() as run:
        run.board.connect(False)
        run.board.connect()
        await run.change("board", eager=True)
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b""


async def test_half_a_frame_comes_before_the_notice_of_its_end() -> None:
    async with bridged(notice=True, frame_silence_us=10_000_000) as run:
        run.board.feed(b"half")
        await wait_all_tasks_blocked()
        run.board.connect(False)
        await wait_all_tasks_blocked()
        assert bytes(run.to_user) == b"half" + notice("device gone")


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"pace_char_us": -1},
            "Property 'bridge.pace-char-us' can't take value '-1': it may be from 0 to 10000000",
        ),
        (
            {"pace_line_ms": 10_001},
            "Property 'bridge.pace-line-ms' can't take value '10001': it may be from 0 to 10000",
        ),
        (
            {"frame_silence_us": -5},
            "Property 'bridge.frame-silence-us' can't take value '-5': it may be from 0 to 10000000",
        ),
        (
            {"frame_delimiter": ""},
            "Property 'bridge.frame-delimiter' has 0 bytes, and may have 1 to 16",
        ),
        (
            {"frame_delimiter": r"\q"},
            r"Property 'bridge.frame-delimiter' has '\q', which is no escape",
        ),
    ],
)
async def test_a_value_that_makes_no_sense_is_refused(options: dict[str, Any], text: str) -> None:
    async with open_fakes(FakeDevice("board"), FakeDevice("user")) as registry:
        with pytest.raises(OptionsError) as caught:
            registry.devices.add(BridgeOptions(chardev="board", peer="user", **options))
        assert str(caught.value) == text
        assert len(registry.devices) == 0
        assert registry["board"].frontends == []
