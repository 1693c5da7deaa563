"""The line of a chardev: what was set of it survives a change, and a part is set as one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.steps import steps
from trio_chardev.core.controls import Controls
from trio_chardev.core.handlers import stateless
from trio_chardev.core.line_change import LineChange, LineState
from trio_chardev.core.tap import Tap
from trio_chardev.errors import (
    BackendError,
    ChangeFailedError,
    ChardevClosedError,
    NotSupportedError,
    OptionsError,
    WriteInChangeError,
)
from trio_chardev.events import LineSettings, ModemLines, Purge
from trio_chardev.testing import CancelAtStep, FakeDevice, FakeLine, open_chardev

DTR, RTS = ModemLines.DTR, ModemLines.RTS
INPUTS = ModemLines.CTS | ModemLines.DSR
SLOW = LineSettings(9600)


def lined(name: str = "old", **faults: Any) -> FakeDevice:
    return FakeDevice(name, **{"has_line": True, "line": LineSettings(), **faults})


# ---------------------------------------------------------------- what was set is kept


@pytest.mark.parametrize("has_user", [False, True])
async def test_a_new_backend_is_set_as_the_old_one_was(has_user: bool) -> None:
    new = lined("new")
    async with open_chardev(lined()) as chardev:
        if has_user:
            chardev.attach(be_change=stateless)
        await chardev.line.set(SLOW)
        await chardev.line.set_modem(DTR)
        await chardev.line.set_break(True)
        await chardev.change(new.open)
    assert new.line_calls == [SLOW, DTR, True]


async def test_a_break_that_is_sent_is_noted_by_the_taps() -> None:
    notes: list[str] = []

    class Notes(Tap):
        def note(self, text: str) -> None:
            notes.append(text)

    async with open_chardev(lined()) as chardev:
        chardev.backend.taps = (Notes(),)
        await chardev.line.send_break(0.1)
        await chardev.line.set_break(True)
        await chardev.line.set_break(False)
    assert notes == ["BREAK sent", "BREAK on", "BREAK off"]


async def test_what_the_new_backend_lacks_is_left_out_and_kept_for_the_next() -> None:
    new = lined("new")
    async with open_chardev(lined()) as chardev:
        await chardev.line.set(SLOW)
        await chardev.line.set_modem(DTR)
        await chardev.line.set_break(True)
        await chardev.change(FakeDevice("plain").open)
        await chardev.change(new.open)
    assert new.line_calls == [SLOW, DTR, True]


async def test_a_purge_leaves_nothing_behind() -> None:
    new = lined("new")
    async with open_chardev(lined()) as chardev:
        await chardev.line.set(SLOW)
        await chardev.line.purge(Purge.RECEIVE)
        await chardev.change(new.open)
    assert new.line_calls == [SLOW]


async def test_who_is_detached_can_neither_set_nor_keep() -> None:
    async with open_chardev(lined()) as chardev:
        frontend = chardev.attach()
        line = frontend.line
        frontend.detach()
        with pytest.raises(trio.ClosedResourceError):
            await line.set(SLOW)
        with pytest.raises(trio.ClosedResourceError):
            line.keep(SLOW)
        assert chardev.line.kept.settings is None


async def test_what_was_not_set_is_left_to_the_new_backend() -> None:
    new = lined("new")
    async with open_chardev(lined()) as chardev:
        await chardev.line.set_break(True)
        await chardev.line.set_break(False)
        await chardev.change(new.open)
    assert new.line_calls == []


async def test_users_set_up_the_new_backend_after_that_so_theirs_holds() -> None:
    new = lined("new")

    async def be_change(backend: Controls) -> None:
        await backend.line.set(LineSettings(300))

    async with open_chardev(lined()) as chardev:
        chardev.attach(be_change=be_change)
        await chardev.line.set(SLOW)
        await chardev.change(new.open)
    assert new.line_calls == [SLOW, LineSettings(300)]


async def test_one_that_refuses_is_not_taken_and_the_original_is_as_it_was() -> None:
    old = lined()
    async with open_chardev(old) as chardev:
        await chardev.line.set(SLOW)
        text = r"^Chardev 'serial0' change failed: new does not take 9600 8N1$"
        with pytest.raises(ChangeFailedError, match=text):
            await chardev.change(lined("new", line_fails=True).open)
        assert chardev.backend is old.backend
        assert old.line == SLOW
    assert old.line_calls == [SLOW, SLOW], "the two may have had one line: it is set again"


async def test_a_change_that_fails_has_the_users_set_up_the_original_after_the_line() -> None:
    old, new = lined(), FakeDevice("new", activates=False)

    async def be_change(backend: Controls) -> None:
        with suppress(NotSupportedError):
            await backend.line.set(LineSettings(300))

    async with open_chardev(old) as chardev:
        chardev.attach(be_change=be_change)
        await chardev.line.set(SLOW)
        with pytest.raises(BackendError, match="does not take its place"):
            await chardev.change(new.open)
        assert old.line_calls == [SLOW, SLOW, LineSettings(300)]


async def test_a_change_that_fails_touches_no_line_that_nobody_has_set() -> None:
    old = lined()
    async with open_chardev(old) as chardev:
        with pytest.raises(BackendError, match="does not take its place"):
            await chardev.change(FakeDevice("new", activates=False).open)
    assert old.line_calls == []


async def test_what_is_refused_is_not_kept() -> None:
    new = lined("new")
    async with open_chardev(lined(line_fails=True)) as chardev:
        with pytest.raises(BackendError):
            await chardev.line.set(SLOW)
        await chardev.change(new.open)
    assert new.line_calls == []


async def test_what_the_backend_lacks_is_kept_for_the_next_one_if_asked_for() -> None:
    new = lined("new")
    async with open_chardev(FakeDevice("old")) as chardev:
        for is_kept in (False, True):
            with pytest.raises(NotSupportedError):
                await chardev.line.set(SLOW)
            assert (chardev.line.kept.settings == SLOW) is is_kept
            chardev.line.keep(SLOW)
        await chardev.change(new.open)
    assert new.line_calls == [SLOW]


async def test_what_comes_to_be_wanted_during_the_change_is_set_too() -> None:
    """As by a user whose old backend has just died."""
    new = lined("new")
    async with open_chardev(FakeDevice("old")) as chardev:

        async def be_change(backend: Controls) -> None:
            chardev.line.keep(SLOW)

        chardev.attach(be_change=be_change)
        await chardev.change(new.open)
    assert new.line_calls == [SLOW]


async def test_closing_the_chardev_ends_a_change_whose_new_line_hangs(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def hang(line: FakeLine, settings: LineSettings) -> None:
        await trio.sleep_forever()

    async with open_chardev(lined()) as chardev:
        await chardev.line.set(SLOW)
        monkeypatch.setattr(FakeLine, "set", hang)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def change() -> None:
                with pytest.raises(ChardevClosedError):
                    await chardev.change(lined("new").open)

            await wait_all_tasks_blocked()
            await chardev.aclose()


async def test_it_can_be_set_by_others_than_the_user_but_not_in_be_change() -> None:
    old = lined()
    async with open_chardev(old) as chardev:

        async def be_change(backend: Controls) -> None:
            await chardev.line.change(LineChange(speed=9600))

        chardev.attach(be_change=be_change)
        await chardev.line.set(SLOW)
        with pytest.raises(ChangeFailedError) as raised:
            await chardev.change(lined("new").open)
        assert isinstance(raised.value.__cause__, WriteInChangeError)


async def test_a_closed_chardev_has_no_line() -> None:
    async with open_chardev(lined()) as chardev:
        await chardev.aclose()
        with pytest.raises(ChardevClosedError):
            await chardev.line.change(LineChange(speed=9600))


# ---------------------------------------------------------------- a part is set as one


async def test_only_what_is_named_changes() -> None:
    old = lined(line=LineSettings(300, 7, "E", 2, True, False), modem=INPUTS | RTS)
    async with open_chardev(old) as chardev:
        await chardev.line.change(LineChange(speed=9600))
        await chardev.line.change(LineChange(dtr=True))
        await chardev.line.change(LineChange(flow="rtscts"))
        await chardev.line.change(LineChange(break_=True))
    assert old.line_calls == [
        LineSettings(9600, 7, "E", 2, True, False),
        DTR | RTS,
        LineSettings(9600, 7, "E", 2, False, True),
        True,
    ]


async def test_what_is_in_force_is_not_touched_but_kept_from_now_on() -> None:
    old, new = lined(modem=INPUTS | DTR), lined("new")
    async with open_chardev(old) as chardev:
        await chardev.line.change(LineChange(speed=115200, dtr=True, rts=False, break_=False))
        assert old.line_calls == []
        await chardev.change(new.open)
    assert new.line_calls == [LineSettings(), DTR]


@pytest.mark.parametrize("refused", [LineSettings(9600), DTR | RTS, True])
async def test_if_something_is_refused_nothing_has_changed(refused: object) -> None:
    old, new = lined(line_refuses=refused, modem=INPUTS | RTS), lined("new")
    async with open_chardev(old) as chardev:
        with pytest.raises(BackendError, match=r"^old does not take "):
            await chardev.line.change(LineChange(speed=9600, dtr=True, break_=True))
        assert (old.line, old.modem) == (LineSettings(), INPUTS | RTS)
        assert old.line_calls[-1:] != [True]
        await chardev.change(new.open)
    assert new.line_calls == []


async def test_what_the_line_lacks_is_refused_before_anything_is_set() -> None:
    async with open_chardev(FakeDevice("old", has_line=True)) as chardev:
        with pytest.raises(NotSupportedError, match=r"^'fake:old' has no line settings$"):
            await chardev.line.change(LineChange(speed=9600, break_=True))


@pytest.mark.parametrize("speed", [0, -1, 1 << 32])
async def test_a_speed_that_no_line_has_is_refused(speed: int) -> None:
    async with open_chardev(lined()) as chardev:
        with pytest.raises(OptionsError, match=r"^'speed' must be from 1 to 4294967295 bits"):
            await chardev.line.change(LineChange(speed=speed))


@pytest.mark.parametrize("when", ["before", "after"])
def test_cancelled_at_every_step_it_is_set_whole_or_not_at_all(when: str) -> None:
    async def once(k: int) -> bool:
        old = lined(modem=INPUTS | RTS)
        scope = trio.CancelScope()
        injector = CancelAtStep(k, when, scope)
        async with open_chardev(old) as chardev:
            trio.lowlevel.add_instrument(injector)
            injector.armed = True
            is_set = False
            with scope:
                await chardev.line.change(LineChange(speed=9600, dtr=True, rts=False, break_=True))
                is_set = True
            trio.lowlevel.remove_instrument(injector)
            state = await chardev.line.read()
        if is_set:
            assert (state.speed, state.dtr, state.rts, state.break_) == (9600, True, False, True)
        else:
            assert (state.speed, state.dtr, state.rts, state.break_) == (115200, False, True, False)
            assert old.line_calls[-1:] != [True]
        return injector.fired

    for k in steps(1000):
        if not trio.run(once, k):
            assert k > 3
            break


# ---------------------------------------------------------------- what it is like


async def test_its_state_is_read_as_one() -> None:
    old = lined(line=LineSettings(300, 7, "E", 2, False, True), modem=ModemLines.CAR | RTS)
    async with open_chardev(old) as chardev:
        await chardev.line.set_break(True)
        assert await chardev.line.read() == LineState(
            speed=300,
            data_bits=7,
            parity="E",
            stop_bits=2,
            flow="rtscts",
            dtr=False,
            rts=True,
            cts=False,
            dsr=False,
            dcd=True,
            ri=False,
            break_=True,
            supported=("settings", "modem", "break"),
        )


async def test_the_break_is_right_after_a_change_of_backend() -> None:
    async with open_chardev(lined()) as chardev:
        await chardev.line.set_break(True)
        await chardev.change(FakeDevice("plain").open)
        assert await chardev.line.read() == LineState(
            supported=(), missing=("break", "modem", "purge", "settings")
        )
        await chardev.change(lined("new").open)
        assert (await chardev.line.read()).break_ is True
