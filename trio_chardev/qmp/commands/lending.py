"""QMP commands that lend a chardev's device to another program, and take it back."""

from __future__ import annotations

from typing import Any

import attrs

from trio_chardev.lending import LendTo
from trio_chardev.qmp.commands.context import Command, Context


@attrs.frozen(kw_only=True)
class LendArguments:
    """Arguments of chardev-lend."""

    id: str
    to: LendTo | None = None
    """The device stays open for the user of a PTY; without it, it is closed."""


@attrs.frozen(kw_only=True)
class ReturnArguments:
    """Arguments of chardev-return."""

    id: str


@attrs.frozen
class LendReturn:
    """What chardev-lend returns: the path of the terminal, if there is one."""

    pty: str | None = None


async def chardev_lend(context: Context, arguments: LendArguments) -> dict[str, Any]:
    """Keeps nothing in the state file: after a restart the chardev has its device."""
    chardev = await context.host.registry.lend(arguments.id, arguments.to)
    return {} if chardev.pty is None else {"pty": chardev.pty}


async def chardev_return(context: Context, arguments: ReturnArguments) -> dict[str, Any]:
    chardev = await context.host.registry.take_back(arguments.id)
    return {} if chardev.pty is None else {"pty": chardev.pty}


LENDING_COMMANDS: dict[str, Command] = {
    "chardev-lend": Command(LendArguments, chardev_lend, LendReturn),
    "chardev-return": Command(ReturnArguments, chardev_return, LendReturn),
}
