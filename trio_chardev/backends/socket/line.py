"""The lines that lie behind a socket: at a telnet server, or at either side of RFC 2217."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from trio_chardev.backends.socket.layer import Layer
from trio_chardev.core.line import BREAK_DURATION, Line
from trio_chardev.errors import BackendError
from trio_chardev.events import (
    OUTPUTS,
    BackendEvent,
    BreakState,
    LineRequest,
    LineSettings,
    ModemLines,
    Purge,
    WindowSize,
)
from trio_chardev.protocols.com_port import ComPortServer, Port
from trio_chardev.protocols.com_port_client import ComPortClient
from trio_chardev.protocols.com_port_telnet import ComPortTelnet

log = logging.getLogger(__name__)

ANSWER_TIMEOUT = 5.0  # seconds for a server to answer; a line that is far away may be slow to set


class LayeredSocket(Protocol):
    """What these lines need of their backend."""

    @property
    def filename(self) -> str:
        """See `Backend.filename`."""

    @property
    def layer(self) -> Layer | None:
        """The topmost protocol of the peer's connection; None while nobody is there."""

    def flush(self, layer: Layer) -> None:
        """Send what the protocol has to send, now or as soon as there is room. Never raises."""

    def disconnected(self) -> BackendError:
        """Return the error of sending to nobody."""

    @property
    def com_port(self) -> Port:
        """The state of the line, of RFC 2217."""

    @property
    def answers(self) -> trio.lowlevel.ParkingLot:
        """Where to wait for answers of an RFC 2217 server; unparked when it leaves, too."""

    def hear(self, event: BackendEvent) -> None:
        """Report what has come from the peer."""

    def tell_window_size(self, size: WindowSize) -> None:
        """Tell *size* the peer, and each later one, once it wants to know. Never raises."""


class _ClientLine(Line):
    """The line at a server that speaks telnet, for its client."""

    def __init__(self, backend: LayeredSocket) -> None:
        super().__init__(backend.filename)
        self._backend = backend

    async def set_window_size(self, size: WindowSize) -> None:
        """Tell the server the *size* of our user's window, also one that comes later."""
        await trio.lowlevel.checkpoint()
        self._backend.tell_window_size(size)


class TelnetLine(_ClientLine):
    """The line at a telnet client's server, which can send a break."""

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        """Ask the server for a break; telnet can't say how long. Raises BackendError."""
        await trio.lowlevel.checkpoint()
        if (layer := self._backend.layer) is None:
            raise self._backend.disconnected()
        try:
            layer.send_break()
        except OSError as exc:
            raise self._backend.disconnected() from exc
        finally:
            self._backend.flush(layer)


class ServedLine(Line):
    """The line as the client of an RFC 2217 server sees it: what it can be told of the real one.

    What the client asks of the line comes as events, and each is answered by `acknowledge`. What is
    told while there is no client, the next one learns.
    """

    is_settable = True

    def __init__(self, backend: LayeredSocket) -> None:
        super().__init__(backend.filename)
        self._backend = backend

    @contextmanager
    def _server(self) -> Iterator[ComPortServer]:
        """Give the protocol's side for the client, and send what it says."""
        layer = self._backend.layer
        if layer is None or not isinstance(layer.codec, ComPortTelnet):
            yield ComPortServer(self._backend.com_port, signature=b"")
            return
        assert isinstance(layer.codec.party, ComPortServer)
        yield layer.codec.party
        self._backend.flush(layer)

    @property
    def is_notified(self) -> bool:
        return True

    def show(self, settings: LineSettings) -> None:
        """Let *settings* be those in force, for whoever asks."""
        self._backend.com_port.line = settings

    async def set_modem(self, lines: ModemLines) -> None:
        """Notify the client of the inputs in *lines*, if it has asked for that."""
        await trio.lowlevel.checkpoint()
        with self._server() as server:
            server.modem_changed(lines)

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        """Notify the client of a break on the line, if it has asked for that."""
        await trio.lowlevel.checkpoint()
        with self._server() as server:
            server.break_came()

    async def set_break(self, is_on: bool) -> None:
        """Notify the client of the beginning of a break."""
        if is_on:
            await self.send_break()
        else:
            await trio.lowlevel.checkpoint()

    def acknowledge(self, request: LineRequest, in_force: LineRequest | None) -> None:
        with self._server() as server:
            again = server.acknowledge(request, in_force)
        if again is not None:
            self._backend.hear(again)


class RemoteLine(_ClientLine):
    """The line of an RFC 2217 server, for its client. What is set while it is away is set later."""

    is_settable = True

    @property
    def _port(self) -> Port:
        return self._backend.com_port

    @property
    def missing(self) -> frozenset[str]:
        """What the server does not answer about; it is taken to have done it all the same."""
        layer = self._backend.layer
        return super().missing if layer is None else super().missing | _client_of(layer).missing

    @property
    def settings(self) -> LineSettings:
        """The settings that the server has said are in force, or the wanted ones while it is away."""
        return self._port.line

    async def set(self, settings: LineSettings) -> None:
        """Set the line; raises BackendError if the server refuses a part, and undoes the rest.

        When Cancelled, the settings from before are asked for, and their answer is not waited for.
        """
        before = self._port.line
        await trio.lowlevel.checkpoint()
        try:
            await self._ask(settings, lambda client: client.ask_settings(settings))
            if (found := self._port.line) != settings:
                raise BackendError(f"'{self.filename}' does not do {settings}: it has {found}")
        except BaseException:
            self._undo(lambda client: client.ask_settings(before, only_changes=False))
            raise

    def look(self, *, anew: bool = False) -> None:
        """Report *anew* the inputs that the server has notified last; changes are reported anyway."""
        if anew and self._backend.layer is not None:
            self._backend.hear(self._port.inputs)

    async def get_modem(self) -> ModemLines:
        """Return the lines that are on, as the server has said last."""
        await trio.lowlevel.checkpoint()
        if self._backend.layer is None:
            raise self._backend.disconnected()
        return self._port.inputs | self._port.outputs

    async def set_modem(self, lines: ModemLines) -> None:
        """Turn DTR and RTS on or off; raises BackendError if the server refuses that."""
        outputs = lines & OUTPUTS
        await trio.lowlevel.checkpoint()
        await self._ask(outputs, lambda client: client.ask_outputs(outputs))
        if self._port.outputs != outputs:
            raise BackendError(f"'{self.filename}' does not set DTR and RTS as asked")

    async def set_break(self, is_on: bool) -> None:
        """Turn the break on or off; raises BackendError if the server refuses that."""
        await trio.lowlevel.checkpoint()
        await self._ask(BreakState(is_on), lambda client: client.ask_break(is_on=is_on))
        if self._port.is_break is not is_on:
            raise BackendError(
                f"'{self.filename}' does not turn the break {'on' if is_on else 'off'}"
            )

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        """Turn the break on for *duration* seconds. When Cancelled, it is over."""
        if self._port.is_break:
            await trio.sleep(duration)
            return
        try:
            await self.set_break(True)
            await trio.sleep(duration)
        finally:
            self._undo(lambda client: client.ask_break(is_on=False, only_changes=False))
            self._port.is_break = False

    async def purge(self, buffers: Purge) -> None:
        """Have the server discard what is in its buffers."""
        await trio.lowlevel.checkpoint()
        if self._backend.layer is None:
            raise self._backend.disconnected()
        await self._ask(None, lambda client: client.ask_purge(buffers))

    async def _ask(self, wanted: LineRequest | None, ask: Callable[[ComPortClient], None]) -> None:
        """Ask the server, and wait until it has answered. While it is away, *wanted* is noted.

        Raises BackendError if it does not answer in time.
        """
        self._port.is_wanted = self._port.is_wanted or wanted is not None
        if (layer := self._backend.layer) is None:
            if wanted is not None:
                self._port.note(wanted)
            return
        client = _client_of(layer)
        client.on_answer = self._backend.answers.unpark_all
        client.begin()
        ask(client)
        self._backend.flush(layer)
        with trio.move_on_after(ANSWER_TIMEOUT):
            while not client.is_answered and self._backend.layer is layer:
                await self._backend.answers.park()
            return
        if wanted is None or not client.give_up():
            raise BackendError(f"'{self.filename}' did not answer within {ANSWER_TIMEOUT:g} s")
        log.warning(
            "'%s' does not answer about all that was set; it is taken as set", self.filename
        )
        self._port.note(wanted)

    def _undo(self, ask: Callable[[ComPortClient], None]) -> None:
        if (layer := self._backend.layer) is not None:
            ask(_client_of(layer))
            self._backend.flush(layer)


def _client_of(layer: Layer) -> ComPortClient:
    assert isinstance(layer.codec, ComPortTelnet)
    assert isinstance(layer.codec.party, ComPortClient)
    return layer.codec.party
