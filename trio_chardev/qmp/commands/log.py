"""The QMP command about log files."""

from __future__ import annotations

from typing import Any

import attrs

from trio_chardev.qmp.commands.context import Command, Context


@attrs.frozen(kw_only=True)
class ReopenArguments:
    """Arguments of chardev-reopen-log."""

    id: str | None = None
    """The chardev; without it, all that have a log file."""


async def chardev_reopen_log(context: Context, arguments: ReopenArguments) -> dict[str, Any]:
    """Open the log file of a chardev, or all, anew, as after a rotation.

    It answers when what is written goes to the files that have the names now.
    """
    await context.host.reopen_logs(arguments.id)
    return {}


LOG_COMMANDS: dict[str, Command] = {
    "chardev-reopen-log": Command(ReopenArguments, chardev_reopen_log),
}
