"""WebSocket between a socket and its backend; see `trio_chardev.protocols.websocket`."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Sequence

from wsproto.frame_protocol import CloseReason

from trio_chardev.protocols.websocket import WebSocketConnection
from trio_chardev.protocols.websocket_handshake import ClientHandshake, Handshake, ServerHandshake

MAX_REASON = 123  # bytes; a control frame has 125, and two are the code


class WebSocketCodec:
    """A `trio_chardev.backends.socket.layer.Codec`, for `Layer`."""

    def __init__(self, handshake: Handshake, *, binary_only: bool = False) -> None:
        """*binary_only* refuses text messages, which else are input, as UTF-8."""
        self._handshake = handshake
        self._websocket = WebSocketConnection(handshake, binary_only=binary_only)
        self._input = bytearray()
        self._wire = bytearray()

    @property
    def is_established(self) -> bool:
        """See `Codec.is_established`."""
        return self._websocket.is_established

    @property
    def end(self) -> str | None:
        """See `Codec.end`."""
        return self._websocket.end

    @property
    def has_input(self) -> bool:
        """See `Codec.has_input`."""
        return bool(self._input)

    @property
    def is_behind(self) -> bool:
        """See `Codec.is_behind`."""
        return self._websocket.is_behind

    def receive_wire(self, wire: bytes) -> None:
        """See `Codec.receive_wire`."""
        self._input += self._websocket.receive_data(wire)

    def refusal_by(self, origins: Sequence[str]) -> str | None:
        """Why a server with *origins* would not let in the page that has connected."""
        if not isinstance(self._handshake, ServerHandshake):
            return None
        return self._handshake.refusal_by(origins)

    def decode_more(self) -> None:
        """See `Codec.decode_more`."""
        self._input += self._websocket.receive_data(b"")

    def take_input(self, max_bytes: int) -> bytes | None:
        """See `Codec.take_input`."""
        data = bytes(self._input[:max_bytes])
        del self._input[:max_bytes]
        return data or None

    def encode(self, data: memoryview) -> None:
        """See `Codec.encode`. Raises BrokenPipeError after `say_goodbye`."""
        if not self._websocket.is_open:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        self._wire += self._websocket.encode(bytes(data))

    def take_wire(self) -> bytes:
        """See `Codec.take_wire`."""
        wire = bytes(self._wire) + self._websocket.data_to_send()
        self._wire.clear()
        return wire

    def say_goodbye(self) -> None:
        """See `Codec.say_goodbye`: sends the Close of the closing handshake (RFC 6455, 7.1.2)."""
        self._websocket.close()

    def refuse(self, why: str) -> None:
        """See `RefusingCodec.refuse`: the Close says so (1013, try again later)."""
        self._websocket.close(
            CloseReason.TRY_AGAIN_LATER, why.encode()[:MAX_REASON].decode(errors="ignore")
        )

    ends_one_way = False
    """A Close is of both ways (RFC 6455, 7.1.2)."""

    @property
    def awaits_goodbye(self) -> bool:
        """See `Codec.awaits_goodbye`."""
        return self._websocket.is_closing


def websocket_codec(
    *,
    is_server: bool,
    host: str,
    binary_only: bool,
    origins: Sequence[str] = (),
    path: str | None = None,
    names: Collection[str] = (),
) -> WebSocketCodec:
    """For a socket's options; *host* is what a client's Host header shall say.

    *names* are those of this machine, see `ServerHandshake`.
    """
    handshake: Handshake
    if is_server:
        handshake = ServerHandshake(origins, path, names=names)
    else:
        handshake = ClientHandshake(host, path)
    return WebSocketCodec(handshake, binary_only=binary_only)
