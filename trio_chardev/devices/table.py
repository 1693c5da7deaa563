"""The drivers of devices: each has a file, and a row in this table."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

from trio_chardev.devices.base import DeviceOptions
from trio_chardev.devices.registry import Driver, DriverOf
from trio_chardev.errors import OptionsError
from trio_chardev.options.lazy import LazyTable
from trio_chardev.options.members import TaggedUnion

DRIVERS: LazyTable[Driver[Any]] = LazyTable(
    {
        "bridge": "trio_chardev.devices.bridge:BRIDGE",
        "chargen": "trio_chardev.devices.chargen:CHARGEN",
        "discard": "trio_chardev.devices.discard:DISCARD",
        "echo": "trio_chardev.devices.echo:ECHO",
        "listener": "trio_chardev.devices.listener:LISTENER",
        "monitor": "trio_chardev.devices.monitor:MONITOR",
    }
)

OBJECT_DRIVERS: LazyTable[Driver[Any]] = LazyTable(
    {"monitor-qmp": "trio_chardev.devices.monitor:MONITOR_OBJECT"}
)
"""The drivers of objects, which object-add makes and device_add does not."""

DEVICE = TaggedUnion(
    "DeviceOptions",
    DRIVERS.column(lambda driver: driver.options),
    tag="driver",
    is_flat=True,
    no_such_tag="'{}' is not a valid device model name",
    no_such_member="Property '{tag}.{member}' not found",
)
"""``{"driver": NAME, "id": ID, ...}``, for structuring."""

DEVICE_INFO = TaggedUnion(
    "DeviceInfo", DRIVERS.column(lambda driver: driver.info), tag="driver", is_flat=True
)
"""What query-devices shows of a device."""


def add_driver(driver: Driver[Any]) -> None:
    """Add a row to the table, before any options are structured.

    Raises ValueError if its name, its options or its info, which tells drivers apart, are taken.
    """
    known = chain(DRIVERS.imported(), OBJECT_DRIVERS.imported())
    if driver.name in DRIVERS or any(
        row.options is driver.options or row.info is driver.info for _, row in known
    ):
        raise ValueError(
            f"there is a driver '{driver.name}', or one of its options or info, already"
        )
    DRIVERS.add(driver.name, driver)


def drivers_with(drivers: Iterable[Driver[Any]]) -> DriverOf:
    """Return a function like `driver_of` that knows *drivers* as well as those of the table."""
    known: dict[type, Driver[Any]] = {driver.options: driver for driver in drivers}

    def driver_of(options: DeviceOptions) -> Driver[Any]:
        cls = type(options)
        driver = known.get(cls)
        if driver is None:
            rows = chain(OBJECT_DRIVERS.imported(), DRIVERS.imported_first())
            driver = next((row for _, row in rows if row.options is cls), None)
            if driver is None:
                raise OptionsError(f"no driver takes {options!r}")
            known[cls] = driver
        return driver

    return driver_of


driver_of = drivers_with(())
"""Returns the driver whose options these are. Raises OptionsError."""
