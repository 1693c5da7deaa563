"""``trio-chardev list`` and ``clients``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from trio_chardev.cli.asking import Service
from trio_chardev.cli.facts import Facts, facts_of
from trio_chardev.cli.names import STATS, Board, board_in
from trio_chardev.cli.output import say_json
from trio_chardev.cli.table import Row, duration, say_table

_FLOWS: Final = ("to-peer", "to-chardev")


def list_consoles(service: Service, as_json: bool) -> None:
    """Print a row for each board and other chardev; QEMU tells less of each."""
    facts = facts_of(service)
    if facts is None:
        _list_qemu(service, as_json)
    elif as_json:
        say_json([board_json(facts, board) for board in facts.boards])
    else:
        rows = [_board_row(facts, board) for board in facts.boards]
        say_table([("CONSOLE", "DEVICE", "STATE", "CLIENTS", "LAST OUTPUT"), *rows])


def _list_qemu(service: Service, as_json: bool) -> None:
    chardevs = service.ask("query-chardev")
    if as_json:
        say_json(chardevs)
        return
    rows = [
        (row["label"], row["filename"], "open" if row["frontend-open"] else "closed")
        for row in chardevs
    ]
    say_table([("ID", "FILENAME", "FRONTEND"), *rows])


def _board_row(facts: Facts, board: Board) -> Row:
    device, console = board.device, board.console
    last = None if console is None else facts.consoles[console].get("last-output")
    return (
        board.name,
        "-" if device is None else facts.device_text(device),
        facts.state_text(board.device_side),
        "-" if console is None else str(len(facts.clients_of(console))),
        "-" if last is None else f"{duration(time.time() - last)} ago",
    )


def board_json(facts: Facts, board: Board) -> dict[str, Any]:
    """Make what ``list --json`` prints of a board; what there is not is left out."""
    device, console = board.device, board.console
    stats = facts.stats[board.device_side]
    row: dict[str, Any] = {
        "name": board.name,
        "device": device,
        "console": console,
        "bridge": board.bridge,
        "backend": None if device is None else facts.chardevs[device]["backend"],
        "place": None if device is None else facts.device_text(device),
        "line": facts.lines.get(device or ""),
        "clients": None if console is None else len(facts.clients_of(console)),
        "last-output": None if console is None else facts.consoles[console].get("last-output"),
        **{name: value for name, value in stats.items() if name != "id"},
    }
    return {name: value for name, value in row.items() if value is not None}


def list_devices(service: Service, as_json: bool) -> None:
    """Print a row for each bridge, listener and the like."""
    devices = service.ask("query-devices")
    if as_json:
        say_json(devices)
    else:
        say_table([("ID", "DRIVER", "CHARDEVS", "STATE", "BYTES"), *map(_device_row, devices)])


def _device_row(device: Mapping[str, Any]) -> Row:
    ends = [device[name] for name in ("chardev", "peer", "console") if name in device]
    flows = [str(device[name]["bytes"]) for name in _FLOWS if name in device]
    state = device.get("address", device.get("state", "-"))
    return (
        device["id"],
        device["driver"],
        " <-> ".join(ends) or "-",
        state,
        " ".join(flows) or "-",
    )


def list_clients(service: Service, as_json: bool, name: str | None = None) -> None:
    """Print a row for each client, of the console *name* or of all."""
    arguments = {}
    if name is not None:
        arguments["id"] = board_in(service.ask_if_known(STATS), name).console_side
    clients = service.ask("query-clients", arguments)
    if as_json:
        say_json(clients)
    else:
        header = ("CONSOLE", "CLIENT", "WHO", "ROLE", "TYPES", "HERE FOR", "SENT", "BEHIND")
        say_table([header, *map(_client_row, clients)])


def _client_row(client: Mapping[str, Any]) -> Row:
    return (
        client["id"],
        str(client["client"]),
        client["who"],
        client["role"],
        "yes" if client["types"] else "wants to" if client["asks"] else "no",
        duration(time.time() - client["since"]),
        str(client["sent"]),
        str(client["queued"]),
    )


LISTS: Final[Mapping[str, Callable[..., None]]] = {
    "consoles": list_consoles,
    "devices": list_devices,
    "clients": list_clients,
}
"""What ``list`` can list."""
