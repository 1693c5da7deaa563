"""Brute force: cancel at every scheduler step, then check what is in place.

By default under one schedule, see `tests.steps`; with the environment variable
TRIO_CHARDEV_SEEDS=N before and after each step of N of them (`just brute-force`).

Time passes only when nobody has anything to do: a machine that stands still for 0.2 s would cut off
what an old backend still has to say (`drain_timeout`).
"""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from typing import Any

import attrs
import pytest
import trio
import trio._core._run as trio_run
from trio.lowlevel import checkpoint
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.steps import SEEDS, steps
from trio_chardev.core import look_again
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.frontend import Frontend
from trio_chardev.errors import (
    BackendError,
    ChangeFailedError,
    ChardevClosedError,
    ChardevError,
)
from trio_chardev.events import Event
from trio_chardev.testing import CancelAtStep, FakeDevice, FakeFrontend

SCHEDULES = list(itertools.product(("before", "after"), range(int(SEEDS or 1))))
MESSAGE = b"<000><001><002><003><004>"  # two bytes at a time, it takes longer than a change

# A schedule is a seed: what pytest-trio does for hypothesis.
trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
scheduler_random = trio_run._r


@attrs.frozen
class Scenario:
    name: str
    old: dict[str, Any] = attrs.Factory(dict)  # faults of the original device
    new: dict[str, Any] = attrs.Factory(dict)  # faults of the new one
    refuse: bool = False
    raises: type[Exception] | None = None  # what change() raises, if not Cancelled
    surely: bool = True  # False: it may also come out well
    has_frontend: bool = True
    carry: bool = False
    target: str = "change"  # whom the injector cancels: "change", "write" or "service"

    def __str__(self) -> str:
        return f"{self.target}-{self.name}"


HOLDING = {"holds": True}
AT_ONCE = {"at_once": True}
TALKING = {"last_words": b"bye!"}
BASE = [
    Scenario("succeeds"),
    Scenario("hasty-close", {"slow_close": False}, {"slow_close": False}),
    Scenario("open-fails", new={"opens": False}, raises=BackendError),
    Scenario("frontend-refuses", refuse=True, raises=ChangeFailedError),
    Scenario("new-closed", new={"connected": False}),
    Scenario("old-closed", {"connected": False}),
    Scenario("new-closed-refused", new={"connected": False}, refuse=True, raises=ChangeFailedError),
    Scenario("commit-fails", new={"activates": False}, raises=BackendError),
    Scenario("new-dies-early", new={"dies_early": True}, raises=BackendError, surely=False),
    Scenario("new-dies-late", new={"dies_after": 3}),
    Scenario("writer-stuck", {"stuck": True}),
    Scenario("writer-stuck-refused", {"stuck": True}, refuse=True, raises=ChangeFailedError),
    Scenario("eager", {"eager": True}, {"eager": True}),
    Scenario("polled", {"is_polled": True}, {"is_polled": True}),
    Scenario("alone", has_frontend=False),
    Scenario("last-words", TALKING),
    Scenario("last-words-refused", TALKING, refuse=True, raises=ChangeFailedError),
    Scenario("last-words-new-closed", TALKING, {"connected": False}),
    Scenario("last-words-dies-late", TALKING, {"dies_after": 3}),
    Scenario("last-words-alone", TALKING, has_frontend=False),
    Scenario("last-words-carry", {**TALKING, "holds": True}, carry=True),
    Scenario("carry", HOLDING, carry=True),
    Scenario("carry-eager", {"eager": True, **HOLDING}, {"eager": True}, carry=True),
    Scenario("carry-settles", {"settle_seconds": 0, **HOLDING}, carry=True),
    Scenario("carry-refused", HOLDING, refuse=True, raises=ChangeFailedError, carry=True),
    Scenario("carry-commit-fails", HOLDING, {"activates": False}, raises=BackendError, carry=True),
    Scenario("carry-to-closed", HOLDING, {"connected": False}, carry=True),
    Scenario("carry-to-stuck", HOLDING, {"stuck": True}, carry=True),
    Scenario("carry-dies-late", HOLDING, {"dies_after": 3}, carry=True),
    Scenario("at-once", AT_ONCE, AT_ONCE),
    Scenario("at-once-eager", {"eager": True, **AT_ONCE}, {"eager": True, **AT_ONCE}),
    Scenario("at-once-old", AT_ONCE),
    Scenario("at-once-new", new=AT_ONCE),
    Scenario("at-once-alone", AT_ONCE, AT_ONCE, has_frontend=False),
    Scenario("at-once-open-fails", AT_ONCE, {"opens": False, **AT_ONCE}, raises=BackendError),
    Scenario("at-once-refused", AT_ONCE, AT_ONCE, refuse=True, raises=ChangeFailedError),
    Scenario("at-once-commit-fails", AT_ONCE, {"activates": False, **AT_ONCE}, raises=BackendError),
    Scenario("at-once-dies-late", new={"dies_after": 3, **AT_ONCE}),
    Scenario("at-once-writer-stuck", {"stuck": True, **AT_ONCE}, AT_ONCE),
    Scenario("at-once-last-words", {**TALKING, **AT_ONCE}, AT_ONCE),
    Scenario("at-once-last-words-carry", {**TALKING, **HOLDING, **AT_ONCE}, AT_ONCE, carry=True),
    Scenario(
        "at-once-carry-to-stuck", {**HOLDING, **AT_ONCE}, {"stuck": True, **AT_ONCE}, carry=True
    ),
    Scenario("silent", {"is_silent": True, **AT_ONCE}, AT_ONCE, has_frontend=False),
    Scenario("alone-open-fails", new={"opens": False}, raises=BackendError, has_frontend=False),
    Scenario(
        "alone-commit-fails", new={"activates": False}, raises=BackendError, has_frontend=False
    ),
]
SHORT = {"at-once-alone", "at-once-open-fails", "silent"}  # they have few steps
SCENARIOS = [
    attrs.evolve(s, target=target)
    for target in ("change", "write", "service")
    for s in BASE
    if target == "change"
    or s.name == "carry"
    or not (s.carry or (target, s.has_frontend) == ("write", False))
]


class Run:
    """One run, with the cancellation at step *k*."""

    def __init__(self, scenario: Scenario, k: int, when: str) -> None:
        self.scenario = scenario
        self.old = FakeDevice("old", **scenario.old)
        self.new = FakeDevice("new", **scenario.new)
        self.last = FakeDevice("last")
        self.user = FakeFrontend(refuses=self.new if scenario.refuse else None, bound="fake:old")
        self.chardev = Chardev("serial0")
        self.scopes = {name: trio.CancelScope() for name in ("change", "write", "service")}
        self.injector = CancelAtStep(k, when, self.scopes[scenario.target])
        self.got = bytearray()
        self.written = trio.Event()
        self.in_place = self.old
        self.ending = "not reached"

    async def main(self) -> bool:
        """True if step k was reached."""
        trio.lowlevel.add_instrument(self.injector)
        with self.scopes["service"]:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.chardev.run)
                await self.chardev.open(self.old.open)
                await self.use()
                nursery.cancel_scope.cancel()
        devices = (self.old, self.new, self.last)
        assert not any(d.is_held_open for d in devices), "one outlives its chardev"
        return self.injector.fired

    async def use(self) -> None:
        if not self.scenario.has_frontend:
            self.old.feed(b"unread")
            await self.change_under_fire()
            await checkpoint()
            await self.change_again()
            return
        frontend = self.chardev.attach(be_change=self.user.be_change, on_event=self.user.on_event)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.write, frontend)
            nursery.start_soon(self.read, frontend)
            nursery.start_soon(self.feed)
            await checkpoint()
            self.new.feed(b"12")
            await self.change_under_fire()
            await wait_all_tasks_blocked()
            self.check_reads()
            self.user.refuses = None
            await self.change_again()
            self.last.feed(b"Z")
            await self.written.wait()
            await wait_all_tasks_blocked()
            assert self.got.endswith(b"Z")
            nursery.cancel_scope.cancel()
        self.check_writes()
        self.check_events()

    async def write(self, frontend: Frontend) -> None:
        with self.scopes["write"], suppress(ChardevError):
            await frontend.send_all(MESSAGE)
        self.written.set()

    async def read(self, frontend: Frontend) -> None:
        while data := await frontend.receive_some(3):
            self.got += data

    async def feed(self) -> None:
        for i in range(20):  # the old backend has something to read all the time
            self.old.feed(bytes([i + 64]))
            await checkpoint()

    async def change_under_fire(self) -> None:
        self.injector.armed = True
        expected = [self.scenario.raises] if self.scenario.raises else []
        if self.scenario.target == "service":
            expected.append(ChardevClosedError)
        with suppress(*expected), self.scopes["change"]:
            try:
                await self.chardev.change(self.new.open, carry=self.scenario.carry)
            except BaseException as exc:
                self.check_changed(exc)
                raise
            self.check_changed(None)

    def check_changed(self, exc: BaseException | None) -> None:
        """Promise 1, the very moment change() is over."""
        trio.lowlevel.remove_instrument(self.injector)
        stopping = self.scopes["service"].cancel_called
        assert exc or not (self.scenario.raises and self.scenario.surely), "must not succeed"
        self.in_place, other = (self.old, self.new) if exc else (self.new, self.old)
        assert self.chardev.backend.filename == f"fake:{self.in_place.name}", repr(exc)
        if self.scenario.has_frontend:
            assert self.user.bound == f"fake:{self.in_place.name}", repr(exc)
        assert not other.is_held_open, f"{other.name} leaks"
        assert not self.in_place.is_leaving
        assert self.in_place.is_held_open or stopping or self.in_place_dies
        self.ending = f"{type(exc).__name__}, {self.in_place.name} in place"

    @property
    def in_place_dies(self) -> bool:
        return self.in_place.dies_early or self.in_place.dies_after is not None

    def check_reads(self) -> None:
        """Promise 3: all that the old one was fed before the commit, then the new one's."""
        if self.in_place is self.old:
            assert self.got == self.old.fed
        elif not self.in_place_dies:
            assert self.got.endswith(b"12")
            assert self.old.fed.startswith(self.got[:-2])
            assert set(self.old.last_words) <= set(self.got)
            assert not self.old.is_held_open

    async def change_again(self) -> None:
        await self.chardev.change(self.last.open, carry=self.scenario.carry)
        assert self.chardev.backend.filename == "fake:last"
        assert self.last.is_held_open
        assert not self.old.is_held_open
        assert not self.new.is_held_open

    def check_writes(self) -> None:
        """Promise 2: nothing lost, repeated or out of order."""
        whole = bytes(self.old.sent + self.new.sent + self.last.sent)
        assert MESSAGE.startswith(whole)
        nobody_there = not self.in_place.connected or not self.old.connected
        cancelled = self.scopes["write"].cancelled_caught
        assert whole == MESSAGE or cancelled or self.in_place_dies or nobody_there

    def check_events(self) -> None:
        """Promise 5: OPENED and CLOSED are never said twice in vain."""
        events = self.user.events
        if self.old.connected:
            assert events[0] is Event.OPENED
        for before, after in pairwise(events):
            assert (before, after) != (Event.CLOSED, Event.CLOSED)
        assert events[-1] is Event.OPENED  # for the last one


def brute_force(scenario: Scenario) -> Counter[str]:
    """Cancel at step 1, 2, 3... until change() is over before that step; how it ended."""
    endings: Counter[str] = Counter()
    for when, seed in SCHEDULES:
        for k in steps(10_000):
            scheduler_random.seed(seed)
            run = Run(scenario, k, when)
            try:
                fired = trio.run(run.main, clock=MockClock(autojump_threshold=0))
            except BaseException as exc:
                exc.add_note(f"{scenario}: {when} {k=} {seed=} ({run.ending})")
                raise
            endings[run.ending] += 1
            if not fired:
                break
    return endings


@pytest.fixture(autouse=True)
def looks_before_it_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A polled device is looked at again every time, and always as often."""
    monkeypatch.setattr(look_again, "PRICE", 0)
    monkeypatch.setattr(
        look_again, "perf_counter", itertools.count(0, look_again.POLL_TIME / 4).__next__
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_cancelled_at_every_step_a_change_happens_whole_or_not_at_all(scenario: Scenario) -> None:
    endings = brute_force(scenario)
    assert endings.total() > (1 if scenario.name in SHORT else 5)
    if scenario.target == "change":
        assert endings["Cancelled, old in place"], "the cancellation never came in time"
    if scenario.raises is None:
        assert endings["NoneType, new in place"]
    elif scenario.surely:
        assert endings[f"{scenario.raises.__name__}, old in place"]
