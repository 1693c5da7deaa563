"""QMP commands about the line of a chardev: its settings, modem lines and break."""

from __future__ import annotations

from typing import Any

import attrs

from trio_chardev.core.line_change import LineChange, LineState
from trio_chardev.options.structure import unstructure
from trio_chardev.qmp.commands.context import Command, Context


@attrs.frozen(kw_only=True)
class LineIdArguments:
    """Arguments of chardev-get-line."""

    id: str


@attrs.frozen(kw_only=True)
class SetLineArguments:
    """Arguments of chardev-set-line."""

    id: str
    settings: LineChange


async def chardev_get_line(context: Context, arguments: LineIdArguments) -> dict[str, Any]:
    state = await context.host.registry[arguments.id].line.read()
    result: dict[str, Any] = unstructure(state)
    return result


async def chardev_set_line(context: Context, arguments: SetLineArguments) -> dict[str, Any]:
    await context.host.registry[arguments.id].line.change(arguments.settings)
    return {}


LINE_COMMANDS: dict[str, Command] = {
    "chardev-get-line": Command(LineIdArguments, chardev_get_line, LineState),
    "chardev-set-line": Command(SetLineArguments, chardev_set_line),
}
