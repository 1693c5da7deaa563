"""What a shell completes: ids that a running service has. See docs/commands.md.

It imports little, so that small commands start quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from trio_chardev.cli.client import Service

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
    import trio

    from trio_chardev.cli.address import parse_address
    from trio_chardev.cli.client import connected
    from trio_chardev.cli.running import run
    from trio_chardev.errors import ChardevError
    from trio_chardev.qmp.client.client import QmpError

    names: list[str] = []

    async def main() -> None:
        with trio.move_on_after(TIMEOUT):
            async with connected(parse_address(socket)) as service:
                names.extend(choose(await _stats(service)))

    try:
        run(main)
    except* (ChardevError, QmpError):
        names.clear()
    return names


async def _stats(service: Service) -> Mapping[str, Any]:
    """What query-chardev-stats returns; of QEMU, as much as it has."""
    stats = await service.ask_if_known("query-chardev-stats")
    if stats is not None:
        return dict(stats)
    rows = await service.ask("query-chardev")
    return {"chardevs": [{"id": row["label"], "kind": ""} for row in rows], "devices": []}


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
