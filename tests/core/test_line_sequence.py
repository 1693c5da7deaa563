"""Sequences of steps on a line: exact times, all as one, put back when it does not end well."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.steps import steps
from trio_chardev.core.boot_sequences import SEQUENCES, SequenceName
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.handlers import stateless
from trio_chardev.core.line_sequence import MAX_DURATION, MAX_STEPS, LineStep, Plan, plan_of
from trio_chardev.core.runner import CLEANUP_TIMEOUT
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChardevClosedError,
    NotSupportedError,
    OptionsError,
)
from trio_chardev.events import LineSettings, ModemLines
from trio_chardev.testing import CancelAtStep, FakeDevice, FakeLine, open_chardev

DTR, RTS, NONE = ModemLines.DTR, ModemLines.RTS, ModemLines(0)
INPUTS = ModemLines.CTS | ModemLines.DSR


class Timed(list[Any]):
    """Replaces a device's `line_calls`: keeps each call with its time, in microseconds."""

    def append(self, call: Any) -> None:
        super().append((round(trio.current_time() * 1e6), call))


def lined(name: str = "old", **faults: Any) -> FakeDevice:
    return FakeDevice(name, **{"has_line": True, "line": LineSettings(), **faults})


def timed(**faults: Any) -> FakeDevice:
    return lined(line_calls=Timed(), **faults)


# ---------------------------------------------------------------- the plan


def test_the_time_of_each_step_counts_from_the_start() -> None:
    given = [LineStep(dtr=True, pause_us=100), LineStep(pause_us=250), LineStep(speed=300)]
    plan = plan_of(given)
    assert [round(at * 1e6) for at, _ in plan.steps] == [0, 100, 350]
    assert plan.changes == [step.change for step in given]
    assert plan.duration == pytest.approx(350e-6)


def test_it_may_take_as_long_as_it_may() -> None:
    assert isinstance(plan_of([LineStep(pause_us=int(MAX_DURATION * 1e6))]), Plan)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([], "'steps' must have from 1 to 1000 elements"),
        ([LineStep()] * (MAX_STEPS + 1), "'steps' must have from 1 to 1000 elements"),
        ([LineStep(pause_us=-1)], "'pause-us' must not be negative"),
        ([LineStep(pause_us=10_000_001)], "'steps' must not take more than 10 seconds"),
        ([LineStep(speed=0)], "'speed' must be from 1 to 4294967295 bits per second"),
    ],
)
def test_what_makes_no_sense_is_refused(given: list[LineStep], text: str) -> None:
    with pytest.raises(OptionsError) as raised:
        plan_of(given)
    assert str(raised.value) == text


# ---------------------------------------------------------------- times


async def test_each_step_is_done_at_its_time(autojump_clock: MockClock) -> None:
    device = timed(modem=INPUTS)
    async with open_chardev(device) as chardev:
        await chardev.line.run_sequence(
            [
                LineStep(dtr=True, rts=False, pause_us=100_000),
                LineStep(rts=True, pause_us=500),
                LineStep(speed=9600),
                LineStep(speed=115200, pause_us=1),
                LineStep(break_=True, pause_us=2_000_000),
                LineStep(break_=False, dtr=False, pause_us=7),
            ]
        )
        assert round(trio.current_time() * 1e6) == 2_100_508
    assert device.line_calls == [
        (0, DTR),
        (100_000, DTR | RTS),
        (100_500, LineSettings(9600)),
        (100_500, LineSettings()),
        (100_501, True),
        (2_100_501, False),
        (2_100_501, RTS),
    ]


async def test_a_step_that_is_late_makes_none_late_after_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = timed(modem=INPUTS)
    async with open_chardev(device) as chardev:
        line = type(chardev.backend.line)
        set_modem = line.set_modem

        async def set_slowly(its: Any, lines: ModemLines) -> None:
            await set_modem(its, lines)
            await trio.sleep(0.003)

        monkeypatch.setattr(line, "set_modem", set_slowly)
        await chardev.line.run_sequence(
            [
                LineStep(dtr=True, pause_us=1000),
                LineStep(dtr=False, pause_us=9000),
                LineStep(dtr=True),
            ]
        )
    assert device.line_calls == [(0, DTR), (3000, NONE), (10_000, DTR)]


# ---------------------------------------------------------------- all as one


async def test_writes_settings_and_changes_wait_for_its_end(autojump_clock: MockClock) -> None:
    old, new = lined(eager=True, modem=INPUTS), lined("new", eager=True)
    async with open_chardev(old) as chardev:
        frontend = chardev.attach(be_change=stateless)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                chardev.line.run_sequence, [LineStep(dtr=True, pause_us=10**6), LineStep(dtr=False)]
            )
            await wait_all_tasks_blocked(0.01)
            nursery.start_soon(frontend.send_all, b"later")
            nursery.start_soon(frontend.line.set, LineSettings(300))
            nursery.start_soon(chardev.change, new.open)
            await wait_all_tasks_blocked(0.01)
            assert old.line_calls == [DTR]
            assert old.sent == b""
            assert chardev.backend is old.backend
        assert trio.current_time() >= 1
        assert old.line_calls[1:2] == [NONE]
        assert old.sent + new.sent == b"later"
        assert LineSettings(300) in old.line_calls + new.line_calls
        assert chardev.backend is new.backend


async def test_the_state_at_its_end_is_kept_for_later_backends(autojump_clock: MockClock) -> None:
    new = lined("new")
    async with open_chardev(lined(modem=INPUTS | DTR)) as chardev:
        await chardev.line.run_sequence("esp32-boot")
        await chardev.change(new.open)
    assert new.line_calls == [NONE]


# ---------------------------------------------------------------- when it does not end well

SEQUENCE = [
    LineStep(dtr=False, rts=True, pause_us=1000),
    LineStep(dtr=True, rts=False, speed=300, pause_us=1000),
    LineStep(break_=True, pause_us=1000),
    LineStep(dtr=True, rts=True, speed=600),
]


async def check_as_before(device: FakeDevice, chardev: Chardev) -> None:
    assert (device.line, device.modem) == (LineSettings(), INPUTS | DTR)
    assert not (await chardev.line.read()).break_
    assert [call for call in device.line_calls if isinstance(call, bool)][-1:] != [True]
    new = lined("new")
    await chardev.change(new.open)
    assert new.line_calls == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_cancelled_at_every_step_it_puts_the_line_back(when: str) -> None:
    async def once(k: int) -> bool:
        device = lined(modem=INPUTS | DTR)
        scope = trio.CancelScope()
        injector = CancelAtStep(k, when, scope)
        async with open_chardev(device) as chardev:
            trio.lowlevel.add_instrument(injector)
            injector.armed = True
            is_done = False
            with scope:
                await chardev.line.run_sequence(SEQUENCE)
                is_done = True
            trio.lowlevel.remove_instrument(injector)
            if is_done:
                assert (device.line, device.modem) == (LineSettings(600), INPUTS | DTR | RTS)
            else:
                await check_as_before(device, chardev)
        return injector.fired

    for k in steps(1000):
        if not trio.run(once, k, clock=MockClock(autojump_threshold=0)):
            assert k > 10
            break


@pytest.mark.parametrize("refused", [RTS, LineSettings(300), True, LineSettings(600), DTR | RTS])
async def test_a_step_that_is_refused_ends_it_and_puts_the_line_back(
    refused: object, autojump_clock: MockClock
) -> None:
    device = lined(modem=INPUTS | DTR, line_refuses=refused)
    async with open_chardev(device) as chardev:
        with pytest.raises(BackendError, match=r"^old does not take "):
            await chardev.line.run_sequence(SEQUENCE)
        await check_as_before(device, chardev)


async def test_a_step_that_fails_half_way_is_put_back_too(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DTR and RTS are two calls of the kernel."""
    set_modem = FakeLine.set_modem

    async def set_half(line: FakeLine, lines: ModemLines) -> None:
        await set_modem(line, lines)
        if lines == RTS:
            raise BackendError("RTS failed")

    monkeypatch.setattr(FakeLine, "set_modem", set_half)
    device = lined(modem=INPUTS | DTR)
    async with open_chardev(device) as chardev:
        with pytest.raises(BackendError, match=r"^RTS failed$"):
            await chardev.line.run_sequence(SEQUENCE)
        await check_as_before(device, chardev)


async def test_putting_it_back_has_a_deadline(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(line: FakeLine, lines: ModemLines) -> None:
        if lines == DTR:
            await trio.sleep_forever()

    monkeypatch.setattr(FakeLine, "set_modem", hang)
    async with open_chardev(lined(modem=INPUTS | DTR, line_refuses=LineSettings(300))) as chardev:
        with pytest.raises(BackendError):
            await chardev.line.run_sequence([LineStep(rts=True), LineStep(speed=300)])
    assert trio.current_time() == pytest.approx(CLEANUP_TIMEOUT)
    assert caplog.messages == ["fake:old: its line can't be put back in time"]


async def test_what_the_line_lacks_is_refused_before_the_first_step() -> None:
    device = FakeDevice("old")
    async with open_chardev(device) as chardev:
        with pytest.raises(NotSupportedError, match=r"^'fake:old' has no modem lines$"):
            await chardev.line.run_sequence("esp32-boot")


@pytest.mark.parametrize("is_closed", [True, False])
async def test_it_ends_with_the_backend(is_closed: bool, autojump_clock: MockClock) -> None:
    device = lined(modem=INPUTS)
    async with open_chardev(device) as chardev:
        error = ChardevClosedError if is_closed else BackendDisconnectedError
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def run() -> None:
                with pytest.raises(error):
                    await chardev.line.run_sequence(
                        [LineStep(dtr=True, pause_us=10**6), LineStep(speed=300, dtr=False)]
                    )

            await wait_all_tasks_blocked(0.01)
            if is_closed:
                await chardev.aclose()
            else:
                device.dies_after = 0
                device.feed(b"!")
        assert LineSettings(300) not in device.line_calls


# ---------------------------------------------------------------- names


def test_the_names_that_qmp_knows_are_those_of_the_table() -> None:
    assert get_args(SequenceName) == tuple(SEQUENCES)


async def test_a_name_that_is_unknown_is_refused_with_those_that_are() -> None:
    async with open_chardev(lined()) as chardev:
        with pytest.raises(OptionsError, match=r"^there is no sequence 'esp8', only esp32-boot, "):
            await chardev.line.run_sequence("esp8")


def edges(name: str) -> list[tuple[int, object]]:
    """What the lines become when, in milliseconds, and the end."""
    calls = Timed()
    device = lined(line_calls=calls, modem=INPUTS)

    async def run() -> None:
        async with open_chardev(device) as chardev:
            await chardev.line.run_sequence(name)
            calls.append("end")

    trio.run(run, clock=MockClock(autojump_threshold=0))
    return [(at // 1000, call) for at, call in calls]


def lines_of(name: str) -> list[ModemLines]:
    return [call for _, call in edges(name) if isinstance(call, ModemLines)]


@pytest.mark.parametrize(
    ("name", "documented"),
    [
        ("esp32-boot", [(0, DTR | RTS), (0, RTS), (100, DTR), (150, NONE), (150, "end")]),
        ("esp32-boot-classic", [(0, RTS), (100, DTR), (650, NONE), (650, "end")]),
        (
            "esp32-usb-jtag-boot",
            [(100, DTR), (200, DTR | RTS), (200, RTS), (300, NONE), (300, "end")],
        ),
        ("esp32-reset", [(0, RTS), (100, NONE), (100, "end")]),
        ("stm32-boot", [(0, DTR), (100, NONE), (200, "end")]),
        ("stm32-boot-inverted", [(0, DTR | RTS), (100, RTS), (200, "end")]),
        ("stm32-boot-swapped", [(0, RTS), (100, NONE), (200, "end")]),
        ("stm32-reset", [(0, DTR | RTS), (100, RTS), (200, "end")]),
        ("stm32-reset-inverted", [(0, DTR), (100, NONE), (200, "end")]),
        ("stm32-reset-swapped", [(0, DTR | RTS), (100, DTR), (200, "end")]),
    ],
)
def test_each_gives_the_documented_edges(name: str, documented: list[object]) -> None:
    assert edges(name) == documented


def chip_starts_in(name: str, *, reset: ModemLines, boot: ModemLines, boot_when: bool) -> str:
    """Play an STM32 whose NRST is low while *reset* is on; say what it starts when that rises."""
    mode = "nothing"
    for before, after in pairwise(lines_of(name)):
        if reset in before and reset not in after:
            mode = "loader" if (boot in after) is boot_when else "program"
    return mode


@pytest.mark.parametrize(
    ("suffix", "reset", "boot", "boot_when"),
    [("", DTR, RTS, False), ("-inverted", DTR, RTS, True), ("-swapped", RTS, DTR, False)],
)
def test_an_stm32_starts_what_the_name_says(
    suffix: str, reset: ModemLines, boot: ModemLines, boot_when: bool
) -> None:
    for name, mode in (("boot", "loader"), ("reset", "program")):
        started = chip_starts_in(
            f"stm32-{name}{suffix}", reset=reset, boot=boot, boot_when=boot_when
        )
        assert started == mode


def test_an_esp32_starts_what_the_name_says() -> None:
    """IO0 is low by DTR alone, EN by RTS alone; the capacitor at EN makes it rise late."""
    for name, mode in (("boot", "loader"), ("boot-classic", "loader"), ("reset", "program")):
        pairs = pairwise(lines_of(f"esp32-{name}"))
        [after] = [after for before, after in pairs if before == RTS and after != RTS]
        assert ("loader" if after == DTR else "program") == mode
