"""id -> Device: add, remove, query. A device ends before its chardevs do.

A registry has two of these tables, as objects and devices don't share their ids.

An addition has no checkpoint: either the device has become the user of its chardevs, or nothing
has changed. Then its task runs until the device is removed or fails, or the registry ends.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import attrs
import trio

from trio_chardev.core.chardev import Chardev
from trio_chardev.core.environment import Files
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

QUIET = 0.05  # seconds without a byte, after which no more are expected
LOOKS = 5  # in that time, each after devices could run, even if one look comes late
SETTLE_TIMEOUT = DRAIN_TIMEOUT
END_TIMEOUT = 2.0  # seconds for a device that did not begin to be gone, before that is told

OptionsT = TypeVar("OptionsT", bound=DeviceOptions)


@attrs.frozen(repr=False)
class Driver(Generic[OptionsT]):
    """How to make devices of one kind."""

    name: str
    options: type[OptionsT]
    make: Callable[[OptionsT, DeviceRequest], Device]
    info: type[DeviceInfo] = DeviceInfo
    """The class of its devices' `Device.info`."""


DriverOf = Callable[[DeviceOptions], Driver[Any]]
"""Returns the driver for options; `drivers_with` makes one. Raises OptionsError."""


def no_drivers(options: DeviceOptions) -> Driver[Any]:
    """Refuse, for a registry without devices."""
    raise TypeError(f"there is no driver for {options!r}")


@attrs.define(eq=False, repr=False)
class Devices(Mapping[str, Device]):
    """The devices of one registry, by id."""

    _chardevs: Mapping[str, Chardev]
    _nursery: trio.Nursery
    _driver_of: DriverOf
    attach_monitor: Callable[[Chardev, bool, bool], AttachedMonitor] | None = None
    """See `DeviceRequest`."""
    objects: Mapping[str, object] = attrs.Factory(dict)
    """See `DeviceRequest`."""
    on_end: Callable[[Device], object] = lambda device: None
    """Called when a device is gone; must not raise."""
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
        """Return all devices, in the order in which they were added."""
        return [device.info for device in self._devices.values()]

    async def open(self, options: DeviceOptions, files: Files | None = None) -> Device:
        """Do as `add`, and wait until the device works: until a listener listens, for one.

        Raises as `add`, and BackendError. If it raises anything, Cancelled included, nothing was
        added. *files* are those that *options* may name; the default is all.
        """
        device = self.add(options, files)
        try:
            await device.wait_ready()
        except BaseException:
            device.scope.cancel()
            with trio.move_on_after(END_TIMEOUT, shield=True):
                await device.closed.wait()
            raise
        return device

    def add(self, options: DeviceOptions, files: Files | None = None) -> Device:
        """Make a device, and start its task. What it has to open can still fail; see `open`.

        Raises DeviceExistsError, OptionsError if there is no such chardev, ChardevBusyError,
        ChardevClosedError, and what the driver raises. If it raises, nothing was added.
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
            objects=self.objects,
            files=Files() if files is None else files,
            attach_monitor=self.attach_monitor,
        )
        device = driver.make(options, request)
        try:
            device.start()
        except BaseException:
            device.close()
            raise
        self._devices[device.id] = device
        log.info("device '%s' is added: %s", device.id, device.driver)
        self._nursery.start_soon(self._run, device)
        return device

    def _new_id(self) -> str:
        return next(id for n in self._numbers if (id := f"#device{n}") not in self._devices)

    async def remove(self, id: str) -> None:
        """End device *id*, and wait until it is gone. Raises DeviceNotFoundError.

        When Cancelled, the device ends all the same. So a monitor may remove itself.
        """
        device = self[id]
        device.scope.cancel()
        await device.closed.wait()

    async def settle(self) -> None:
        """Let devices pass on what has come, until nothing moves, for SETTLE_TIMEOUT at most.

        Called before everything ends. It can't be Cancelled.
        """
        if self._is_shut:
            return
        for device in self._devices.values():
            device.finish()
        with trio.move_on_after(SETTLE_TIMEOUT, shield=True):
            before = self._moved()
            quiet_looks = LOOKS if before is None else 0
            while quiet_looks < LOOKS:
                await trio.sleep(QUIET / LOOKS)
                moved = self._moved()
                quiet_looks = quiet_looks + 1 if moved == before else 0
                before = moved

    def _moved(self) -> int | None:
        """How many bytes the devices have passed on; None if no device counts them."""
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
                if device.error is not None:
                    log.warning("device '%s' can't begin: %s", device.id, device.error)
                elif not device.is_done:
                    log.error("device '%s' has ended by itself; it is deleted", device.id)
        except* Exception as group:  # a Cancelled in the group is raised again
            log.error("device '%s' failed; it is deleted", device.id, exc_info=group)
        finally:
            device.close()
            del self._devices[device.id]
            device.closed.set()
            if device.error is None:
                self.on_end(device)
