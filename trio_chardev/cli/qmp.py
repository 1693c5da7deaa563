"""``trio-chardev qmp -`` and ``events``: QMP as it is, as long as it goes on."""

from __future__ import annotations

import math
from typing import Any, Final

from trio_chardev.cli.client import Service
from trio_chardev.cli.input import Lines
from trio_chardev.cli.output import complain, say, say_json
from trio_chardev.cli.qmp_command import SCHEMA, settle_by
from trio_chardev.cli.schema import needs_schema
from trio_chardev.cli.words import parse_line
from trio_chardev.plain_errors import OptionsError
from trio_chardev.qmp.client.client import QmpError, QmpEvent, QmpEvents
from trio_chardev.qmp.json.encoder import encode

# Events that may wait while the reader of our output is slow; more are lost, which is reported.
MAX_EVENTS: Final = 1 << 16


async def run_script(service: Service) -> None:
    """Run the commands in standard input, a line each, until one fails.

    Raises OptionsError and QmpError, with the number of the line.
    """
    async for number, line in Lines():
        try:
            if (parsed := parse_line(line)) is not None:
                name, arguments = parsed
                if line.lstrip().startswith("{"):  # QMP, to be taken at its word
                    say_json(await service.execute(name, arguments))
                else:
                    entities = None
                    if needs_schema(arguments):
                        entities = await service.ask_if_known(SCHEMA)
                    settle_by(entities, arguments, name)
                    say_json(await service.execute(name, arguments))
        except OptionsError as exc:
            raise OptionsError(f"line {number}: {exc}") from exc
        except QmpError as exc:
            raise QmpError(f"line {number}: {exc}", exc.error_class) from exc


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
