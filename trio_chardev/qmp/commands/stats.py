"""The QMP commands about how chardevs and devices fare: who waits for what, and what has passed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from trio_chardev.backends.table import name_in_use
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.wall_clock import DIGITS
from trio_chardev.devices.base import DeviceInfo
from trio_chardev.devices.table import DEVICE_INFO
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.console import (
    ClientInfo,
    ConsoleStats,
    consoles_of,
    rows_of_clients,
    rows_of_consoles,
)
from trio_chardev.qmp.commands.context import Command, Context, IdArguments, rows_of
from trio_chardev.registry import Registry

PAUSE_DIGITS = 6  # most pauses are shorter than a millisecond


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
    received: int
    """Bytes that have come from its other end, since it was added."""
    sent: int
    """Bytes that its other end was sent."""
    queued: int
    """Bytes that have come and its user has not taken."""
    unsent: int
    """Bytes that a change has carried over, and its other end has not taken."""
    lost: int
    """Bytes that a hub did not send to it, as it was too slow or failed."""
    connects: int
    """How often somebody has come to its other end, by a change too."""
    failures: int
    """How often an attempt to reach the other end has failed, or a backend has ended by itself."""
    changes: int
    """How often its backend was replaced."""
    failed_changes: int
    """How often it could not be."""
    paused: float
    """Seconds in which changes have let nothing pass."""
    last_pause: float | None = None
    """Those of the last change."""
    change_error: str | None = None
    """Why the last change has failed; absent if it has not."""
    blocked_since: float | None = None
    """Since when its other end takes nothing, though somebody waits to send, in seconds since 1970."""


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
    rows = await rows_of(
        registry, chardevs, lambda one: unstructure(stats_of_chardev(registry, one))
    )
    consoles = consoles_of(chardevs)
    return {
        "chardevs": rows,
        "devices": shown,
        "consoles": rows_of_consoles(consoles),
        "clients": rows_of_clients(consoles),
    }


def stats_of_chardev(registry: Registry, chardev: Chardev) -> ChardevStats:
    """How *chardev* fares."""
    now, statistics = chardev.state, chardev.statistics()
    return ChardevStats(
        id=chardev.id,
        kind=kind_of(registry.options_of(chardev.id)),
        state="lent" if registry.is_lent(chardev.id) else now.state,
        since=round(now.since, DIGITS),
        last_error=now.last_error,
        next_try=None if now.next_try is None else round(now.next_try, DIGITS),
        received=statistics.received,
        sent=statistics.sent,
        queued=statistics.queued,
        unsent=statistics.unsent,
        lost=statistics.lost,
        connects=statistics.connects,
        failures=statistics.failures,
        changes=statistics.changes,
        failed_changes=statistics.failed_changes,
        paused=round(statistics.paused, PAUSE_DIGITS),
        last_pause=(
            None if statistics.last_pause is None else round(statistics.last_pause, PAUSE_DIGITS)
        ),
        change_error=statistics.change_error,
        blocked_since=statistics.blocked_since,
    )


def kind_of(options: BackendOptions) -> str:
    """The name of the kind that takes *options*."""
    return name_in_use(options.meant) or type(options.meant).__name__


def chardev_retry(context: Context, arguments: IdArguments) -> dict[str, Any]:
    """Try now to open or connect, instead of when it would be tried next."""
    context.host.registry[arguments.id].retry()
    return {}


STATS_COMMANDS: dict[str, Command] = {
    "query-chardev-stats": Command(StatsArguments, query_chardev_stats, Stats),
    "chardev-retry": Command(IdArguments, chardev_retry),
}
