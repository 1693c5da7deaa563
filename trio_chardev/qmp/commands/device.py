"""QMP commands about devices: bridges, monitors and others that use chardevs."""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from trio_chardev.core.environment import Files
from trio_chardev.devices.base import Device, DeviceInfo, DeviceOptions
from trio_chardev.devices.monitor import check_monitor
from trio_chardev.devices.registry import Devices
from trio_chardev.devices.table import DEVICE, DEVICE_INFO
from trio_chardev.options.grammar import check_id
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.context import Command, Context, NoArguments
from trio_chardev.qmp.server.session import QmpError


@attrs.frozen(kw_only=True)
class DeviceIdArguments:
    """Arguments of device_del."""

    id: str


async def add_device(
    devices: Devices,
    options: DeviceOptions,
    id: str | None = None,
    files: Files | None = None,
) -> Device:
    """Make a device; its name is *id* if the options have none.

    *files* limits what the options may name. Raises OptionsError, and what `Devices.open` raises.
    """
    files = Files() if files is None else files
    check_monitor(options, files.sandbox)
    if options.id is not None:
        check_id(options.id)
    elif id is not None:
        options = attrs.evolve(options, id=id)
    return await devices.open(options, files)


async def device_add(context: Context, arguments: DeviceOptions) -> dict[str, Any]:
    """Add a device, such as a bridge, and wait until it works."""
    host = context.host
    files = Files(sandbox=host.sandbox, take_fd=context.fds.take)
    device = await add_device(host.registry.devices, arguments, files=files)
    if host.state_file.is_kept:
        await host.state_file.keep("devices", device.id, unstructure(arguments, DEVICE))
    return {}


async def device_del(context: Context, arguments: DeviceIdArguments) -> dict[str, Any]:
    """Delete a device."""
    host = context.host
    device = host.registry.devices.get(arguments.id)
    host.state_file.note("devices", arguments.id, None)  # also if it could not be restored
    try:
        await host.state_file.flush()
    finally:
        if device is not None:
            device.scope.cancel()
    if device is None:
        raise QmpError(f"Device '{arguments.id}' not found", "DeviceNotFound")
    if context.chardev is None or context.chardev.id not in device.options.chardevs:
        await device.closed.wait()
    return {}  # a monitor that deletes itself still has to reply, and ends at its next checkpoint


def query_devices(context: Context, arguments: NoArguments) -> list[dict[str, Any]]:
    """List the devices."""
    return [unstructure(info, DEVICE_INFO) for info in context.host.registry.devices.query()]


DEVICE_COMMANDS: dict[str, Command] = {
    "device_add": Command(DEVICE, device_add),
    "device_del": Command(DeviceIdArguments, device_del),
    "query-devices": Command(
        NoArguments, query_devices, tuple[Annotated[DeviceInfo, DEVICE_INFO], ...]
    ),
}
