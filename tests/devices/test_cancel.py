"""Brute force: bytes go both ways while a side, or both, are changed or the bridge is removed.

The task that does that, or the whole service, is cancelled at every scheduler step: no byte is lost
or repeated. By default under one schedule, see `tests.steps`; with the environment variable
TRIO_CHARDEV_SEEDS=N under N of them.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext, suppress
from typing import Any, Literal

import attrs
import pytest
import trio
import trio._core._run as trio_run
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.steps import SEEDS, steps
from trio_chardev.core import look_again
from trio_chardev.core.timer import PreciseTimer
from trio_chardev.devices import shaped
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.devices.table import driver_of
from trio_chardev.errors import ChangeFailedError, ChardevClosedError
from trio_chardev.events import LineSettings
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import CancelAtStep, FakeDevice, FakeOptions, fake_opener

MESSAGE = b"".join(b"<%02d>" % i for i in range(6))
LINE = LineSettings(9600)

trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
scheduler_random = trio_run._r

Act = Literal["change board", "change user", "change both", "remove"]


@attrs.frozen
class Scenario:
    name: str
    act: Act
    old: dict[str, Any] = attrs.Factory(dict)
    new: dict[str, Any] = attrs.Factory(dict)
    refused: bool = False
    target: str = "act"
    after: int = 1
    """Checkpoints before the act."""
    bursts: bool = False
    """What is not taken at once is offered again, see `pour`, each time once."""
    shares: int = 1
    """How many scenarios have the steps of this one by default: they differ by when they begin."""
    shape: dict[str, Any] = attrs.Factory(dict)
    """Options of the bridge that hold bytes back for a while."""

    def __str__(self) -> str:
        return f"{self.act}-{self.name}-{self.target}-{self.after}".replace(" ", "-")


EAGER: dict[str, Any] = {"eager": True}
STUCK: dict[str, Any] = {"stuck": True}
ACTS: tuple[Act, ...] = ("change board", "change user", "change both", "remove")
GULPS: dict[str, Any] = {"eager": True, "gulp": 1}
LINED: dict[str, Any] = {"has_line": True, "eager": True}
SHAPES: dict[str, dict[str, Any]] = {
    "paced": {"pace_char_us": 1000, "translate_to_peer": "crlf"},
    "paced-lines": {"pace_line_ms": 1, "frame_delimiter": ">"},
    "framed": {"frame_silence_us": 1000},
}
SCENARIOS = [
    *(
        Scenario(f"{name}-{speed}", act, old, EAGER, after=4, shape=shape)
        for act in ACTS
        for name, shape in SHAPES.items()
        for speed, old in (("eager", EAGER), ("slow", {}))
    ),
    *(
        Scenario(name, act, old, new)
        for act in ACTS
        for name, old, new in (
            ("eager", EAGER, EAGER),
            ("slow", {}, {}),
            ("from-stuck", STUCK, EAGER),
        )
    ),
    *(
        Scenario("refused", act, LINED, {**LINED, "line_fails": True}, refused=True)
        for act in ACTS[:3]
    ),
    *(
        Scenario("bursts", act, GULPS, GULPS, after=after, bursts=True, shares=3)
        for act in ACTS
        for after in range(1, 7)
    ),
    Scenario("slow", "change both", target="service"),
    Scenario("eager", "remove", EAGER, EAGER, target="service"),
]


class Run:
    """One run, with the cancellation at step *k*."""

    def __init__(self, scenario: Scenario, k: int, when: str) -> None:
        self.scenario = scenario
        self.devices = {
            name: FakeDevice(name, **faults)
            for name, faults in (
                ("board", scenario.old),
                ("user", scenario.old),
                ("new board", scenario.new),
                ("new user", scenario.new),
                ("last board", EAGER),
                ("last user", EAGER),
            )
        }
        self.scopes = {name: trio.CancelScope() for name in ("act", "service")}
        self.injector = CancelAtStep(k, when, self.scopes[scenario.target])

    async def main(self) -> bool:
        """True if step k was reached."""
        trio.lowlevel.add_instrument(self.injector)
        with self.scopes["service"]:
            async with open_registry_with(fake_opener, driver_of) as registry:
                await self.use(registry)
        assert not any(device.is_held_open for device in self.devices.values())
        self.check(is_over=not self.scopes["service"].cancel_called)
        return self.injector.fired

    async def use(self, registry: Registry) -> None:
        for name in ("board", "user"):
            await registry.add(name, FakeOptions(device=self.devices[name]))
        self.add(registry)
        if self.scenario.refused:
            for name in ("board", "user"):
                self.devices[name].say(LINE)
            await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for name in ("board", "user"):
                nursery.start_soon(self.feed, registry, name)
            for _ in range(self.scenario.after):
                await trio.lowlevel.checkpoint()
            self.injector.armed = True
            with self.scopes["act"]:
                await self.act(registry)
            trio.lowlevel.remove_instrument(self.injector)
        await self.settle()
        if "b0" not in registry.devices:
            self.add(registry)
        for name in ("board", "user"):
            last = FakeOptions(device=self.devices[f"last {name}"])
            await registry.change(name, last)
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing moves any more."""
        if self.scenario.shape:
            await trio.sleep(60)
        await wait_all_tasks_blocked()

    def add(self, registry: Registry) -> None:
        options = BridgeOptions(id="b0", chardev="board", peer="user", **self.scenario.shape)
        registry.devices.add(options)

    async def feed(self, registry: Registry, name: str) -> None:
        """Whatever backend is in place has something to be read all the time."""
        for i in range(0, len(MESSAGE), 4):
            device = self.in_place(registry, name)
            device.feed(MESSAGE[i : i + 4])
            await trio.lowlevel.checkpoint()

    def in_place(self, registry: Registry, name: str) -> FakeDevice:
        filename = registry[name].backend.filename
        return self.devices[filename.removeprefix("fake:")]

    async def act(self, registry: Registry) -> None:
        match self.scenario.act:
            case "remove":
                await registry.devices.remove("b0")
            case "change both":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.change, registry, "board")
                    nursery.start_soon(self.change, registry, "user")
            case "change board" | "change user" as act:
                await self.change(registry, act.removeprefix("change "))

    async def change(self, registry: Registry, name: str) -> None:
        expected: list[type[Exception]] = [ChangeFailedError] if self.scenario.refused else []
        if self.scenario.target == "service":
            expected.append(ChardevClosedError)
        with suppress(*expected):
            await registry.change(name, FakeOptions(device=self.devices[f"new {name}"]))

    def check(self, *, is_over: bool) -> None:
        for source, sink in (("board", "user"), ("user", "board")):
            fed = self.of(source, "fed")
            sent = self.of(sink, "sent")
            if is_over:
                assert fed == MESSAGE
                assert sent == MESSAGE, f"{source} to {sink}"
            else:
                assert MESSAGE.startswith(sent)

    def of(self, name: str, what: str) -> bytes:
        """What the backends of chardev *name* were fed, or sent, one after another."""
        return b"".join(
            getattr(self.devices[f"{prefix}{name}"], what) for prefix in ("", "new ", "last ")
        )


def brute_force(scenario: Scenario, seeds: int) -> Counter[bool]:
    fired: Counter[bool] = Counter()
    for when in ("before", "after"):
        for seed in range(seeds):
            for k in steps(10_000, scenario.after, scenario.shares):
                scheduler_random.seed(seed)
                run = Run(scenario, k, when)
                try:
                    was_reached = trio.run(run.main, clock=MockClock(autojump_threshold=0))
                except BaseException as exc:
                    exc.add_note(f"{scenario}: {when} {k=} {seed=}")
                    raise
                fired[was_reached] += 1
                if not was_reached:
                    break
    return fired


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_cancelled_at_every_step_no_byte_is_lost_or_comes_twice(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def tick() -> float:
        nonlocal looks
        looks += 1
        return looks

    if scenario.shape:  # the kernel's timer knows nothing of the clock
        monkeypatch.setattr(shaped, "open_timer", lambda: nullcontext(PreciseTimer(None)))
    if scenario.bursts:
        monkeypatch.setattr(look_again, "perf_counter", tick)
        times = {"BURST": 1.5, "IDLE": 9, "LATE": 9, "QUICKLY": 1e9, "IN_A_ROW": 0}
        for name, value in times.items():
            monkeypatch.setattr(look_again, name, value)
    fired = brute_force(scenario, int(SEEDS or 1))
    assert fired[True] > 3
    assert (looks > 0) == scenario.bursts
