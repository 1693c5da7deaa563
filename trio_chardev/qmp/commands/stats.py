"""The QMP commands about how chardevs and devices fare: who waits for what, and what has passed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from trio_chardev.backends.table import KINDS
from trio_chardev.core.chardev import Chardev
from trio_chardev.devices.base import Counts, DeviceInfo
from trio_chardev.devices.table import DEVICE_INFO
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.structure import unstructure
from trio_chardev.qmp.commands.console import (
    ClientInfo,
    ConsoleStats,
    consoles_of,
    rows_of_clients,
    rows_of_consoles,
)
from trio_chardev.qmp.commands.context import Command, Context, IdArguments, rows_of
from trio_chardev.registry import Registry

DIGITS = 3  # of times in seconds


@attrs.frozen(kw_only=True)
class StatsArguments:
    """Arguments of query-chardev-stats."""

    id: str | None = None
    """A chardev, with the devices that use it, or a device; without it, all."""


@attrs.frozen(kw_only=True)
class ChardevStats:
    """How a chardev fares."""

    id: str
    kind: str
    state: Literal["open", "waiting", "closed", "failed", "lent"]
    """As that of `ChardevState`, or its device is lent."""
    since: float
    """When somebody came or nobody was left, in seconds since 1970."""
    last_error: str | None = None
    """Why nobody is there, if something has ended or failed."""
    next_try: float | None = None
    """In how many seconds it is tried again."""
    received: int | None = None
    """Bytes that have come from it, if its user counts them, as a bridge does."""
    sent: int | None = None
    """Bytes that it was sent by that user."""


@attrs.frozen(kw_only=True)
class Stats:
    """What query-chardev-stats returns."""

    chardevs: tuple[ChardevStats, ...]
    devices: tuple[Annotated[DeviceInfo, DEVICE_INFO], ...]
    """What query-devices shows of them."""
    consoles: tuple[ConsoleStats, ...]
    clients: tuple[ClientInfo, ...]
    """What query-clients shows of those consoles."""


async def query_chardev_stats(context: Context, arguments: StatsArguments) -> dict[str, Any]:
    """Show how chardevs and devices fare: their state, bytes, clients and errors."""
    registry, id = context.host.registry, arguments.id
    devices = [
        device
        for device in registry.devices.values()
        if id is None or device.id == id or id in device.options.chardevs
    ]
    if id is None:
        chardevs = list(registry.values())
    elif id in registry or id not in registry.devices:
        chardevs = [registry[id]]
    else:
        chardevs = []
    shown = [unstructure(device.info, DEVICE_INFO) for device in devices]
    counts = _counts(registry)
    rows = await rows_of(registry, chardevs, lambda one: _stats(registry, one, counts.get(one.id)))
    consoles = consoles_of(chardevs)
    return {
        "chardevs": rows,
        "devices": shown,
        "consoles": rows_of_consoles(consoles),
        "clients": rows_of_clients(consoles),
    }


def _counts(registry: Registry) -> dict[str, Counts]:
    counts: dict[str, Counts] = {}
    for device in registry.devices.values():
        for id in device.options.chardevs:
            if (counted := device.counts_of(id)) is not None:
                counts[id] = counted
    return counts


def _stats(registry: Registry, chardev: Chardev, counts: Counts | None) -> dict[str, Any]:
    now = chardev.state
    stats = ChardevStats(
        id=chardev.id,
        kind=kind_of(registry.options_of(chardev.id)),
        state="lent" if registry.is_lent(chardev.id) else now.state,
        since=round(now.since, DIGITS),
        last_error=now.last_error,
        next_try=None if now.next_try is None else round(now.next_try, DIGITS),
        received=None if counts is None else counts.received,
        sent=None if counts is None else counts.sent,
    )
    row: dict[str, Any] = unstructure(stats)
    return row


def kind_of(options: BackendOptions) -> str:
    """The name of the kind that takes *options*."""
    names = (name for name, kind in KINDS.items() if kind.options is type(options.meant))
    return next(names, type(options.meant).__name__)


def chardev_retry(context: Context, arguments: IdArguments) -> dict[str, Any]:
    """Try now to open or connect, instead of when it would be tried next."""
    context.host.registry[arguments.id].retry()
    return {}


STATS_COMMANDS: dict[str, Command] = {
    "query-chardev-stats": Command(StatsArguments, query_chardev_stats, Stats),
    "chardev-retry": Command(IdArguments, chardev_retry),
}
