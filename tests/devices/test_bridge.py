"""The bridge: bytes, breaks and lines both ways, while either side is changed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.devices.fakes import Journal, open_fakes
from tests.fakes import FakeLog
from trio_chardev.core.inbox import INBOX_CAPACITY
from trio_chardev.core.line import BREAK_DURATION
from trio_chardev.devices import bridge
from trio_chardev.devices.bridge import Bridge, BridgeOptions
from trio_chardev.devices.flow import Flow
from trio_chardev.devices.pour import Pour
from trio_chardev.errors import BackendError, ChangeFailedError, ChardevBusyError, OptionsError
from trio_chardev.events import BreakState, Event, LineSettings, ModemLines
from trio_chardev.notices import DeviceDeleted
from trio_chardev.registry import Registry
from trio_chardev.testing import FakeDevice, FakeOptions

LINE = LineSettings(9600, parity="E")


class Bridged:
    """A bridge between two fakes."""

    def __init__(self, registry: Registry, board: FakeDevice, user: FakeDevice) -> None:
        self.registry = registry
        self.board = board
        self.user = user
        self.device: Bridge

    def add(self, **options: Any) -> None:
        options = {"id": "b0", "chardev": "board", "peer": "user", **options}
        device = self.registry.devices.add(BridgeOptions(**options))
        assert isinstance(device, Bridge)
        self.device = device

    async def change(self, id: str, new: FakeDevice) -> None:
        await self.registry.change(id, FakeOptions(device=new))


@asynccontextmanager
async def bridged(
    board: dict[str, Any] | None = None, user: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Bridged]:
    """*board* and *user* are what is not as usual with the fakes."""
    both = FakeDevice("board", **(board or {})), FakeDevice("user", **(user or {}))
    async with open_fakes(*both) as registry:
        run = Bridged(registry, *both)
        run.add(**options)
        yield run


EAGER: dict[str, Any] = {"eager": True}
LINED: dict[str, Any] = {"has_line": True}


@pytest.mark.parametrize("board", [{}, EAGER, {**EAGER, "room": 3}])
@pytest.mark.parametrize("user", [{}, EAGER])
async def test_bytes_go_both_ways(board: dict[str, Any], user: dict[str, Any]) -> None:
    async with bridged(board, user) as run:
        run.board.feed(b"from the board")
        run.user.feed(b"from the user")
        await wait_all_tasks_blocked()
        if run.board.room == 0:
            assert run.board.sent == b"fro"
            run.board.make_room(100)
            await wait_all_tasks_blocked()
        assert run.user.sent == b"from the board"
        assert run.board.sent == b"from the user"
        info = run.device.info
        assert (info.to_peer.bytes, info.to_chardev.bytes) == (14, 13)
        assert (info.to_peer.dropped, info.to_chardev.dropped) == (0, 0)


async def test_what_a_chardev_had_received_before_goes_over() -> None:
    board, user = FakeDevice("board"), FakeDevice("user")
    async with open_fakes(board, user) as registry:
        board.feed(b"early")
        await wait_all_tasks_blocked()
        Bridged(registry, board, user).add()
        await wait_all_tasks_blocked()
        assert user.sent == b"early"


async def test_a_side_that_does_not_read_slows_the_other() -> None:
    async with bridged(user={"stuck": True}) as run:
        run.board.feed(bytes(3 * INBOX_CAPACITY))
        await wait_all_tasks_blocked()
        assert run.board.unread == 2 * INBOX_CAPACITY
        run.user.feed(b"the other way is free")
        await wait_all_tasks_blocked()
        assert run.board.sent == b"the other way is free"


# ---------------------------------------------------------------- nobody there


async def test_bytes_to_nobody_are_dropped_and_counted() -> None:
    async with bridged(user={"connected": False}) as run:
        state = run.device.info.state
        assert state == "peer-closed"
        run.board.feed(b"into the air")
        await wait_all_tasks_blocked()
        run.user.connect()
        run.board.feed(b"heard")
        await wait_all_tasks_blocked()
        assert run.user.sent == b"heard"
        assert run.device.info.to_peer == bridge.FlowInfo(5, 12, queued=0, failures=0)
        state = run.device.info.state
        assert state == "open"


async def test_or_they_are_held() -> None:
    async with bridged(user={"connected": False}, when_closed="hold") as run:
        run.board.feed(b"patience ")
        await wait_all_tasks_blocked()
        run.board.feed(b"pays")
        await wait_all_tasks_blocked()
        assert run.user.sent == b""
        run.user.connect()
        await wait_all_tasks_blocked()
        assert run.user.sent == b"patience pays"
        assert run.device.info.to_peer == bridge.FlowInfo(13, 0, queued=0, failures=0)


@pytest.mark.parametrize("eager", [False, True])
async def test_a_log_has_what_is_held_once_however_often_it_is_tried(eager: bool) -> None:
    async with bridged(user={"connected": False, "eager": eager}, when_closed="hold") as run:
        log = FakeLog(run.user)
        for piece in (b"patience ", b"pays"):
            run.board.feed(piece)
            await wait_all_tasks_blocked()
        for _ in range(3):
            run.user.connect()
            run.user.connect(False)
            await wait_all_tasks_blocked()
        run.user.connect()
        await wait_all_tasks_blocked()
        assert log.data == run.user.sent == b"patience pays"


@pytest.mark.parametrize("eager", [False, True])
async def test_a_log_has_what_is_dropped_once(eager: bool) -> None:
    async with bridged(user={"connected": False, "eager": eager}) as run:
        log = FakeLog(run.user)
        for piece in (b"nobody ", b"hears"):
            run.board.feed(piece)
            await wait_all_tasks_blocked()
        run.user.connect()
        run.board.feed(b" this")
        await wait_all_tasks_blocked()
        assert log.data == b"nobody hears this"
        assert run.user.sent == b" this"


@pytest.mark.parametrize("when_closed", ["drop", "hold"])
async def test_a_log_has_once_what_a_sink_took_in_part_before_it_was_gone(
    when_closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was tried by the one who brought it, by who pours, and by the flow's task."""
    async with bridged(EAGER, {**EAGER, "room": 2}, when_closed=when_closed) as run:
        log = FakeLog(run.user)
        monkeypatch.setattr(Pour, "send_rest", lambda self, rest: 0)
        run.board.feed(b"cut")
        await wait_all_tasks_blocked()
        assert bytes(run.user.sent) == log.data == b"cu"
        run.user.connect(False)
        run.user.make_room(100)
        await wait_all_tasks_blocked()
        assert log.data == (b"cu" if when_closed == "hold" else b"cut")
        run.user.connect()
        run.board.feed(b"!")
        await wait_all_tasks_blocked()
        assert log.data == b"cut!"
        assert bytes(run.user.sent) == (b"cut!" if when_closed == "hold" else b"cu!")


@pytest.mark.parametrize("when_closed", ["drop", "hold"])
async def test_a_log_has_once_what_an_error_kept_from_a_sink(
    when_closed: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bridged(EAGER, EAGER, when_closed=when_closed) as run:
        log = FakeLog(run.user)

        def fail(data: memoryview) -> int:
            raise BackendError("no space left")

        monkeypatch.setattr(run.user.backend, "send_nowait", fail)
        run.board.feed(b"x")
        await trio.sleep(5)
        assert log.data == b""  # it is open, so it may still take it
        monkeypatch.undo()
        await trio.sleep(5)
        assert log.data == b"x"


async def test_what_is_held_for_a_side_goes_to_it_though_its_own_bytes_are_held_too() -> None:
    """That it has opened stands behind them in its queue."""
    async with bridged(EAGER, EAGER, when_closed="hold") as run:
        run.user.connect(False)
        run.board.connect(False)
        run.board.feed(b"from the board")
        run.user.feed(b"from the user")
        await wait_all_tasks_blocked()
        run.board.connect()
        await wait_all_tasks_blocked()
        assert run.board.sent == b"from the user"
        assert run.user.sent == b""
        run.user.connect()
        await wait_all_tasks_blocked()
        assert run.user.sent == b"from the board"


async def test_what_is_held_is_bounded() -> None:
    async with bridged(user={"connected": False}, when_closed="hold") as run:
        run.board.feed(bytes(3 * INBOX_CAPACITY))
        await wait_all_tasks_blocked()
        assert run.board.unread == 2 * INBOX_CAPACITY


async def test_the_state_tells_who_is_there() -> None:
    async with bridged() as run:
        states = []
        for board, user in ((True, True), (True, False), (False, True), (False, False)):
            run.board.connect(board)
            run.user.connect(user)
            states.append(run.device.info.state)
        assert states == ["open", "peer-closed", "chardev-closed", "closed"]


@pytest.mark.parametrize("when_closed", ["drop", "hold"])
async def test_a_backend_that_is_broken_is_told_of_once(
    when_closed: str,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is open, so the bytes are tried again, with drop, too."""
    async with bridged(EAGER, EAGER, when_closed=when_closed) as run:
        assert run.user.backend is not None

        def fail(data: memoryview) -> int:
            raise BackendError("no space left")

        monkeypatch.setattr(run.user.backend, "send_nowait", fail)
        for _ in range(3):
            run.board.feed(b"x")
            await trio.sleep(5)
        assert caplog.messages == ["chardev 'user': no space left"]
        monkeypatch.undo()
        await trio.sleep(5)
        assert bytes(run.user.sent) == b"xxx"
        assert run.device.info.to_peer.dropped == 0
        monkeypatch.setattr(run.user.backend, "send_nowait", fail)
        run.board.feed(b"x")
        await trio.sleep(5)
        assert caplog.messages == ["chardev 'user': no space left"] * 2  # it is another time
        run.user.connect(False)
        await trio.sleep(5)
        assert run.device.info.to_peer.dropped == (1 if when_closed == "drop" else 0)


# ---------------------------------------------------------------- breaks and lines


async def test_a_break_keeps_its_place_among_the_bytes(autojump_clock: MockClock) -> None:
    async with bridged(user={**EAGER, **LINED}) as run:
        journal = Journal(run.user)
        run.board.feed(b"12")
        await wait_all_tasks_blocked()
        run.board.say(Event.BREAK)
        run.board.feed(b"34")
        await trio.sleep(1)
        assert journal == [(BREAK_DURATION, b"12")]
        assert run.user.sent == b"1234"


async def test_a_break_waits_for_bytes_that_wait(autojump_clock: MockClock) -> None:
    async with bridged(user={**EAGER, **LINED, "room": 1}) as run:
        journal = Journal(run.user)
        run.board.feed(b"12")
        await wait_all_tasks_blocked()
        run.board.say(Event.BREAK)
        run.board.feed(b"34")
        await trio.sleep(1)
        assert journal == []
        run.user.make_room(10)
        await trio.sleep(1)
        assert journal == [(BREAK_DURATION, b"12")]
        assert run.user.sent == b"1234"


async def test_line_settings_and_modem_lines_go_over_in_order() -> None:
    async with bridged(board=LINED) as run:
        journal = Journal(run.board)
        run.user.feed(b"1")
        await wait_all_tasks_blocked()
        run.user.say(LINE)
        run.user.say(ModemLines.RTS)
        run.user.feed(b"2")
        await wait_all_tasks_blocked()
        assert journal == [(LINE, b"1"), (ModemLines.RTS | ModemLines.CTS, b"1")]
        assert run.board.sent == b"12"
        assert run.device.info.to_chardev.line == "9600 8E1"


async def test_inputs_of_one_side_become_outputs_of_the_other() -> None:
    async with bridged(user=LINED) as run:
        run.board.say(ModemLines.DSR)
        run.board.say(ModemLines.CAR)
        await wait_all_tasks_blocked()
        assert run.user.line_calls == [ModemLines.DSR | ModemLines.DTR, ModemLines.CAR]


async def test_what_a_side_cannot_do_is_left_out() -> None:
    async with bridged() as run:
        for event in (Event.BREAK, LINE, ModemLines.RTS):
            run.user.say(event)
        run.user.feed(b"and on it goes")
        await wait_all_tasks_blocked()
        assert run.board.sent == b"and on it goes"


async def test_settings_that_are_refused_are_told_of_and_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with bridged(board={**LINED, "line_fails": True}) as run:
        run.user.say(LINE)
        await wait_all_tasks_blocked()
        assert caplog.messages == ["chardev 'board': board does not take 9600 8E1"]
        assert run.device.info.to_chardev.line is None
        new = FakeDevice("new", **LINED)
        await run.change("board", new)
        assert new.line_calls == []


async def test_a_flood_of_breaks_is_bounded(autojump_clock: MockClock) -> None:
    async with bridged(user=LINED) as run:
        for speed in range(1000):
            run.board.say(Event.BREAK)
            run.board.say(LineSettings(speed))
        await trio.sleep(1000)
        assert 10 < len(run.user.line_calls) < 100
        assert run.user.line_calls[-1] == LineSettings(999)


# ---------------------------------------------------------------- changes


async def test_a_new_backend_is_set_as_the_old_one_was_before_the_commit() -> None:
    async with bridged(board=LINED) as run:
        run.user.say(LINE)
        run.user.say(ModemLines.DTR)
        await wait_all_tasks_blocked()
        new = FakeDevice("new", **LINED)
        await run.change("board", new)
        assert new.line_calls == [LINE, ModemLines.DTR | ModemLines.DSR]
        run.user.feed(b"x")
        await wait_all_tasks_blocked()
        assert new.sent == b"x"


async def test_if_it_refuses_the_change_unwinds() -> None:
    async with bridged(board=LINED) as run:
        run.user.say(LINE)
        await wait_all_tasks_blocked()
        with pytest.raises(
            ChangeFailedError, match=r"^Chardev 'board' change failed: new does not take 9600 8E1$"
        ):
            await run.change("board", FakeDevice("new", line_fails=True, **LINED))
        assert run.board.line_calls == [LINE, LINE]
        run.user.feed(b"x")
        await wait_all_tasks_blocked()
        assert run.board.sent == b"x"


async def test_one_without_a_line_is_taken_and_the_next_is_set_again() -> None:
    async with bridged(board=LINED) as run:
        run.user.say(LINE)
        await wait_all_tasks_blocked()
        await run.change("board", FakeDevice("plain"))
        new = FakeDevice("new", **LINED)
        await run.change("board", new)
        assert new.line_calls == [LINE]


async def test_what_was_set_last_counts_whether_by_the_bridge_or_by_others() -> None:
    async with bridged(board=LINED) as run:
        run.user.say(LINE)
        await wait_all_tasks_blocked()
        await run.registry["board"].line.set(LineSettings(300))
        first, second = FakeDevice("first", **LINED), FakeDevice("second", **LINED)
        await run.change("board", first)
        run.user.say(LINE)
        await wait_all_tasks_blocked()
        await run.change("board", second)
        assert first.line_calls == [LineSettings(300), LINE]
        assert second.line_calls == [LINE]


async def test_what_it_has_set_outlives_it_but_for_a_break() -> None:
    """Whoever has turned the break on can't turn it off any more."""
    async with bridged(board=LINED) as run:
        run.user.say(LINE)
        run.user.say(BreakState(True))
        await wait_all_tasks_blocked()
        await run.registry.devices.remove("b0")
        assert run.board.line_calls == [LINE, True, False]
        new = FakeDevice("new", **LINED)
        await run.change("board", new)
        assert new.line_calls == [LINE]


async def test_bytes_that_a_stuck_side_has_not_taken_go_to_its_next_backend() -> None:
    async with bridged(user={"stuck": True}) as run:
        run.board.feed(b"onward")
        await wait_all_tasks_blocked()
        new = FakeDevice("new")
        await run.change("user", new)
        await wait_all_tasks_blocked()
        assert not run.user.sent
        assert new.sent == b"onward"


async def test_bytes_that_are_held_go_to_the_next_backend() -> None:
    async with bridged(user={"connected": False}, when_closed="hold") as run:
        run.board.feed(b"onward")
        await wait_all_tasks_blocked()
        new = FakeDevice("new", **EAGER)
        await run.change("user", new)
        await wait_all_tasks_blocked()
        assert new.sent == b"onward"


async def test_a_source_that_changes_while_its_bytes_are_being_sent_loses_and_repeats_none() -> (
    None
):
    """The sink takes them while the source is held, so that they could not be taken back."""
    async with bridged(user=EAGER) as run:
        run.user.room = 0
        run.board.feed(b"123456789")
        await wait_all_tasks_blocked()
        new = FakeDevice("new", opens_late=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run.change, "board", new)
            await wait_all_tasks_blocked()
            run.user.make_room(4)
            await wait_all_tasks_blocked()
            run.board.feed(b"abc")
            run.user.make_room(100)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert run.user.sent == b"123456789abc"


# ---------------------------------------------------------------- the device


async def test_a_chardev_is_not_bridged_with_itself() -> None:
    async with open_fakes(FakeDevice("board")) as registry:
        with pytest.raises(
            OptionsError,
            match=r"^Property 'bridge.peer' can't take value 'board': it is the bridge's other side$",
        ):
            registry.devices.add(BridgeOptions(chardev="board", peer="board"))
        assert registry["board"].frontends == []


async def test_a_peer_that_is_in_use_leaves_the_chardev_free() -> None:
    async with open_fakes(FakeDevice("board"), FakeDevice("user")) as registry:
        registry["user"].attach()
        with pytest.raises(
            ChardevBusyError,
            match=r"^Property 'bridge.peer' can't take value 'user': Device 'user' is in use$",
        ):
            registry.devices.add(BridgeOptions(chardev="board", peer="user"))
        assert registry["board"].frontends == []
        assert len(registry.devices) == 0


async def test_a_bug_ends_the_bridge_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    notices: list[object] = []
    async with bridged() as run:
        run.registry.on_notice = notices.append

        def fail(flow: Flow, event: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(Flow, "control", fail)
        with caplog.at_level(logging.ERROR):
            run.board.say(Event.BREAK)
            await run.device.closed.wait()
        (record,) = caplog.records
        assert record.getMessage() == "chardev 'board': on_event failed; it is detached"
        assert list(run.registry.devices) == []
        assert notices[-1] == DeviceDeleted("b0", "/machine/peripheral/b0")
        assert run.registry["user"].frontends == []
        run.add()  # and all can begin anew
        run.board.feed(b"x")
        await wait_all_tasks_blocked()
        assert run.user.sent == b"x"
