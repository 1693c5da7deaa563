"""QMP commands that lend a chardev's device to another program, and take it back."""

from __future__ import annotations

from typing import Any

import attrs

from trio_chardev.lending import LendTo
from trio_chardev.qmp.commands.context import ChardevReturn, Command, Context, IdArguments


@attrs.frozen(kw_only=True)
class LendArguments:
    """Arguments of chardev-lend."""

    id: str
    to: LendTo | None = None
    """The device stays open for the user of a PTY; without it, it is closed."""


async def chardev_lend(context: Context, arguments: LendArguments) -> dict[str, Any]:
    """Lend the device of a chardev: it is closed, so that another program can open it.

    The state file keeps nothing of it: after a restart the chardev has its device.
    """
    chardev = await context.host.registry.lend(arguments.id, arguments.to)
    return ChardevReturn.of(chardev)


async def chardev_return(context: Context, arguments: IdArguments) -> dict[str, Any]:
    """Take a device back that was lent: it is opened again."""
    chardev = await context.host.registry.take_back(arguments.id)
    return ChardevReturn.of(chardev)


LENDING_COMMANDS: dict[str, Command] = {
    "chardev-lend": Command(LendArguments, chardev_lend, ChardevReturn),
    "chardev-return": Command(IdArguments, chardev_return, ChardevReturn),
}
