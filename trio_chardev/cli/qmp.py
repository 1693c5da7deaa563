"""``trio-chardev qmp`` and ``events``: QMP as it is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from trio_chardev.cli.client import Service
from trio_chardev.cli.output import complain, say, say_json
from trio_chardev.cli.words import parse_arguments
from trio_chardev.qmp.client.client import QmpEvent, QmpEvents
from trio_chardev.qmp.json.encoder import encode

# Events that may wait while the reader of our output is slow; more are lost, which is reported.
MAX_EVENTS: Final = 1 << 16


async def run_command(service: Service, name: str, words: Iterable[str]) -> None:
    """Run a command and print its result as JSON."""
    say_json(await service.execute(name, parse_arguments(words)))


async def print_events(service: Service) -> None:
    """Print the events, a line of JSON each, until the server goes; it is not negotiated with yet."""
    with service.qmp.open_events(max_pending=MAX_EVENTS) as events:
        await service.execute("qmp_capabilities")  # after subscribing, so that no event is missed
        await _print_all(events)
    await service.execute("qmp_capabilities")  # raises the reason why the events have ended


async def _print_all(events: QmpEvents) -> None:
    told = 0
    async for event in events:
        say(encode(_message(event)).decode().rstrip())
        if events.dropped > told:
            complain(f"trio-chardev: {events.dropped - told} events are lost")
            told = events.dropped


def _message(event: QmpEvent) -> dict[str, Any]:
    """Make the QMP message of *event*."""
    fraction, seconds = math.modf(event.timestamp)
    timestamp = {"seconds": int(seconds), "microseconds": round(fraction * 1_000_000)}
    return {"timestamp": timestamp, "event": event.name, "data": event.data}
