"""QMP commands about the clients of consoles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import attrs

from trio_chardev.backends.console.client import Client, Newcomer
from trio_chardev.backends.console.console import ConsoleBackend
from trio_chardev.backends.console.goodbye import Goodbye
from trio_chardev.backends.console.history import History
from trio_chardev.backends.console.options import Manner, Role, parse_replay
from trio_chardev.backends.socket.passed import socket_from_fd
from trio_chardev.backends.socket.rights import close_socket
from trio_chardev.backends.socket.stack import plain_link
from trio_chardev.core.chardev import Chardev
from trio_chardev.devices.listener import name_of
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.events import WindowSize
from trio_chardev.options.members import IntRange
from trio_chardev.options.unstructure import unstructure
from trio_chardev.qmp.commands.context import Command, Context

MAX_REASON = 100  # characters
UINT16 = Annotated[int, IntRange("uint16", 0, 0xFFFF)]


@attrs.frozen(kw_only=True)
class AttachArguments:
    """Arguments of chardev-attach."""

    id: str
    """The console."""
    fd: str
    """The name of a connected stream socket, given by getfd, whose peer becomes a client."""
    role: Role = "write"
    replay: str | None = None
    """What of the history it gets first, as the console's option."""
    since: int | None = None
    """The cursor to begin at instead, for one who was there before."""
    history_id: int | None = None
    """What the chardev-attach returned with which `since` was counted. If the console has gone on
    since then with the history's file, it begins at what was not sent then; if the history is
    another, this fails."""
    cols: UINT16 = 0
    rows: UINT16 = 0
    exact: bool = False
    """Does it count what it gets, to come again by `since`? Then it gets each byte that was printed
    and nothing else: queries in what is replayed too, and what people are told comes by the event
    CHARDEV_CLIENT_TOLD. If it is too slow it is let go."""
    in_band: bool | None = None
    """Is it a person, who is told in lines of text why he is let go, and the like? By default it is
    if it has a window and is not `exact`."""


@attrs.frozen
class AttachReturn:
    """A client that was made."""

    client: int
    cursor: int
    """Of the first byte that it gets."""
    live_from: int
    """What it gets before this cursor is shown again."""
    history_id: int
    """For a later chardev-attach; another after each start."""


@attrs.frozen(kw_only=True)
class OptionalIdArguments:
    """Arguments of a command about one chardev, or all."""

    id: str | None = None
    """The chardev; without it the command is about all."""


@attrs.frozen(kw_only=True)
class ClientArguments:
    """Arguments of a command about one client."""

    id: str
    """The console."""
    client: int
    """The client's number."""


@attrs.frozen(kw_only=True)
class KickArguments:
    """Arguments of chardev-kick."""

    id: str
    """The console."""
    client: int
    """The client's number."""
    reason: str | None = None
    """It is told this."""


@attrs.frozen(kw_only=True)
class ClientInfo:
    """A client of a console."""

    client: int
    id: str
    """The console."""
    who: str
    """Its name in TLS, or else as `address`."""
    address: str
    """Where it comes from, or whose it is at a UNIX socket."""
    role: Role
    types: bool
    """Does what it types go to the device?"""
    asks: bool
    """Has it typed in vain?"""
    since: float
    """When it came, in seconds since 1970."""
    sent: int
    """Bytes of the output that it was sent."""
    received: int
    """Bytes that have come from it."""
    queued: int
    """Bytes that are still to be sent to it."""
    skipped: int
    """Bytes that it has not got because it was too slow."""
    blocked_since: float | None = None
    """Since when it takes nothing, in seconds since 1970."""
    cols: int | None = None
    rows: int | None = None


@attrs.frozen(kw_only=True)
class ConsoleStats:
    """How a console fares."""

    id: str
    start: int
    """The cursor of the oldest byte that is there."""
    end: int
    """The cursor after the newest: how many bytes were ever printed."""
    clients: int
    """How many there are."""
    writer: int | None = None
    """The client who has the right to write, with write=first and write=one."""
    sent: int
    """Bytes of the output that clients were sent, those who have left too."""
    received: int
    """Bytes that have come from them."""
    skipped: int
    """Bytes that they have not got because they were too slow."""
    attached: int
    """How many have ever come."""
    refused: int
    """How many were not let in, as it was full."""
    let_go: int
    """How many were let go, rather than leave."""
    queued: int
    """Bytes that are still to be sent to those who are there."""
    blocked: int
    """How many of them take nothing."""
    blocked_since: float | None = None
    """Since when the first of those does, in seconds since 1970."""
    last_output: float | None = None
    """When something was printed last, in seconds since 1970; absent if that is not known."""


def _number_of(client: Client | None) -> int | None:
    return None if client is None else client.number


def console_at(context: Context, id: str) -> ConsoleBackend:
    """Return the backend of a chardev that is a console now. Raises OptionsError otherwise."""
    backend = context.host.registry[id].backend
    if not isinstance(backend, ConsoleBackend):
        raise OptionsError(f"Chardev '{id}' is no console")
    return backend


def client_of(context: Context, id: str, number: int) -> tuple[ConsoleBackend, Client]:
    """Return a console and its client. Raises OptionsError if there is none."""
    console = console_at(context, id)
    try:
        return console, console.crowd.clients[number]
    except KeyError:
        raise OptionsError(f"console '{id}' has no client {number}") from None


def chardev_attach(context: Context, arguments: AttachArguments) -> dict[str, Any]:
    """Make the peer of a socket a client. The descriptor is used up, even if this raises."""
    has_window = arguments.cols > 0 and arguments.rows > 0
    sock = socket_from_fd(context.fds.take(arguments.fd), arguments.fd)
    try:
        console = console_at(context, arguments.id)
        manner = _manner(arguments, console.history, has_window=has_window)
        newcomer = Newcomer(
            link=plain_link(sock, f"fd:{arguments.fd}"),
            who=name_of(sock),
            manner=manner,
            size=WindowSize(arguments.cols, arguments.rows) if has_window else None,
        )
        client = console.admit(newcomer)
    except OSError as exc:
        close_socket(sock)
        raise BackendError.from_os_error("Failed to attach", exc) from exc
    except BaseException:
        close_socket(sock)
        raise
    result: dict[str, Any] = unstructure(
        AttachReturn(
            client.number, client.begins_at, client.live_from, console.history.lives.number
        )
    )
    return result


def _since(arguments: AttachArguments, history: History) -> int | None:
    """Say at which cursor one begins who was there before. Raises OptionsError."""
    if arguments.since is None or arguments.history_id is None:
        return arguments.since
    cursor = history.lives.resume(arguments.since, arguments.history_id)
    if cursor is None:
        raise OptionsError(f"console '{arguments.id}' has another history")
    return cursor


def _manner(arguments: AttachArguments, history: History, *, has_window: bool) -> Manner:
    """Say how the new client is treated. Raises OptionsError."""
    if arguments.replay is not None:
        parse_replay(arguments.replay)
    if arguments.exact and arguments.in_band:
        raise OptionsError("'exact' and 'in-band' are mutually exclusive")
    is_told = has_window and not arguments.exact
    return Manner(
        role=arguments.role,
        replay=arguments.replay,
        since=_since(arguments, history),
        is_told=is_told if arguments.in_band is None else arguments.in_band,
        is_exact=arguments.exact,
    )


def query_clients(context: Context, arguments: OptionalIdArguments) -> list[dict[str, Any]]:
    """List the clients of a console, or of all."""
    if arguments.id is not None:
        return rows_of_clients([console_at(context, arguments.id)])
    return rows_of_clients(consoles_of(context.host.registry.values()))


def consoles_of(chardevs: Iterable[Chardev]) -> list[ConsoleBackend]:
    """Those of *chardevs* that are consoles now."""
    backends = [chardev.backend for chardev in chardevs if chardev.is_started]
    return [backend for backend in backends if isinstance(backend, ConsoleBackend)]


def rows_of_clients(consoles: Iterable[ConsoleBackend]) -> list[dict[str, Any]]:
    """A `ClientInfo` for each client, as JSON."""
    return [
        unstructure(info_of(console, client)) for console in consoles for client in console.crowd
    ]


def rows_of_consoles(consoles: Iterable[ConsoleBackend]) -> list[dict[str, Any]]:
    """A `ConsoleStats` for each, as JSON."""
    return [unstructure(stats_of_console(console)) for console in consoles]


def stats_of_console(console: ConsoleBackend) -> ConsoleStats:
    """How *console* fares."""
    crowd, history = console.crowd, console.history
    tally = crowd.tally
    blocked = [client.blocked_since for client in crowd if client.is_blocked]
    return ConsoleStats(
        id=crowd.id,
        start=history.start,
        end=history.end,
        clients=len(crowd.clients),
        writer=_number_of(crowd.keyboard.writer),
        sent=tally.sent,
        received=tally.received,
        skipped=tally.skipped,
        attached=crowd.came,
        refused=crowd.turned_away,
        let_go=crowd.let_go,
        queued=sum(client.behind(history) for client in crowd),
        blocked=len(blocked),
        blocked_since=min(filter(None, blocked), default=None),
        last_output=history.written_at,
    )


def info_of(console: ConsoleBackend, client: Client) -> ClientInfo:
    """How *client* fares, which is at *console*."""
    crowd, size = console.crowd, client.size
    return ClientInfo(
        client=client.number,
        id=crowd.id,
        who=client.who,
        address=client.newcomer.address,
        role=client.manner.role,
        types=crowd.keyboard.may_type(client),
        asks=client.asks,
        since=round(client.since, 3),
        sent=client.sent,
        received=client.received,
        queued=client.behind(console.history),
        skipped=client.skipped,
        blocked_since=client.blocked_since,
        cols=None if size is None else size.cols,
        rows=None if size is None else size.rows,
    )


def chardev_kick(context: Context, arguments: KickArguments) -> dict[str, Any]:
    """Let a client of a console go, and tell it why."""
    console, client = client_of(context, arguments.id, arguments.client)
    if arguments.reason is not None and not (
        arguments.reason.isprintable() and len(arguments.reason) <= MAX_REASON
    ):
        raise OptionsError(f"'reason' is one line of at most {MAX_REASON} characters")
    text = "kicked" if arguments.reason is None else f"kicked: {arguments.reason}"
    console.crowd.remove(client, Goodbye("kicked", text))
    return {}


def chardev_give_write(context: Context, arguments: ClientArguments) -> dict[str, Any]:
    """Give a client of a console the right to write."""
    console, client = client_of(context, arguments.id, arguments.client)
    console.crowd.keyboard.give_write(client)
    return {}


CONSOLE_COMMANDS: dict[str, Command] = {
    "chardev-attach": Command(AttachArguments, chardev_attach, AttachReturn),
    "query-clients": Command(OptionalIdArguments, query_clients, tuple[ClientInfo, ...]),
    "chardev-kick": Command(KickArguments, chardev_kick),
    "chardev-give-write": Command(ClientArguments, chardev_give_write),
}
"""The rows of this module."""
