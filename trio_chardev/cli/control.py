"""The commands that do one thing to a chardev or device, and say little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trio_chardev.cli.client import Service
from trio_chardev.cli.names import board_of
from trio_chardev.cli.output import printable, say, say_json
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.errors import OptionsError
from trio_chardev.options.keyval import parse_keyval, typed
from trio_chardev.options.members import type_of
from trio_chardev.qmp.client.client import QmpError

BREAK_US = 250_000  # microseconds, as tcsendbreak(3) takes at least


def say_pty(result: dict[str, Any], as_json: bool) -> None:
    """Print what chardev-add and the like return: all of it, or the path of a PTY."""
    if as_json:
        say_json(result)
    elif "pty" in result:
        say(printable(str(result["pty"])))


async def remove(service: Service, id: str) -> None:
    """Remove a chardev, or else the device of that name."""
    chardevs = await service.ask("query-chardev")
    if any(row["label"] == id for row in chardevs):
        try:
            await service.execute("chardev-remove", {"id": id})
        except QmpError as exc:
            users = await _users_of(service, id)  # noqa: ASYNC120 - Cancelled says enough
            if not users:
                raise
            text = f"{exc}: {', '.join(map(repr, users))} must be removed first"
            raise QmpError(text, exc.error_class) from exc
        return
    try:
        await service.execute("device_del", {"id": id})
    except QmpError as exc:
        if exc.error_class in ("CommandNotFound", "DeviceNotFound"):
            raise OptionsError(f"there is no chardev and no device '{id}'") from exc
        raise


async def _users_of(service: Service, id: str) -> list[str]:
    """The ids of what uses chardev *id*; of QEMU that is not known."""
    rows = await service.ask_if_known("query-chardev-details")
    return [user for row in rows or () if row["label"] == id for user in row["users"]]


def parse_bridge(a: str, b: str, options: str, warn: Callable[[str], object]) -> dict[str, Any]:
    """Make the arguments of device_add. Raises OptionsError, and HelpRequested."""
    parsed: dict[str, Any] = typed(type_of(BridgeOptions), parse_keyval(options, None, warn))
    for name in ("driver", "chardev", "peer"):
        if name in parsed:
            raise OptionsError(f"Unexpected '{name}' parameter")
    return {"driver": "bridge", "id": f"{a}-bridge", **parsed, "chardev": a, "peer": b}


async def on_device(service: Service, command: str, name: str, as_json: bool = False) -> None:
    """Run *command* on the device side of *name*."""
    board = await board_of(service, name)
    say_pty(await service.execute(command, {"id": board.device_side}), as_json)


async def lend(service: Service, name: str, pty: bool, as_json: bool) -> None:
    """Lend the device of *name*."""
    board = await board_of(service, name)
    arguments = {"id": board.device_side} | ({"to": "pty"} if pty else {})
    say_pty(await service.execute("chardev-lend", arguments), as_json)


async def send_break(service: Service, name: str) -> None:
    """Send a break to the device of *name*, if it has one; else to the chardev's user, as QEMU does.

    A bridge would leave out what the device can't do; here that is an error.
    """
    board = await board_of(service, name)
    id = board.device_side
    line = await service.ask_if_known("chardev-get-line", {"id": id})
    if line is not None and "break" in line["supported"]:
        steps = [{"break": True, "pause-us": BREAK_US}, {"break": False}]
        await service.execute("chardev-line-sequence", {"id": id, "steps": steps})
    elif board.bridge is not None:
        raise OptionsError(f"the backend of '{id}' can't send a break")
    else:
        await service.execute("chardev-send-break", {"id": id})


async def mark(service: Service, name: str, mark: str, as_json: bool) -> None:
    """Mark the place in the output of the console *name*, and print its cursor."""
    board = await board_of(service, name)
    marked = await service.execute("chardev-mark", {"id": board.console_side, "name": mark})
    if as_json:
        say_json(marked)
    else:
        say(str(marked["cursor"]))


async def on_client(
    service: Service, command: str, name: str, client: int, more: dict[str, Any]
) -> None:
    """Run *command* on a client of the console *name*."""
    board = await board_of(service, name)
    await service.execute(command, {"id": board.console_side, "client": client, **more})


async def reload(service: Service, as_json: bool) -> None:
    """Apply what the configuration says now, and say what that was."""
    result = await service.execute("config-reload")
    if as_json:
        say_json(result)
        return
    for what in ("added", "changed", "removed"):
        if result[what]:
            say(printable(f"{what}: {', '.join(result[what])}"))
    if not any(result.values()):
        say("nothing has changed")
