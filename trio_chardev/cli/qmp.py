"""Commands that are clients of a service, or of QEMU: ``trio-chardev qmp``, ``list``, ``events``.

The server's answers go to standard output, errors to standard error.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import trio

from trio_chardev.backends.socket.addresses import SocketAddress
from trio_chardev.cli.address import parse_address
from trio_chardev.cli.errors import STATUS_OF_INTERRUPT
from trio_chardev.cli.output import complain, printable, say
from trio_chardev.cli.running import run_until_signal
from trio_chardev.cli.words import parse_arguments
from trio_chardev.qmp.client.client import (
    QmpClient,
    QmpConnectionError,
    QmpError,
    QmpEvent,
    QmpEvents,
    open_qmp_client,
)
from trio_chardev.qmp.json.encoder import encode

Client: TypeAlias = Callable[[SocketAddress], Awaitable[None]]

ANSWER_TIMEOUT = 5.0  # seconds for what an idle server does at once

# Events that may wait while the reader of our output is slow; more are lost, which is reported.
MAX_EVENTS: Final = 1 << 16


def run(socket: str | None, client: Client, status_of_interrupt: int = STATUS_OF_INTERRUPT) -> None:
    """Run *client* with the address *socket*; exit with 1 if the server answers with an error.

    Signals end it as in `run_until_signal`. Raises ChardevError if there is no server.
    """
    address = parse_address(socket)
    try:
        run_until_signal(lambda: client(address), status_of_interrupt)
    except QmpError as exc:
        complain(printable(f"{exc.error_class}: {exc}"))
        sys.exit(1)


def connected(
    address: SocketAddress, *, negotiate: bool = True
) -> AbstractAsyncContextManager[QmpClient]:
    """Open a client that gives up if the server is busy or stopped."""
    return open_qmp_client(address, timeout=ANSWER_TIMEOUT, negotiate=negotiate)


async def ask(qmp: QmpClient, name: str, address: SocketAddress) -> Any:
    """Run a command that never blocks on the server. Raises QmpConnectionError if it takes long."""
    with trio.move_on_after(ANSWER_TIMEOUT):
        return await qmp.execute(name)
    raise QmpConnectionError(
        f"The QMP server '{address}' did not answer {name} within {ANSWER_TIMEOUT:g} seconds"
    )


def command(name: str, words: Iterable[str]) -> Client:
    """Make a client that runs a command and prints its result as JSON."""
    arguments = parse_arguments(words)

    async def client(address: SocketAddress) -> None:
        async with connected(address) as qmp:
            result = await qmp.execute(name, arguments)
        say(_json(result))

    return client


def _json(value: Any) -> str:
    """*value* as JSON: indented on a terminal, else in one line."""
    text = json.dumps(value, indent=4 if sys.stdout.isatty() else None)
    return text.replace("\x7f", r"\u007f")  # JSON need not escape DEL, but terminals obey it


async def print_events(address: SocketAddress) -> None:
    """Print the events, a line of JSON each, until the server goes."""
    async with connected(address, negotiate=False) as qmp:
        with qmp.open_events(max_pending=MAX_EVENTS) as events:
            await qmp.execute("qmp_capabilities")  # after subscribing, so that no event is missed
            await _print_all(events)
        await qmp.execute("qmp_capabilities")  # raises the reason why the events have ended


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
