"""The drivers of devices: each has a file, and a row in this table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trio_chardev.devices.base import DeviceOptions
from trio_chardev.devices.bridge import Bridge, BridgeInfo, BridgeOptions
from trio_chardev.devices.chargen import Chargen, ChargenInfo, ChargenOptions
from trio_chardev.devices.discard import Discard, DiscardInfo, DiscardOptions
from trio_chardev.devices.echo import Echo, EchoInfo, EchoOptions
from trio_chardev.devices.listener import ListenerDevice, ListenerInfo, ListenerOptions
from trio_chardev.devices.monitor import (
    MonitorDevice,
    MonitorInfo,
    MonitorObject,
    MonitorObjectOptions,
    MonitorOptions,
)
from trio_chardev.devices.registry import Driver, DriverOf
from trio_chardev.errors import OptionsError
from trio_chardev.options.members import TaggedUnion

DRIVERS: dict[str, Driver[Any]] = {
    driver.name: driver
    for driver in (
        Driver("bridge", BridgeOptions, Bridge, BridgeInfo),
        Driver("chargen", ChargenOptions, Chargen, ChargenInfo),
        Driver("discard", DiscardOptions, Discard, DiscardInfo),
        Driver("echo", EchoOptions, Echo, EchoInfo),
        Driver("listener", ListenerOptions, ListenerDevice, ListenerInfo),
        Driver("monitor", MonitorOptions, MonitorDevice, MonitorInfo),
    )
}

_VARIANTS: dict[str, type] = {name: driver.options for name, driver in DRIVERS.items()}
_INFOS: dict[str, type] = {name: driver.info for name, driver in DRIVERS.items()}

DEVICE = TaggedUnion(
    "DeviceOptions",
    _VARIANTS,
    tag="driver",
    is_flat=True,
    no_such_tag="'{}' is not a valid device model name",
    no_such_member="Property '{tag}.{member}' not found",
)
"""``{"driver": NAME, "id": ID, ...}``, for structuring."""

DEVICE_INFO = TaggedUnion("DeviceInfo", _INFOS, tag="driver", is_flat=True)
"""What query-devices shows of a device."""

_OBJECTS = (Driver("monitor-qmp", MonitorObjectOptions, MonitorObject, MonitorInfo),)
"""The drivers of objects, which object-add makes and device_add does not."""

_DRIVER_OF = {driver.options: driver for driver in (*DRIVERS.values(), *_OBJECTS)}


def add_driver(driver: Driver[Any]) -> None:
    """Add a row to the table, before any options are structured.

    Raises ValueError if its name, its options or its info, which tells drivers apart, are taken.
    """
    if driver.name in DRIVERS or driver.options in _DRIVER_OF or driver.info in _INFOS.values():
        raise ValueError(
            f"there is a driver '{driver.name}', or one of its options or info, already"
        )
    DRIVERS[driver.name] = driver
    _VARIANTS[driver.name] = driver.options
    _INFOS[driver.name] = driver.info
    _DRIVER_OF[driver.options] = driver


def drivers_with(drivers: Iterable[Driver[Any]]) -> DriverOf:
    """Return a function like `driver_of` that knows *drivers* as well as those of the table."""
    table = _DRIVER_OF | {driver.options: driver for driver in drivers}

    def driver_of(options: DeviceOptions) -> Driver[Any]:
        try:
            return table[type(options)]
        except KeyError:
            raise OptionsError(f"no driver takes {options!r}") from None

    return driver_of


driver_of = drivers_with(())
"""Returns the driver whose options these are. Raises OptionsError."""
