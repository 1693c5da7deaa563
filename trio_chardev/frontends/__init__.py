"""The drivers of devices: one file a driver, one row in the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from trio_chardev.core.device import Device, DeviceInfo, DeviceOptions, DeviceRequest
from trio_chardev.core.devices import Driver
from trio_chardev.frontends.bridge import Bridge, BridgeInfo, BridgeOptions
from trio_chardev.frontends.chargen import Chargen, ChargenInfo, ChargenOptions
from trio_chardev.frontends.discard import Discard, DiscardInfo, DiscardOptions
from trio_chardev.frontends.echo import Echo, EchoInfo, EchoOptions
from trio_chardev.frontends.monitor import (
    MonitorDevice,
    MonitorInfo,
    MonitorObject,
    MonitorObjectOptions,
    MonitorOptions,
)
from trio_chardev.members import TaggedUnion


@attrs.frozen
class DriverRow:
    """A row of `DRIVERS`."""

    options: type[DeviceOptions]
    make: Callable[[Any, DeviceRequest], Device]
    """Takes an instance of `options`."""

    info: type[DeviceInfo]
    """What its devices give as `Device.info`."""


DRIVERS: dict[str, DriverRow] = {
    "bridge": DriverRow(BridgeOptions, Bridge, BridgeInfo),
    "chargen": DriverRow(ChargenOptions, Chargen, ChargenInfo),
    "discard": DriverRow(DiscardOptions, Discard, DiscardInfo),
    "echo": DriverRow(EchoOptions, Echo, EchoInfo),
    "monitor": DriverRow(MonitorOptions, MonitorDevice, MonitorInfo),
}

DEVICE = TaggedUnion(
    "DeviceOptions",
    {name: row.options for name, row in DRIVERS.items()},
    tag="driver",
    is_flat=True,
    no_such_tag="'{}' is not a valid device model name",
    no_such_member="Property '{tag}.{member}' not found",
)
"""``{"driver": NAME, "id": ID, ...}``, for structuring."""

DEVICE_INFO = TaggedUnion(
    "DeviceInfo", {name: row.info for name, row in DRIVERS.items()}, tag="driver", is_flat=True
)
"""What query-devices tells of a device."""

_OBJECTS = {"monitor-qmp": DriverRow(MonitorObjectOptions, MonitorObject, MonitorInfo)}
"""The same for what object-add makes; not for device_add."""

_DRIVER_OF = {row.options: Driver(name, row.make) for name, row in {**DRIVERS, **_OBJECTS}.items()}


def driver_of(options: DeviceOptions) -> Driver:
    """The driver whose options these are."""
    return _DRIVER_OF[type(options)]
