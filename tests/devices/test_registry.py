"""Devices: added or not, never partly; one that fails ends alone; all end before chardevs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_chardev.core.handlers import stateless
from trio_chardev.devices.base import Device, DeviceInfo, DeviceOptions
from trio_chardev.devices.registry import LOOKS, QUIET, SETTLE_TIMEOUT, Driver
from trio_chardev.errors import (
    ChardevBusyError,
    ChardevClosedError,
    DeviceExistsError,
    DeviceNotFoundError,
    OptionsError,
)
from trio_chardev.events import BackendEvent, Event
from trio_chardev.notices import DeviceDeleted
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions, fake_opener


@attrs.frozen(kw_only=True)
class UserOptions(DeviceOptions):
    chardev: str
    fails: str = ""
    """Where: ``start``, ``event``, ``run``, or it ``returns``."""


class User(Device):
    options: UserOptions

    @property
    def info(self) -> DeviceInfo:
        return DeviceInfo(id=self.id)

    def start(self) -> None:
        self.attach("chardev", be_change=stateless, on_event=self.on_event)
        if self.options.fails == "start":
            raise RuntimeError("a bug in start")

    def on_event(self, event: BackendEvent) -> None:
        if self.options.fails == "event":
            raise RuntimeError("a bug in on_event")

    async def run(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.options.fails == "run":
            raise RuntimeError("a bug in run")
        if self.options.fails != "returns":
            await trio.sleep_forever()


def driver_of(options: DeviceOptions) -> Driver[Any]:
    def make(options: DeviceOptions, request: object) -> Device:
        return User(options, request)  # type: ignore[arg-type]

    return Driver("user", DeviceOptions, make)


@asynccontextmanager
async def open_two() -> AsyncIterator[Registry]:
    """The chardevs a and b."""
    async with open_registry_with(fake_opener, driver_of) as registry:
        for id in "ab":
            await registry.add(id, FakeOptions(device=FakeDevice(id)))
        yield registry


async def test_a_device_is_the_user_of_its_chardev_until_it_is_removed() -> None:
    async with open_two() as registry:
        device = registry.devices.add(UserOptions(id="d", chardev="a"))
        assert registry.devices["d"] is device
        assert registry.devices.query() == [DeviceInfo(id="d")]
        assert device.options.chardevs == ("a",)
        with pytest.raises(ChardevBusyError, match=r"^Chardev 'a' is busy$"):
            await registry.remove("a")
        await registry.devices.remove("d")
        assert len(registry.devices) == 0
        await registry.remove("a")


async def test_mistakes_are_told_in_qemus_words_and_add_nothing() -> None:
    async with open_two() as registry:
        devices = registry.devices
        devices.add(UserOptions(id="d", chardev="a"))
        with pytest.raises(DeviceExistsError, match=r"^Duplicate device ID 'd'$"):
            devices.add(UserOptions(id="d", chardev="b"))
        with pytest.raises(OptionsError, match=r"^Property 'user.chardev' can't find value 'x'$"):
            devices.add(UserOptions(chardev="x"))
        with pytest.raises(
            ChardevBusyError,
            match=r"^Property 'user.chardev' can't take value 'a': Device 'a' is in use$",
        ):
            devices.add(UserOptions(chardev="a"))
        with pytest.raises(DeviceNotFoundError, match=r"^Device 'x' not found$"):
            await devices.remove("x")
        assert list(devices) == ["d"]


async def test_one_without_an_id_gets_one_that_nobody_can_give() -> None:
    async with open_two() as registry:
        one, other = (registry.devices.add(UserOptions(chardev=id)) for id in "ab")
        assert (one.id, other.id) == ("#device0", "#device1")
        assert one.options.id is None


async def test_one_that_cannot_start_leaves_its_chardev() -> None:
    async with open_two() as registry:
        with pytest.raises(RuntimeError, match="a bug in start"):
            registry.devices.add(UserOptions(chardev="a", fails="start"))
        assert registry["a"].frontends == []
        assert len(registry.devices) == 0


@pytest.mark.parametrize("fails", ["event", "run", "returns"])
async def test_one_that_fails_goes_alone(fails: str, caplog: pytest.LogCaptureFixture) -> None:
    notices: list[object] = []
    async with open_two() as registry:
        registry.on_notice = notices.append
        other = registry.devices.add(UserOptions(id="other", chardev="b"))
        device = registry.devices.add(UserOptions(id="d", chardev="a", fails=fails))
        await device.closed.wait()
        assert list(registry.devices.values()) == [other]
        assert notices == [DeviceDeleted("d", "/machine/peripheral/d")]
        assert registry["a"].frontends == []
        assert len(caplog.records) == 1


async def test_it_also_goes_when_a_handler_fails_later(caplog: pytest.LogCaptureFixture) -> None:
    async with open_two() as registry:
        device = registry.devices.add(UserOptions(chardev="a"))
        await wait_all_tasks_blocked()
        object.__setattr__(device.options, "fails", "event")
        registry["a"].send_event(Event.BREAK)
        await device.closed.wait()
        assert registry["a"].frontends == []
        assert len(caplog.records) == 1


async def test_removing_that_is_cancelled_removes_all_the_same() -> None:
    async with open_two() as registry:
        device = registry.devices.add(UserOptions(id="d", chardev="a"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await registry.devices.remove("d")
        assert scope.cancelled_caught
        await device.closed.wait()
        assert len(registry.devices) == 0


async def test_two_may_remove_one() -> None:
    async with open_two() as registry:
        registry.devices.add(UserOptions(id="d", chardev="a"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.devices.remove, "d")
            nursery.start_soon(registry.devices.remove, "d")


async def test_devices_end_before_the_chardevs() -> None:
    async with open_two() as registry:
        device = registry.devices.add(UserOptions(id="d", chardev="a"))
        chardev = registry["a"]
        registry.on_notice = lambda notice: seen.append((notice, chardev.is_closed))
        seen: list[tuple[object, bool]] = []
    assert device.closed.is_set()
    assert seen == [(DeviceDeleted("d", "/machine/peripheral/d"), False)]
    with pytest.raises(ChardevClosedError):
        registry.devices.add(UserOptions(chardev="a"))


# ---------------------------------------------------------------- settling


class Passer(User):
    """Passes on a byte whenever it is asked how many, as long as it has some."""

    rest = 3

    @property
    def moved(self) -> int:
        self.rest = max(0, self.rest - 1)
        return -self.rest


class EndlessPasser(Passer):
    rest = 1 << 30


class HeldUpPasser(User):
    """Has had no turn to pass on what has come."""

    moved = 0


async def test_time_in_which_devices_did_not_run_is_not_quiet(mock_clock: MockClock) -> None:
    """A process that was held up comes to its look and to what has come at the same time."""

    def driver_of(options: DeviceOptions) -> Driver[Any]:
        return Driver("user", DeviceOptions, HeldUpPasser)

    async with open_registry_with(fake_opener, driver_of) as registry:
        await registry.add("c", FakeOptions(device=FakeDevice("c")))
        device = registry.devices.add(UserOptions(chardev="c", id="d"))
        assert isinstance(device, HeldUpPasser)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.devices.settle)
            await wait_all_tasks_blocked()
            mock_clock.jump(QUIET)
            await wait_all_tasks_blocked()
            device.moved += 1
            moved_at = trio.current_time()
            mock_clock.autojump_threshold = 0
        assert trio.current_time() - moved_at >= QUIET


@pytest.mark.parametrize(
    ("make", "seconds"),
    [(User, 0), (Passer, 2 * QUIET / LOOKS + QUIET), (EndlessPasser, SETTLE_TIMEOUT)],
    ids=["passes-nothing-on", "until-nothing-moves", "endless"],
)
async def test_settling_has_a_deadline(
    make: type[User], seconds: float, autojump_clock: MockClock
) -> None:
    def driver_of(options: DeviceOptions) -> Driver[Any]:
        return Driver("user", DeviceOptions, make)

    async with open_registry_with(fake_opener, driver_of) as registry:
        await registry.add("c", FakeOptions(device=FakeDevice("c")))
        registry.devices.add(UserOptions(chardev="c", id="d"))
        begin = trio.current_time()
        await registry.devices.settle()
        assert trio.current_time() - begin == pytest.approx(seconds)
        registry.devices.shut()
        await registry.devices.settle()
        assert trio.current_time() - begin == pytest.approx(seconds)
