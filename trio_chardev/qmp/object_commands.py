"""QMP commands about objects: TLS credentials, secrets, lists of who may."""

from __future__ import annotations

from typing import Any

import attrs

from trio_chardev.grammar import check_id
from trio_chardev.objects import OBJECT, ObjectOptions
from trio_chardev.qmp.context import Command, Context
from trio_chardev.qmp.session import QmpError
from trio_chardev.sandbox import EVERYWHERE, Sandbox


@attrs.frozen(kw_only=True)
class ObjectIdArguments:
    """object-del."""

    id: str


def add_object(
    objects: dict[str, object], options: ObjectOptions, sandbox: Sandbox = EVERYWHERE
) -> None:
    """Make an object and keep it. Raises OptionsError, BackendError, QmpError."""
    check_id(options.id)
    if options.id in objects:
        raise QmpError(
            f"attempt to add duplicate property '{options.id}' to object (type 'container')"
        )
    objects[options.id] = options.create(objects, sandbox)


def object_add(context: Context, arguments: ObjectOptions) -> dict[str, Any]:
    add_object(context.host.registry.objects, arguments, context.host.sandbox)
    return {}


def object_del(context: Context, arguments: ObjectIdArguments) -> dict[str, Any]:
    if arguments.id not in context.host.registry.objects:
        raise QmpError(f"object '{arguments.id}' not found")
    del context.host.registry.objects[arguments.id]
    return {}


OBJECT_COMMANDS: dict[str, Command] = {
    "object-add": Command(OBJECT, object_add),
    "object-del": Command(ObjectIdArguments, object_del),
}
