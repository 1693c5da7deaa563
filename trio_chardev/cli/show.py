"""``trio-chardev show``: what is known of one chardev, board or device."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trio_chardev.cli.asking import Service
from trio_chardev.cli.facts import Facts, facts_of
from trio_chardev.cli.names import Board, find
from trio_chardev.cli.output import printable, say, say_json
from trio_chardev.cli.spelled import members, spelled
from trio_chardev.cli.table import GAP, LEAST, duration, terminal_width, wrapped
from trio_chardev.plain_errors import OptionsError

Pair = tuple[str, str]
Marks = Sequence[Mapping[str, Any]]


def show(service: Service, name: str, as_json: bool) -> None:
    """Print what is known of *name*. Raises OptionsError if there is no such thing."""
    facts = facts_of(service)
    if facts is None:
        _say(_of_qemu(service, name), as_json)
        return
    devices = {device["id"]: device for device in facts.devices}
    if name in devices and name not in facts.chardevs:
        _say(devices[name], as_json)
        return
    board = find(facts.boards, name)
    marks: Marks = []
    if board.console is not None:
        marks = service.ask("query-marks", {"id": board.console})
    if as_json:
        say_json(_all_of(facts, board, marks))
        return
    pairs = list(_pairs(facts, board, marks))
    _say_pairs(pairs)


def _of_qemu(service: Service, name: str) -> Mapping[str, Any]:
    for row in service.ask("query-chardev"):
        if row["label"] == name:
            found: Mapping[str, Any] = row
            return found
    raise OptionsError(f"there is no '{name}'")


def _say(value: Mapping[str, Any], as_json: bool) -> None:
    """Print *value* as JSON, or its members line by line."""
    if as_json:
        say_json(value)
        return
    _say_pairs([(key, _text(member)) for key, member in value.items()])


def _text(member: Any) -> str:
    if isinstance(member, dict):
        return members(member)
    return member if isinstance(member, str) else json.dumps(member)


def _say_pairs(pairs: Sequence[Pair]) -> None:
    """Print each on a line, or on a terminal on as many as it needs."""
    margin = max(len(key) for key, _ in pairs) + len(GAP)
    width = terminal_width()
    for key, value in pairs:
        room = None if width is None else max(LEAST, width - margin)
        for number, line in enumerate(wrapped(printable(value), room)):
            say(f"{'' if number else key:{margin}}{line}".rstrip())


def _all_of(facts: Facts, board: Board, marks: Marks) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": board.name}
    for side, id in (("device", board.device), ("console", board.console)):
        if id is not None:
            shown[side] = {**facts.chardevs[id], **facts.stats[id]}
            if id in facts.lines:
                shown[side]["line"] = facts.lines[id]
    shown["devices"] = [device for device in facts.devices if _uses(device, board)]
    if board.console is not None:
        shown["console"] |= facts.consoles[board.console]
        shown |= {"clients": facts.clients_of(board.console), "marks": marks}
    return shown


def _uses(device: Mapping[str, Any], board: Board) -> bool:
    ends = {device.get(name) for name in ("chardev", "peer", "console")}
    return not ends.isdisjoint(board.ids)


def _pairs(facts: Facts, board: Board, marks: Marks) -> Iterator[Pair]:
    if board.device is not None:
        yield "device", f"{board.device}: {facts.device_text(board.device)}"
        yield from _chardev_pairs(facts, board.device)
    if board.console is not None:
        yield "console", board.console
        if board.device is None:
            yield from _chardev_pairs(facts, board.console)
        else:
            yield "options", _options_of(facts, board.console)
        yield "history", "from cursor {start} to {end}".format(**facts.consoles[board.console])
        yield "marks", ", ".join(f"{m['name']} {m['cursor']}" for m in marks) or "-"
    for device in facts.devices:
        if _uses(device, board):
            yield device["driver"], _device_text(device)
    for client in facts.clients_of(board.console):
        yield "client", "{client}: {who}, {role}".format(**client)


def _chardev_pairs(facts: Facts, id: str) -> Iterator[Pair]:
    row, stats = facts.chardevs[id], facts.stats[id]
    yield "state", f"{facts.state_text(id)}, since {duration(time.time() - stats['since'])}"
    if "last-error" in stats:
        yield "last error", stats["last-error"]
    if "next-try" in stats:
        yield "next try", f"in {stats['next-try']:.1f} s"
    if "lent-to" in row:
        yield "lent to", row["lent-to"]
    if "received" in stats:
        yield "bytes", "received {received}, sent {sent}".format(**stats)
    yield "options", _options_of(facts, id)
    yield "used by", ", ".join(row["users"]) or ("yes" if row["is-used"] else "-")


def _options_of(facts: Facts, id: str) -> str:
    backend = facts.chardevs[id]["backend"]
    return spelled(backend["type"], backend["data"])


def _device_text(device: Mapping[str, Any]) -> str:
    shown = {
        name: value
        for name, value in device.items()
        if name not in ("driver", "id", "chardev", "peer", "console")
    }
    return f"{device['id']}: {members(shown)}"
