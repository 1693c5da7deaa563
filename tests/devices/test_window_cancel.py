"""Brute force: a side of a bridge is changed while the users' window is resized.

The task that changes, or the whole service, is cancelled at every scheduler step: the device in
place has been told the size of the users' window last. With TRIO_CHARDEV_SEEDS=N under N schedules.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
import trio._core._run as trio_run
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.devices.fakes import open_fakes
from tests.steps import SEEDS, steps
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.errors import ChardevClosedError
from trio_chardev.events import WindowSize
from trio_chardev.testing import CancelAtStep, FakeDevice, FakeOptions

trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
scheduler_random = trio_run._r

LINED: dict[str, Any] = {"has_line": True}
FIRST, NEW = WindowSize(80, 24), WindowSize(132, 43)
RESIZES = 5


class Run:
    """One run, with the cancellation at step *k*."""

    def __init__(self, name: str, k: int, when: str, *, is_stuck: bool, target: str) -> None:
        self.name = name
        self.is_stuck = is_stuck
        self.devices = {
            "board": FakeDevice("board", **LINED, stuck=is_stuck),
            "user": FakeDevice("user"),
        }
        self.new = FakeDevice("new", **LINED)
        self.scopes = {name: trio.CancelScope() for name in ("change", "service")}
        self.injector = CancelAtStep(k, when, self.scopes[target])

    async def main(self) -> bool:
        """True if step k was reached."""
        trio.lowlevel.add_instrument(self.injector)
        with self.scopes["service"]:
            async with open_fakes(*self.devices.values()) as registry:
                registry.devices.add(BridgeOptions(chardev="board", peer="user"))
                self.devices["user"].feed(b"typed")
                self.devices["user"].say(FIRST)
                await wait_all_tasks_blocked()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.resize)
                    self.injector.armed = True
                    with self.scopes["change"], suppress(ChardevClosedError):
                        await registry.change(self.name, FakeOptions(device=self.new))
                    self.injector.armed = False
                await wait_all_tasks_blocked()
                is_changed = registry[self.name].backend.filename == "fake:new"
                if self.is_stuck:  # what it was to be told comes after the bytes that it takes
                    last = FakeDevice("last", **LINED)
                    await registry.change("board", FakeOptions(device=last))
                    await wait_all_tasks_blocked()
                    self.check(last, is_changed=is_changed)
                elif is_changed and self.name == "board":
                    self.check(self.new, is_changed=is_changed)
                else:
                    self.check(self.devices["board"], is_changed=is_changed)
        assert not any(device.is_held_open for device in (*self.devices.values(), self.new))
        return self.injector.fired

    async def resize(self) -> None:
        """Old users go on to resize their window, and new ones have theirs from the beginning."""
        for n in range(RESIZES):
            self.devices["user"].say(WindowSize(100 + n, 30))
            if self.name == "user" and self.new.backend is not None:
                self.new.say(NEW)
            await trio.lowlevel.checkpoint()

    def check(self, board: FakeDevice, *, is_changed: bool) -> None:
        last = WindowSize(100 + RESIZES - 1, 30)
        assert board.line_calls[-1] == (NEW if is_changed and self.name == "user" else last)


@pytest.mark.parametrize("target", ["change", "service"])
@pytest.mark.parametrize("is_stuck", [False, True], ids=["", "stuck"])
@pytest.mark.parametrize("name", ["board", "user"])
def test_cancelled_at_every_step_the_device_in_place_has_the_last_size(
    name: str, is_stuck: bool, target: str
) -> None:
    fired = 0
    for when in ("before", "after"):
        for seed in range(int(SEEDS or 1)):
            for k in steps(10_000):
                scheduler_random.seed(seed)
                run = Run(name, k, when, is_stuck=is_stuck, target=target)
                try:
                    was_reached = trio.run(run.main, clock=MockClock(autojump_threshold=0))
                except BaseException as exc:
                    exc.add_note(f"{when} {k=} {seed=}")
                    raise
                fired += was_reached
                if not was_reached:
                    break
    assert fired > 3
