"""QMP commands about devices: the bridges, monitors and others that use the chardevs."""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from trio_chardev.core.device import DeviceInfo, DeviceOptions
from trio_chardev.core.devices import Devices
from trio_chardev.errors import DeviceNotFoundError
from trio_chardev.frontends import DEVICE, DEVICE_INFO
from trio_chardev.grammar import check_id
from trio_chardev.options import unstructure
from trio_chardev.qmp.context import Command, Context, NoArguments
from trio_chardev.qmp.session import QmpError


@attrs.frozen(kw_only=True)
class DeviceIdArguments:
    """device_del."""

    id: str


def add_device(devices: Devices, options: DeviceOptions) -> None:
    """Make a device. Raises OptionsError, and what `Devices.add` raises."""
    if options.id is not None:
        check_id(options.id)
    devices.add(options)


def device_add(context: Context, arguments: DeviceOptions) -> dict[str, Any]:
    add_device(context.host.registry.devices, arguments)
    return {}


async def device_del(context: Context, arguments: DeviceIdArguments) -> dict[str, Any]:
    devices = context.host.registry.devices
    try:
        device = devices[arguments.id]
    except DeviceNotFoundError as exc:
        raise QmpError(str(exc), "DeviceNotFound") from exc
    device.scope.cancel()
    if context.chardev is None or context.chardev.id not in device.options.chardevs:
        await device.closed.wait()
    return {}  # a monitor that deletes itself has yet to say so, and ends at its next checkpoint


def query_devices(context: Context, arguments: NoArguments) -> list[dict[str, Any]]:
    return [unstructure(info, DEVICE_INFO) for info in context.host.registry.devices.query()]


DEVICE_COMMANDS: dict[str, Command] = {
    "device_add": Command(DEVICE, device_add),
    "device_del": Command(DeviceIdArguments, device_del),
    "query-devices": Command(
        NoArguments, query_devices, tuple[Annotated[DeviceInfo, DEVICE_INFO], ...]
    ),
}
