"""Telnet between a socket and its backend; see `trio_chardev.protocols.telnet`."""

from __future__ import annotations

from collections import deque
from typing import Final

from trio_chardev.events import Event
from trio_chardev.protocols.telnet import (
    CLIENT,
    IAC,
    SERVER,
    TN3270_CLIENT,
    TN3270_SERVER,
    Role,
    TelnetConnection,
)

MAX_COMMANDS: Final = 512  # that are decoded at once; one takes a microsecond or two


class TelnetCodec:
    """A `trio_chardev.backends.socket.layer.Codec`, and a `BreakCodec`, for `Layer`.

    RFC 854 tells the end of the urgent data by a DM that the client sends as TCP's urgent
    byte. It must stay in the stream (SO_OOBINLINE), or the byte behind it is taken for it.
    """

    end: str | None = None
    """Always None: no byte breaks the rules, nor says that it is over."""

    def __init__(self, role: Role) -> None:
        self._telnet = TelnetConnection(role)
        self._input: deque[bytearray | Event] = deque()
        self._wire = bytearray()
        self._undecoded = b""

    @property
    def is_established(self) -> bool:
        """Always: nobody has to answer the offers."""
        return True

    @property
    def has_input(self) -> bool:
        """See `Codec.has_input`."""
        return bool(self._input)

    @property
    def is_behind(self) -> bool:
        """See `Codec.is_behind`."""
        return bool(self._undecoded)

    def receive_wire(self, wire: bytes) -> None:
        """See `Codec.receive_wire`."""
        self._undecoded = wire
        self.decode_more()

    def decode_more(self) -> None:
        """See `Codec.decode_more`: all there is, or a slice of it if it is full of commands."""
        size = len(self._undecoded)
        while self._undecoded.count(IAC, 0, size) > MAX_COMMANDS:
            size //= 2
        wire, self._undecoded = self._undecoded[:size], self._undecoded[size:]
        for event in self._telnet.receive_data(wire):
            if isinstance(event, bytes):
                self._input.append(bytearray(event))
            elif isinstance(event, Event):
                self._input.append(event)

    def take_input(self, max_bytes: int) -> bytes | Event | None:
        """See `Codec.take_input`."""
        if not self._input:
            return None
        item = self._input[0]
        if isinstance(item, Event) or len(item) <= max_bytes:
            self._input.popleft()
            return item if isinstance(item, Event) else bytes(item)
        data = bytes(item[:max_bytes])
        del item[:max_bytes]
        return data

    def encode(self, data: memoryview) -> None:
        """See `Codec.encode`."""
        self._wire += self._telnet.encode(bytes(data))

    def encode_break(self) -> None:
        """See `BreakCodec.encode_break`."""
        self._wire += self._telnet.encode_break()

    def take_wire(self) -> bytes:
        """See `Codec.take_wire`."""
        wire = bytes(self._wire) + self._telnet.data_to_send()
        self._wire.clear()
        return wire

    awaits_goodbye = False
    ends_one_way = True

    def say_goodbye(self) -> None:
        """Nothing is said: telnet ends with the connection."""


def telnet_codec(*, is_server: bool, tn3270: bool) -> TelnetCodec:
    """For a socket's options ``server``, and ``telnet`` or *tn3270*."""
    if tn3270:
        return TelnetCodec(TN3270_SERVER if is_server else TN3270_CLIENT)
    return TelnetCodec(SERVER if is_server else CLIENT)
