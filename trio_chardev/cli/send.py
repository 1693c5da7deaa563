"""``trio-chardev send``: what a client of the console would type.

It becomes a client, so that who may type is as for everybody: by descriptor, or at a service of another
machine by a listener. It leaves when the console has read all.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from trio_chardev.cli.client import Service
from trio_chardev.cli.console_stream import Stream, closed_at_end, dial, send_some
from trio_chardev.cli.input import read_some
from trio_chardev.cli.names import STATS, Board, board_in
from trio_chardev.cli.output import say, say_json
from trio_chardev.cli.transcript import bounds_in
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import BackendError, OptionsError

FD_NAME = "trio-chardev-send"
READ_SIZE = 1 << 16
PATIENCE = 10.0  # seconds in which the console takes something of it
INTERVAL = 0.01  # seconds between looks at what it has taken; the longest is 16 times that


async def send(
    service: Service, name: str, text: bytes | None, *, show_cursor: bool, as_json: bool
) -> None:
    """Type *text*, or what comes from standard input, at the console *name*.

    Raises OptionsError if there is no console, BackendError if nobody would get the text.
    """
    board = board_in(await service.ask_if_known(STATS), name)
    console = board.console_side
    await _check_device(service, board)
    async with _attached(service, board) as (stream, attached):
        number = attached["client"]
        await _check_right(service, console, number)
        typing = _Typing(stream, text)
        async with open_background_nursery() as nursery:
            nursery.start_soon(_discard_output, stream)
            nursery.start_soon(typing.run)
            await _wait_taken(service, console, number, typing)
    if as_json:
        say_json({"cursor": attached["cursor"], "bytes": typing.sent})
    elif show_cursor:
        say(str(attached["cursor"]))


async def _check_device(service: Service, board: Board) -> None:
    """Raise BackendError if the bridge would drop the text, as there is no device."""
    for row in await service.ask("query-devices"):
        if row["id"] == board.bridge and row["when-closed"] == "drop":
            side = "chardev" if row["chardev"] == board.device else "peer"
            if row["state"] in (f"{side}-closed", "closed"):
                raise BackendError(f"nobody is there at '{board.device}': the text would be lost")


@asynccontextmanager
async def _attached(
    service: Service, board: Board
) -> AsyncIterator[tuple[Stream, Mapping[str, Any]]]:
    """Be a client of the console; gives the connection, our number and the cursor where we begin."""
    if not service.is_local:
        _, end = bounds_in(await service.ask(STATS, {"id": board.console_side}))
        stream, client = await dial(service, board, "write")
        with closed_at_end(stream):
            yield stream, {"client": client, "cursor": end}
        return
    console = board.console_side
    ours, theirs = trio.socket.socketpair(socket.AF_UNIX)
    with ours:
        with theirs:
            await service.execute("getfd", {"fdname": FD_NAME}, fds=[theirs.fileno()])
        arguments = {"id": console, "fd": FD_NAME, "replay": "off"}
        attached = await service.execute("chardev-attach", arguments)
        yield trio.SocketStream(ours), attached


async def _client(service: Service, console: str, number: int) -> dict[str, Any]:
    for row in await service.ask("query-clients", {"id": console}):
        if row["client"] == number:
            found: dict[str, Any] = row
            return found
    raise BackendError(f"console '{console}' has let us go")


async def _check_right(service: Service, console: str, number: int) -> None:
    """Raise BackendError if somebody else has the right to write."""
    for row in await service.ask("query-clients", {"id": console}):
        if row["client"] != number and row["types"]:
            own = await _client(service, console, number)
            if not own["types"]:
                raise BackendError(
                    f"client {row['client']} ({row['who']}) has the right to write at '{console}'"
                )


@attrs.define
class _Typing:
    """Sends a text, or what comes from standard input."""

    stream: Stream
    text: bytes | None
    sent: int = 0
    """Bytes that are on their way to the console, or there."""
    is_done: bool = False
    error: OptionsError | None = None
    """Why standard input can't be read."""

    async def run(self) -> None:
        """Send all. It ends early if the console has let us go, as others find, too."""
        try:
            if self.text is not None:
                await self._send(self.text)
            else:
                while data := await read_some():
                    await self._send(data)
            if isinstance(self.stream, trio.SocketStream):  # TLS can't end one direction here
                await self.stream.send_eof()
            self.is_done = True
        except OptionsError as exc:
            self.error = exc
        except (OSError, trio.BrokenResourceError):
            return

    async def _send(self, data: bytes) -> None:
        while data:
            size = await send_some(self.stream, data[:READ_SIZE])
            data = data[size:]
            self.sent += size


async def _discard_output(stream: Stream) -> None:
    """Read, so that the console does not find us slow."""
    try:
        while await stream.receive_some(READ_SIZE):
            pass
    except trio.BrokenResourceError:
        pass


async def _wait_taken(service: Service, console: str, number: int, typing: _Typing) -> None:
    """Wait until the console has read all; closing would lose what is on its way."""
    taken, pause = 0, INTERVAL
    patient_until = trio.current_time() + PATIENCE
    while True:
        row = await _client(service, console, number)
        if typing.error is not None:
            raise typing.error
        if row["asks"]:
            raise BackendError(f"somebody else has got the right to write at '{console}'")
        if row["received"] == typing.sent and typing.is_done:
            return
        if row["received"] > taken or row["received"] == typing.sent:
            taken, patient_until = row["received"], trio.current_time() + PATIENCE
        elif trio.current_time() > patient_until:
            raise BackendError(f"the device takes no more: {taken} bytes were sent")
        await trio.sleep(pause)
        pause = min(2 * pause, 16 * INTERVAL)
