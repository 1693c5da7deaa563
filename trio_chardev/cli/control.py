"""The commands that do one thing to a chardev or device, and say little."""

from __future__ import annotations

from typing import Any

from trio_chardev.cli.asking import Service
from trio_chardev.cli.names import STATS, board_in
from trio_chardev.cli.output import printable, say, say_json
from trio_chardev.plain_errors import OptionsError
from trio_chardev.qmp.errors import QmpError

BREAK_US = 250_000  # microseconds, as tcsendbreak(3) takes at least


def say_pty(result: dict[str, Any], as_json: bool) -> None:
    """Print what chardev-add and the like return: all of it, or the path of a PTY."""
    if as_json:
        say_json(result)
    elif "pty" in result:
        say(printable(str(result["pty"])))


def remove(service: Service, id: str) -> None:
    """Remove a chardev, or else the device of that name."""
    chardevs = service.ask("query-chardev")
    if any(row["label"] == id for row in chardevs):
        try:
            service.execute("chardev-remove", {"id": id})
        except QmpError as exc:
            users = _users_of(service, id)
            if not users:
                raise
            text = f"{exc}: {', '.join(map(repr, users))} must be removed first"
            raise QmpError(text, exc.error_class) from exc
        return
    try:
        service.execute("device_del", {"id": id})
    except QmpError as exc:
        if exc.error_class in ("CommandNotFound", "DeviceNotFound"):
            raise OptionsError(f"there is no chardev and no device '{id}'") from exc
        raise


def _users_of(service: Service, id: str) -> list[str]:
    """The ids of what uses chardev *id*; of QEMU that is not known."""
    rows = service.ask_if_known("query-chardev-details")
    return [user for row in rows or () if row["label"] == id for user in row["users"]]


def on_device(service: Service, command: str, name: str, as_json: bool = False) -> None:
    """Run *command* on the device side of *name*."""
    board = board_in(service.ask_if_known(STATS), name)
    say_pty(service.execute(command, {"id": board.device_side}), as_json)


def lend(service: Service, name: str, pty: bool, as_json: bool) -> None:
    """Lend the device of *name*."""
    board = board_in(service.ask_if_known(STATS), name)
    arguments = {"id": board.device_side} | ({"to": "pty"} if pty else {})
    say_pty(service.execute("chardev-lend", arguments), as_json)


def send_break(service: Service, name: str) -> None:
    """Send a break to the device of *name*, if it has one; else to the chardev's user, as QEMU does.

    A bridge would leave out what the device can't do; here that is an error.
    """
    board = board_in(service.ask_if_known(STATS), name)
    id = board.device_side
    line = service.ask_if_known("chardev-get-line", {"id": id})
    if line is not None and "break" in line["supported"]:
        steps = [{"break": True, "pause-us": BREAK_US}, {"break": False}]
        service.execute("chardev-line-sequence", {"id": id, "steps": steps})
    elif board.bridge is not None:
        raise OptionsError(f"the backend of '{id}' can't send a break")
    else:
        service.execute("chardev-send-break", {"id": id})


def mark(service: Service, name: str, mark: str, as_json: bool) -> None:
    """Mark the place in the output of the console *name*, and print its cursor."""
    board = board_in(service.ask_if_known(STATS), name)
    marked = service.execute("chardev-mark", {"id": board.console_side, "name": mark})
    if as_json:
        say_json(marked)
    else:
        say(str(marked["cursor"]))


def on_client(service: Service, command: str, name: str, client: int, more: dict[str, Any]) -> None:
    """Run *command* on a client of the console *name*."""
    board = board_in(service.ask_if_known(STATS), name)
    service.execute(command, {"id": board.console_side, "client": client, **more})


def reload(service: Service, as_json: bool) -> None:
    """Apply what the configuration says now, and say what that was."""
    result = service.execute("config-reload")
    if as_json:
        say_json(result)
        return
    for what in ("added", "changed", "removed"):
        if result[what]:
            say(printable(f"{what}: {', '.join(result[what])}"))
    if not any(result.values()):
        say("nothing has changed")
