"""id -> Device: add, remove, query. A device ends before its chardevs do.

A registry has two such tables, for the ids of objects are others than those of devices.

An addition has no checkpoint: the device is the user of its chardevs, or all is as before.
Its task then runs until somebody removes it, the registry ends, or it fails.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import attrs
import trio

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.runner import DRAIN_TIMEOUT
from trio_chardev.devices.base import (
    AttachedMonitor,
    Device,
    DeviceInfo,
    DeviceOptions,
    DeviceRequest,
)
from trio_chardev.errors import ChardevClosedError, DeviceExistsError, DeviceNotFoundError

log = logging.getLogger(__name__)

QUIET = 0.05  # seconds without a byte, and no more are thought to be on their way
LOOKS = 5  # in that time; of one that is late devices may not have run before it
SETTLE_TIMEOUT = DRAIN_TIMEOUT

OptionsT = TypeVar("OptionsT", bound=DeviceOptions)


@attrs.frozen
class Driver(Generic[OptionsT]):
    """How devices of one kind are made."""

    name: str
    options: type[OptionsT]
    make: Callable[[OptionsT, DeviceRequest], Device]
    info: type[DeviceInfo] = DeviceInfo
    """What its devices give as `Device.info`."""


DriverOf = Callable[[DeviceOptions], Driver[Any]]
"""Gives the driver for options; a table of drivers, for one. Raises OptionsError."""


def no_drivers(options: DeviceOptions) -> Driver[Any]:
    """For a registry without devices."""
    raise TypeError(f"there is no driver for {options!r}")


@attrs.define(eq=False)
class Devices(Mapping[str, Device]):
    """The devices of one registry, by id."""

    _chardevs: Mapping[str, Chardev]
    _nursery: trio.Nursery
    _driver_of: DriverOf
    attach_monitor: Callable[[Chardev, bool, bool], AttachedMonitor] | None = None
    """See DeviceRequest."""
    on_end: Callable[[Device], object] = lambda device: None
    """Is told when one is gone; must not raise."""
    _devices: dict[str, Device] = attrs.Factory(dict)
    _numbers: Iterator[int] = attrs.Factory(itertools.count)
    _is_shut: bool = False

    def __getitem__(self, id: str) -> Device:
        try:
            return self._devices[id]
        except KeyError:
            raise DeviceNotFoundError(f"Device '{id}' not found") from None

    def __contains__(self, id: object) -> bool:
        return id in self._devices

    def __iter__(self) -> Iterator[str]:
        return iter(self._devices)

    def __len__(self) -> int:
        return len(self._devices)

    def query(self) -> list[DeviceInfo]:
        """All devices, in the order in which they were added."""
        return [device.info for device in self._devices.values()]

    def add(self, options: DeviceOptions) -> Device:
        """Make a device and have it work.

        Raises DeviceExistsError, OptionsError if there is no such chardev, ChardevBusyError,
        and what else the driver says. Raising anything, it has added nothing.
        """
        if self._is_shut:
            raise ChardevClosedError("the devices of this registry have ended")
        if options.id is not None and options.id in self._devices:
            raise DeviceExistsError(f"Duplicate device ID '{options.id}'")
        driver = self._driver_of(options)
        request = DeviceRequest(
            id=self._new_id() if options.id is None else options.id,
            driver=driver.name,
            chardevs=self._chardevs,
            attach_monitor=self.attach_monitor,
        )
        device = driver.make(options, request)
        try:
            device.start()
        except BaseException:
            device.close()
            raise
        self._devices[device.id] = device
        self._nursery.start_soon(self._run, device)
        return device

    def _new_id(self) -> str:
        return next(id for n in self._numbers if (id := f"#device{n}") not in self._devices)

    async def remove(self, id: str) -> None:
        """End device *id*, and wait until it is gone. Raises DeviceNotFoundError.

        Cancelled: it goes all the same. So a monitor may remove itself.
        """
        device = self[id]
        device.scope.cancel()
        await device.closed.wait()

    async def settle(self) -> None:
        """Let devices pass on what has come, until nothing moves, for SETTLE_TIMEOUT at most.

        Called when all is to end. Cancelled is not heard here.
        """
        if self._is_shut:
            return
        with trio.move_on_after(SETTLE_TIMEOUT, shield=True):
            before = self._moved()
            quiet_looks = LOOKS if before is None else 0
            while quiet_looks < LOOKS:
                await trio.sleep(QUIET / LOOKS)
                moved = self._moved()
                quiet_looks = quiet_looks + 1 if moved == before else 0
                before = moved

    def _moved(self) -> int | None:
        """How many bytes those that pass on have; None if there are none of these."""
        counts = [device.moved for device in self._devices.values()]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None

    def shut(self) -> None:
        """End all devices."""
        self._is_shut = True
        for device in self._devices.values():
            device.scope.cancel()

    async def _run(self, device: Device) -> None:
        try:
            with device.scope:
                await device.run()
                if not device.is_done:
                    log.error("device '%s' has ended by itself; it is deleted", device.id)
        except* Exception as group:  # a Cancelled beside it goes on
            log.error("device '%s' failed; it is deleted", device.id, exc_info=group)
        finally:
            device.close()
            del self._devices[device.id]
            device.closed.set()
            self.on_end(device)
