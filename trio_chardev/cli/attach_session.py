"""One connection of ``trio-chardev attach``: QMP, and beside it the bytes of a console.

At a local service we pass one end of a socketpair (getfd), which becomes a client (chardev-attach).
Descriptors can't be passed over TCP; there one of the console's listeners has to do, see `dial`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import trio

from trio_chardev.backends.socket.addresses import SocketAddress
from trio_chardev.cli.asking import ANSWER_TIMEOUT
from trio_chardev.cli.client import Service, connected
from trio_chardev.cli.console_stream import (
    AttachError as AttachError,
    Stream,
    closed_at_end,
    closed_on_error,
    dial,
)
from trio_chardev.cli.names import STATS, Board, board_in
from trio_chardev.errors import OptionsError
from trio_chardev.events import UNKNOWN_SIZE, WindowSize
from trio_chardev.protocols.terminal import QueryFilter
from trio_chardev.qmp.client.client import QmpConnectionError, QmpError, QmpEvent, QmpEvents

CLIENT_EVENTS: Final = ("CHARDEV_CLIENT_TOLD", "CHARDEV_CLIENT_DETACHED")


@attrs.frozen(kw_only=True)
class Wish:
    """What the user wants."""

    name: str
    """Of the console, or of its device or bridge."""
    role: str = "write"
    replay: str | None = None
    takes: bool = False
    """Take the right to write?"""


@attrs.define
class Place:
    """Where in which history we are, to go on there."""

    cursor: int
    history: int


@attrs.define(eq=False, repr=False)
class Session:
    """One connection."""

    service: Service
    board: Board
    stream: Stream
    client: int
    """Our number at the console."""
    events: QmpEvents
    size: WindowSize = UNKNOWN_SIZE
    """The size of our window, as the console knows it."""
    place: Place | None = None
    """Of the next byte that comes; None if that is not known."""
    goes_on: bool = False
    """Does it go on where we were?"""
    live_from: int = 0
    """What is before this cursor is shown again, and must not make the terminal answer."""
    reason: str | None = None
    """Why the console has let us go, of CHARDEV_CLIENT_DETACHED."""
    is_stopping: bool = False
    """Has the service said that it stops?"""
    has_news: trio.Event = attrs.Factory(trio.Event)
    """Set when `reason` is known, or never will be."""
    _filter: QueryFilter = attrs.Factory(QueryFilter)

    @property
    def console(self) -> str:
        """The id of the console."""
        return self.board.console_side

    async def ask(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """Run a *command* about our client at the console. Raises as `Service.ask` does."""
        about = {"id": self.console, "client": self.client}
        return await self.service.ask(command, {**about, **(arguments or {})})

    async def may_type(self) -> bool:
        """Does what we type go to the device? Raises as `ask`."""
        rows = await self.service.ask("query-clients", {"id": self.console})
        return any(row["client"] == self.client and row["types"] for row in rows)

    def take(self, data: bytes) -> bytes:
        """Count *data*, which has come, and return what is to be shown of it."""
        if self.place is None:
            return data
        old = data[: max(0, self.live_from - self.place.cursor)]
        self.place.cursor += len(data)
        shown = self._filter.feed(old)
        if self.place.cursor >= self.live_from:
            shown += self._filter.rest()
        return shown + data[len(old) :]

    def note(self, event: QmpEvent) -> str | None:
        """Note what happens, and return what the user is to be told."""
        if event.name == "SHUTDOWN":
            self.is_stopping = True
        about = event.data.get("id"), event.data.get("client")
        if event.name not in CLIENT_EVENTS or about != (self.console, self.client):
            return None
        if event.name == "CHARDEV_CLIENT_DETACHED":
            self.reason = str(event.data["reason"])
            self.has_news.set()
            return None
        return str(event.data["text"])


@asynccontextmanager
async def open_session(
    address: SocketAddress, wish: Wish, place: Place | None, size: WindowSize
) -> AsyncIterator[Session]:
    """Connect and become a client of a console, at *place* if there is one.

    Raises ChardevError if that fails; exceptions of the block are not changed.
    """
    async with connected(address) as service:
        with service.qmp.open_events() as events:
            board = board_in(await service.ask_if_known(STATS), wish.name)
            if service.is_local:
                session = await _attach(service, board, events, wish, place, size)
            else:
                session = await _by_listener(service, board, events, wish)
            with closed_at_end(session.stream):
                if wish.takes and place is None:
                    await _take_right(session)
                yield session


async def _attach(
    service: Service,
    board: Board,
    events: QmpEvents,
    wish: Wish,
    place: Place | None,
    size: WindowSize,
) -> Session:
    """Become a client by a descriptor, one that counts what it gets."""
    arguments = {"id": board.console_side, "role": wish.role, "exact": True}
    if size.is_known:
        arguments |= {"cols": size.cols, "rows": size.rows}
    goes_on = False
    if place is None:
        replay = {} if wish.replay is None else {"replay": wish.replay}
        sock, answer = await _pass_one_end(service, arguments | replay)
    else:
        since = {"since": place.cursor, "history-id": place.history}
        try:
            sock, answer = await _pass_one_end(service, arguments | since)
            goes_on = True
        except QmpError:  # the history is another
            sock, answer = await _pass_one_end(service, arguments)
    return Session(
        service=service,
        board=board,
        stream=trio.SocketStream(sock),
        client=answer["client"],
        events=events,
        size=size,
        place=Place(answer["cursor"], answer["history-id"]),
        goes_on=goes_on,
        live_from=answer["live-from"],
    )


async def _pass_one_end(
    service: Service, arguments: Mapping[str, Any]
) -> tuple[trio.socket.SocketType, dict[str, Any]]:
    """Make a pair of sockets, and one end of it a client; return the other end."""
    ours, theirs = trio.socket.socketpair()
    name = f"attach-{secrets.token_hex(8)}"  # the monitor's other clients have names, too
    with closed_on_error(ours):
        with theirs, trio.move_on_after(ANSWER_TIMEOUT) as scope:
            await service.execute("getfd", {"fdname": name}, fds=[theirs.fileno()])
        if scope.cancelled_caught:
            raise QmpConnectionError(f"The QMP server '{service.address}' does not answer")
        answer = await service.ask("chardev-attach", {**arguments, "fd": name})
        return ours, answer


async def _by_listener(service: Service, board: Board, events: QmpEvents, wish: Wish) -> Session:
    """Become a client by a listener, of which our cursor is not known. Raises ChardevError."""
    if wish.replay is not None:
        raise OptionsError(
            "--replay needs a service on this host: what a listener shows is its own"
        )
    stream, client = await dial(service, board, wish.role)
    return Session(service=service, board=board, stream=stream, client=client, events=events)


async def _take_right(session: Session) -> None:
    """Take the right to write, unless we have it, as all have with write=all."""
    if not await session.may_type():
        await session.ask("chardev-give-write")
