"""QMP commands about objects: TLS credentials, secrets, lists of who may."""

from __future__ import annotations

from typing import Any

import attrs

from trio_chardev.grammar import check_id
from trio_chardev.objects import OBJECT, ObjectOptions
from trio_chardev.options import unstructure
from trio_chardev.qmp.context import Command, Context
from trio_chardev.qmp.session import QmpError
from trio_chardev.sandbox import EVERYWHERE, Sandbox


@attrs.frozen(kw_only=True)
class ObjectIdArguments:
    """object-del."""

    id: str


def duplicate_object(id: str) -> QmpError:
    """There is an object of that id already."""
    return QmpError(f"attempt to add duplicate property '{id}' to object (type 'container')")


def add_object(
    objects: dict[str, object], options: ObjectOptions, sandbox: Sandbox = EVERYWHERE
) -> None:
    """Make an object and keep it. Raises OptionsError, BackendError, QmpError."""
    check_id(options.id)
    if options.id in objects:
        raise duplicate_object(options.id)
    objects[options.id] = options.create(objects, sandbox)


async def object_add(context: Context, arguments: ObjectOptions) -> dict[str, Any]:
    host = context.host
    add_object(host.registry.objects, arguments, host.sandbox)
    if host.journal.is_kept:
        await host.journal.keep("objects", arguments.id, unstructure(arguments, OBJECT))
    return {}


async def object_del(context: Context, arguments: ObjectIdArguments) -> dict[str, Any]:
    host = context.host
    is_there = host.registry.objects.pop(arguments.id, None) is not None
    await host.journal.keep("objects", arguments.id, None)  # one that was not restored, too
    if not is_there:
        raise QmpError(f"object '{arguments.id}' not found")
    return {}


OBJECT_COMMANDS: dict[str, Command] = {
    "object-add": Command(OBJECT, object_add),
    "object-del": Command(ObjectIdArguments, object_del),
}
