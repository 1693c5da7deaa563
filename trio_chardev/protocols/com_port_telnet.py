"""Telnet with RFC 2217's option, as a codec between a socket and its backend."""

from __future__ import annotations

from collections.abc import Iterable

from trio_chardev.events import BackendEvent, WindowSize
from trio_chardev.protocols.com_port import ComPortServer, Port
from trio_chardev.protocols.com_port_client import ComPortClient
from trio_chardev.protocols.rfc2217 import COM_PORT_OPTION, decode
from trio_chardev.protocols.telnet import Decoded, Subnegotiation, TelnetConnection
from trio_chardev.protocols.telnet_roles import COM_PORT_CLIENT, COM_PORT_SERVER


class ComPortTelnet:
    """A telnet connection whose subnegotiations about the line *party* handles."""

    ends_one_way = True
    is_closing = False

    def __init__(self, telnet: TelnetConnection, party: ComPortServer | ComPortClient) -> None:
        self.party = party
        self._telnet = telnet

    @property
    def is_established(self) -> bool:
        """May bytes be sent? A client waits until it knows what is in force."""
        if isinstance(self.party, ComPortServer):
            return True
        return self._telnet.may_use(COM_PORT_OPTION) is True and self.party.knows_settings

    @property
    def is_suspended(self) -> bool:
        """See `SuspendingCodec.is_suspended`."""
        return self.party.is_suspended

    @property
    def end(self) -> str | None:
        """See `Codec.end`: a client has no use for a server without the option."""
        if isinstance(self.party, ComPortClient) and self._telnet.may_use(COM_PORT_OPTION) is False:
            return "the server does not speak RFC 2217"
        return None

    @property
    def is_behind(self) -> bool:
        """See `Codec.is_behind`."""
        return self._telnet.is_behind and self.end is None

    def receive_data(self, data: bytes) -> list[bytes | BackendEvent]:
        """Decode *data* into bytes and what is asked, or reported, of the line, in order."""
        return self._handle(self._telnet.receive_data(data))

    def decode_more(self) -> list[bytes | BackendEvent]:
        """See `Codec.decode_more`."""
        return self._handle(self._telnet.decode_more())

    def _handle(self, items: Iterable[Decoded]) -> list[bytes | BackendEvent]:
        handled: list[bytes | BackendEvent] = []
        for item in items:
            if not isinstance(item, Subnegotiation):
                handled.append(item)
            elif item.option == COM_PORT_OPTION:
                message = decode(item.data, from_server=isinstance(self.party, ComPortClient))
                if message is not None and (event := self.party.receive(message)) is not None:
                    handled.append(event)
        return handled

    def encode(self, data: bytes) -> bytes:
        """Encode *data*, after what is due to be sent."""
        return self.data_to_send() + self._telnet.encode(data)

    def encode_break(self) -> bytes:
        """Encode telnet's own BREAK, after what is due to be sent."""
        return self.data_to_send() + self._telnet.encode_break()

    def data_to_send(self) -> bytes:
        """Take what is due: telnet's offers and answers, and the party's messages once it may."""
        due = self._telnet.data_to_send()
        if isinstance(self.party, ComPortClient) and not self._telnet.may_use(COM_PORT_OPTION):
            return due
        encode = self._telnet.encode_subnegotiation
        return due + b"".join(encode(COM_PORT_OPTION, data) for data in self.party.data_to_send())

    def set_window_size(self, size: WindowSize) -> None:
        """See `TelnetConnection.set_window_size`."""
        self._telnet.set_window_size(size)

    @property
    def their_window_size(self) -> WindowSize:
        """See `TelnetConnection.their_window_size`."""
        return self._telnet.their_window_size

    def close(self) -> None:
        """Do nothing: telnet ends with the connection."""


def com_port_server(port: Port, signature: bytes) -> ComPortTelnet:
    """Make the party that has the line, whose state is *port*."""
    telnet = TelnetConnection(COM_PORT_SERVER)
    return ComPortTelnet(telnet, ComPortServer(port, signature=signature))


def com_port_client(port: Port) -> ComPortTelnet:
    """Make the party that uses the server's line, see `ComPortClient`."""
    telnet = TelnetConnection(COM_PORT_CLIENT)
    return ComPortTelnet(telnet, ComPortClient(port))
