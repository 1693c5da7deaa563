"""The line as the clients of a console see it, who speak RFC 2217.

What one of them asks comes as an event if he may type, and he alone is answered; one who may not is
told what is in force. What is told of the line, all are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import attrs
import trio

from trio_chardev.backends.console.client import Client
from trio_chardev.backends.console.keyboard import Keyboard
from trio_chardev.backends.socket.layer import Layer
from trio_chardev.backends.socket.line import ServedLine
from trio_chardev.core.line import BREAK_DURATION, Line
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import BackendEvent, LineRequest, LineSettings, ModemLines, WindowSize
from trio_chardev.protocols.com_port import Port

MAX_ASKED = 64
"""Requests that may wait for an answer."""


class Clients(Protocol):
    """The clients of the console."""

    def __iter__(self) -> Iterator[Client]: ...


@attrs.define(eq=False, repr=False)
class ClientSocket:
    """One client, as its `ServedLine` sees it; a `LayeredSocket`."""

    client: Client
    hear: Callable[[BackendEvent], None]
    answers: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)

    @property
    def filename(self) -> str:
        """Who it is."""
        return self.client.who

    @property
    def layer(self) -> Layer | None:
        """Its topmost protocol."""
        link = self.client.link
        return link if isinstance(link, Layer) and not self.client.is_gone else None

    def flush(self, layer: Layer) -> None:
        """Send what the protocol has to send, or have it sent when there is room."""
        try:
            layer.flush()
        except OSError:
            return  # its reader will find that it has left
        self.client.note_unsent()

    def disconnected(self) -> BackendError:
        """Return the error of sending to nobody."""
        return BackendDisconnectedError(f"{self.client.who} has left")

    def tell_window_size(self, size: WindowSize) -> None:
        """Do nothing: the client has the window."""

    @property
    def com_port(self) -> Port:
        """The state of the line, as it was told."""
        return self.client.newcomer.port or Port()


class ConsoleLine(Line):
    """The lines of all clients together."""

    is_settable = True

    def __init__(self, filename: str, clients: Clients, keyboard: Keyboard) -> None:
        super().__init__(filename)
        self._clients = clients
        self._keyboard = keyboard
        self._asked: list[tuple[Client, LineRequest]] = []
        self._in_force: LineSettings | None = None

    def _lines(self) -> list[ServedLine]:
        return [
            self._line_of(client) for client in self._clients if client.newcomer.port is not None
        ]

    def _line_of(self, client: Client) -> ServedLine:
        return ServedLine(ClientSocket(client, lambda event: self.hear(client, event)))

    @property
    def missing(self) -> frozenset[str]:
        """Nothing can be told while nobody speaks RFC 2217."""
        if any(client.newcomer.port is not None for client in self._clients):
            return super().missing
        return frozenset({"settings", "modem", "break", "purge"})

    @property
    def is_notified(self) -> bool:
        return True

    def show(self, settings: LineSettings) -> None:
        """Let *settings* be those in force, for whoever asks."""
        self._in_force = settings
        for line in self._lines():
            line.show(settings)

    def show_newcomer(self, client: Client) -> None:
        """Let *client*, who has just come, know what is in force."""
        if self._in_force is not None and client.newcomer.port is not None:
            self._line_of(client).show(self._in_force)

    async def set_modem(self, lines: ModemLines) -> None:
        """Notify the clients of the inputs in *lines*, if they have asked for that."""
        await trio.lowlevel.checkpoint()
        for line in self._lines():
            await line.set_modem(lines)

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        """Notify the clients of a break, if they have asked for that."""
        await trio.lowlevel.checkpoint()
        for line in self._lines():
            await line.send_break(duration)

    async def set_break(self, is_on: bool) -> None:
        """Notify the clients of the beginning of a break."""
        await trio.lowlevel.checkpoint()
        if is_on:
            await self.send_break()

    def hear(self, client: Client, event: BackendEvent) -> None:
        """Handle what *client* asks of the line, and its other events."""
        if isinstance(event, WindowSize) or not isinstance(event, LineRequest):
            self._keyboard.heard(client, event)
        elif self._keyboard.lets_type(client):
            self._asked = [*self._asked, (client, event)][-MAX_ASKED:]
            self._keyboard.heard(client, event)
        else:
            self._line_of(client).acknowledge(event, self._known(event))

    def _known(self, request: LineRequest) -> LineRequest | None:
        return self._in_force if isinstance(request, LineSettings) else None

    def acknowledge(self, request: LineRequest, in_force: LineRequest | None) -> None:
        """Answer the one who has asked, and those that have asked before and got no answer."""
        waiting = [asked for _, asked in self._asked]
        if request not in waiting:
            return
        for _ in range(waiting.index(request) + 1):
            client, asked = self._asked.pop(0)
            if not client.is_gone:
                self._line_of(client).acknowledge(asked, in_force)
        if isinstance(in_force, LineSettings):
            self.show(in_force)
