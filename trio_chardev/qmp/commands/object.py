"""QMP commands about objects: TLS credentials, secrets, access lists, monitors."""

from __future__ import annotations

from typing import Any

import attrs

from trio_chardev.access.objects import MonitorQmp, ObjectOptions
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.access.table import OBJECT
from trio_chardev.devices.base import Device
from trio_chardev.devices.monitor import MonitorObject, MonitorObjectOptions, check_monitor
from trio_chardev.errors import BackendError
from trio_chardev.files import work_on_files
from trio_chardev.options.grammar import check_id
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.context import Command, Context
from trio_chardev.qmp.server.session import QmpError
from trio_chardev.registry import Registry


@attrs.frozen(kw_only=True)
class ObjectIdArguments:
    """Arguments of object-del."""

    id: str


def duplicate_object(id: str) -> QmpError:
    """Make the error for an id that is taken."""
    return QmpError(f"attempt to add duplicate property '{id}' to object (type 'container')")


async def add_object(
    registry: Registry, options: ObjectOptions, sandbox: Sandbox = EVERYWHERE
) -> None:
    """Make an object and keep it. If it reads files, a thread makes it, see `work_on_files`.

    Raises OptionsError, BackendError, QmpError; for a monitor also ChardevBusyError. When this is
    cancelled, there is no object.
    """
    check_id(options.id)
    objects = registry.objects
    _check_is_new(registry, options.id)
    if isinstance(options, MonitorQmp):
        device = _device_of(options)
        check_monitor(device, sandbox)
        objects[options.id] = registry.object_devices.add(device)
    elif options.reads_files:
        made = await _create(options, dict(objects), sandbox)
        _check_is_new(registry, options.id)  # another client may have been faster
        objects[options.id] = made
    else:
        objects[options.id] = options.create(objects, sandbox)


def _check_is_new(registry: Registry, id: str) -> None:
    if id in registry.objects or id in registry.object_devices:
        raise duplicate_object(id)


async def _create(options: ObjectOptions, objects: dict[str, object], sandbox: Sandbox) -> object:
    try:
        return await work_on_files(options.create, objects, sandbox)
    except OSError as exc:
        raise BackendError.from_os_error(f"object '{options.id}' can't be made", exc) from exc


def _device_of(options: MonitorQmp) -> MonitorObjectOptions:
    return MonitorObjectOptions(
        id=options.id,
        chardev=options.chardev,
        pretty=options.pretty,
        insecure=options.insecure,
        ends_with_client=options.close_action == "delete",
    )


async def drop_object(registry: Registry, id: str) -> None:
    """Forget object *id*; if it runs, wait until it has ended. Cancelled does not undo this."""
    made = registry.objects.pop(id, None)
    if isinstance(made, Device):
        made.scope.cancel()
        await made.closed.wait()


async def object_add(context: Context, arguments: ObjectOptions) -> dict[str, Any]:
    """Add an object: credentials, a secret, an access list, a monitor."""
    host = context.host
    await add_object(host.registry, arguments, host.sandbox)
    if host.state_file.is_kept:
        await host.state_file.keep("objects", arguments.id, unstructure(arguments, OBJECT))
    return {}


async def object_del(context: Context, arguments: ObjectIdArguments) -> dict[str, Any]:
    """Delete an object."""
    host = context.host
    made = host.registry.objects.get(arguments.id)
    if isinstance(made, MonitorObject) and made.is_current:
        raise QmpError("Cannot delete the current QMP monitor")
    host.state_file.note("objects", arguments.id, None)  # also if it could not be restored
    await drop_object(host.registry, arguments.id)
    await host.state_file.flush()
    if made is None:
        raise QmpError(f"object '{arguments.id}' not found")
    return {}


OBJECT_COMMANDS: dict[str, Command] = {
    "object-add": Command(OBJECT, object_add),
    "object-del": Command(ObjectIdArguments, object_del),
}
