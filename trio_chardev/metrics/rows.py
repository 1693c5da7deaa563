"""What the metrics are made of: one look at everything, some of it at a time.

The rows are those of query-chardev-stats, before they become JSON.
"""

from __future__ import annotations

import attrs
import trio

from trio_chardev.backends.console.console import ConsoleBackend
from trio_chardev.devices.bridge import BridgeInfo, FlowInfo
from trio_chardev.qmp.commands.console import (
    ClientInfo,
    ConsoleStats,
    info_of,
    stats_of_console,
)
from trio_chardev.qmp.commands.context import ROWS_AT_ONCE
from trio_chardev.qmp.commands.stats import ChardevStats, stats_of_chardev
from trio_chardev.registry import Registry


@attrs.frozen
class Direction:
    """One direction of a bridge."""

    id: str
    """The bridge."""
    direction: str
    flow: FlowInfo


@attrs.define
class Rows:
    """How everything fares."""

    chardevs: list[ChardevStats] = attrs.Factory(list)
    consoles: list[ConsoleStats] = attrs.Factory(list)
    clients: list[ClientInfo] = attrs.Factory(list)
    bridges: list[BridgeInfo] = attrs.Factory(list)
    directions: list[Direction] = attrs.Factory(list)


async def look(registry: Registry, *, clients: bool) -> Rows:
    """Look at everything that is there, with the *clients* if those are wanted.

    After some of it other tasks run, so what is removed meanwhile may be missing.
    """
    rows = Rows()
    for number, chardev in enumerate(list(registry.values()), 1):
        if registry.get(chardev.id) is chardev:
            rows.chardevs.append(stats_of_chardev(registry, chardev))
            if isinstance(console := chardev.backend, ConsoleBackend):
                rows.consoles.append(stats_of_console(console))
                if clients:
                    rows.clients += [info_of(console, client) for client in console.crowd]
        if number % ROWS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    for number, device in enumerate(list(registry.devices.values()), 1):
        if isinstance(info := device.info, BridgeInfo):
            rows.bridges.append(info)
            rows.directions += [
                Direction(info.id, "to_peer", info.to_peer),
                Direction(info.id, "to_chardev", info.to_chardev),
            ]
        if number % ROWS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return rows
