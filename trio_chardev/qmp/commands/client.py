"""QMP commands for what a client of a console can't say in the bytes that it sends."""

from __future__ import annotations

from typing import Any

import attrs

from trio_chardev.errors import OptionsError
from trio_chardev.events import Event, WindowSize
from trio_chardev.qmp.commands.console import UINT16, ClientArguments, client_of
from trio_chardev.qmp.commands.context import Command, Context


@attrs.frozen(kw_only=True)
class ClientSizeArguments:
    """Arguments of chardev-client-size; 0 and 0: the size is not known."""

    id: str
    client: int
    cols: UINT16
    rows: UINT16


def chardev_client_size(context: Context, arguments: ClientSizeArguments) -> dict[str, Any]:
    """Tell the size of a client's window."""
    console, client = client_of(context, arguments.id, arguments.client)
    console.crowd.keyboard.heard(client, WindowSize(arguments.cols, arguments.rows))
    return {}


def chardev_client_break(context: Context, arguments: ClientArguments) -> dict[str, Any]:
    """Send a break from a client to the device."""
    console, client = client_of(context, arguments.id, arguments.client)
    if not console.crowd.keyboard.lets_type(client):
        raise OptionsError(f"client {client.number} has no right to write")
    console.crowd.keyboard.heard(client, Event.BREAK)
    return {}


CLIENT_COMMANDS: dict[str, Command] = {
    "chardev-client-size": Command(ClientSizeArguments, chardev_client_size),
    "chardev-client-break": Command(ClientArguments, chardev_client_break),
}
"""The rows of this module."""
