"""What a shell completes: ids that a running service has. See docs/commands.md.

It imports little, so that small commands start quickly.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from trio_chardev.qmp.client.plain import PlainQmpClient

TIMEOUT: Final = 0.3  # seconds in which the service has to answer; a person waits

Chooser = Callable[[Mapping[str, Any]], Iterable[str]]
"""Picks names from what query-chardev-stats returns."""
Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def completer(choose: Chooser) -> Completer:
    """Make what click calls for the words that may stand where *incomplete* is."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        names = _ask(context.params.get("socket"), choose)
        return sorted({name for name in names if name.startswith(incomplete)})

    return complete


def _ask(socket: str | None, choose: Chooser) -> list[str]:
    """The names at a service; none if it does not answer in time, for whatever reason."""
    from trio_chardev.cli.address import parse_address, tls_of
    from trio_chardev.plain_errors import ChardevError
    from trio_chardev.qmp.client.plain import open_plain_client

    until = time.monotonic() + TIMEOUT
    try:
        address = parse_address(socket)
        qmp = open_plain_client(address, timeout=TIMEOUT, **tls_of(address))
        with contextlib.closing(qmp):
            return list(choose(_stats(qmp, until)))
    except ChardevError:
        return []


def _stats(qmp: PlainQmpClient, until: float) -> Mapping[str, Any]:
    """What query-chardev-stats returns; of QEMU, as much as it has."""
    from trio_chardev.qmp.errors import QmpError

    try:
        stats: Mapping[str, Any] = qmp.execute("query-chardev-stats", timeout=_left(until))
    except QmpError as exc:
        if not exc.is_unknown_command:
            raise
        rows = qmp.execute("query-chardev", timeout=_left(until))
        stats = {"chardevs": [{"id": row["label"], "kind": ""} for row in rows], "devices": []}
    return stats


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _boards(stats: Mapping[str, Any], side: str) -> Iterable[str]:
    from trio_chardev.cli.names import boards_of

    kinds = {row["id"]: row["kind"] for row in stats["chardevs"]}
    for board in boards_of(kinds, stats["devices"]):
        if getattr(board, side) is not None:
            yield board.name


def _chardevs(stats: Mapping[str, Any]) -> Iterable[str]:
    return (row["id"] for row in stats["chardevs"])


def _devices(stats: Mapping[str, Any]) -> Iterable[str]:
    return (row["id"] for row in stats["devices"])


CHARDEVS: Final = completer(_chardevs)
"""Ids of chardevs."""
ALL: Final = completer(lambda stats: [*_chardevs(stats), *_devices(stats)])
"""Ids of chardevs and of devices, such as bridges."""
WITH_CONSOLE: Final = completer(lambda stats: _boards(stats, "console"))
"""Names of consoles."""
WITH_DEVICE: Final = completer(lambda stats: _boards(stats, "device"))
"""Names of what a console, or somebody, uses."""
