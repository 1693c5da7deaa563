"""What a service says of its chardevs, consoles and devices, put together for `list` and `show`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from trio_chardev.cli.asking import Service
from trio_chardev.cli.names import Board, boards_of
from trio_chardev.cli.table import place_of

Row = Mapping[str, Any]
MAX_ASKED: Final = 1000  # serial lines whose settings are asked for


@attrs.frozen(kw_only=True)
class Facts:
    """What a service says; by id."""

    chardevs: Mapping[str, Row]
    """As in query-chardev-details."""
    stats: Mapping[str, Row]
    """As in query-chardev-stats."""
    consoles: Mapping[str, Row]
    """As in its consoles."""
    devices: Sequence[Row]
    """As in query-devices."""
    clients: Sequence[Row]
    """As in query-clients."""
    lines: Mapping[str, Row]
    """As in chardev-get-line, of those that have such settings."""

    @property
    def boards(self) -> list[Board]:
        """All boards."""
        kinds = {id: row["kind"] for id, row in self.stats.items() if id in self.chardevs}
        return list(boards_of(kinds, self.devices))

    def clients_of(self, console: str | None) -> list[Row]:
        """The clients of a console."""
        return [client for client in self.clients if client["id"] == console]

    def listeners_of(self, console: str) -> list[Row]:
        """The listeners of a console."""
        return [row for row in self.devices if row.get("console") == console]

    def device_text(self, id: str) -> str:
        """Say in one line what chardev *id* leads to: ``serial /dev/ttyUSB0 115200 8N1``."""
        row = self.chardevs[id]
        kind, data = row["backend"]["type"], row["backend"]["data"]
        words = [word for word in ("websocket", "telnet", "tn3270", "rfc2217") if data.get(word)]
        words += ["tls"] if "tls-creds" in data else []
        place = place_of(kind, data, row["filename"])
        if kind != "socket" or ":" not in place:  # else the place says it
            words.insert(0, kind)
        if place != "-":
            words.append(place)
        line = self.lines.get(id, {})
        if "speed" in line:
            words.append("{speed} {data-bits}{parity}{stop-bits}".format(**line))
        return " ".join(words)

    def state_text(self, id: str) -> str:
        """Say what state chardev *id* is in, and when it is tried again."""
        row = self.stats[id]
        state: str = row["state"]
        if "next-try" in row:
            state += f" {math.ceil(row['next-try'])} s"
        return f"{state}, more wait" if self.chardevs[id]["others-wait"] else state


def facts_of(service: Service) -> Facts | None:
    """Ask for all; None if the server is QEMU. Raises as `Service.ask`."""
    chardevs = service.ask_if_known("query-chardev-details")
    if chardevs is None:
        return None
    stats = service.ask("query-chardev-stats")
    asked = [row["label"] for row in chardevs if has_settings(row["backend"])][:MAX_ASKED]
    replies = service.ask_each("chardev-get-line", ({"id": id} for id in asked))
    # Without a line are those that are gone, or have lost it, and those that don't answer in time.
    lines = {id: got.value for id, got in zip(asked, replies, strict=False) if got.error is None}
    return Facts(
        chardevs={row["label"]: row for row in chardevs},
        stats={row["id"]: row for row in stats["chardevs"]},
        devices=stats["devices"],
        consoles={row["id"]: row for row in stats["consoles"]},
        clients=stats["clients"],
        lines=lines,
    )


def has_settings(backend: Row) -> bool:
    """May a chardev with this backend have a speed and the like?"""
    return bool(backend["type"] == "serial" or backend["data"].get("rfc2217"))
