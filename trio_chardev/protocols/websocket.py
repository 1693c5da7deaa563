"""A stream of bytes in WebSocket messages (RFC 6455); wsproto parses and makes the frames.

Message boundaries mean nothing here: the received part of a message is passed on, and each call
sends one binary message. So a peer can make us keep no more than a frame's head, a control frame
and the answer to its last ping (RFC 6455, 5.5.3, requires no more).
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Collection, Sequence

from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from trio_chardev.protocols.websocket_handshake import (
    ClientHandshake,
    Handshake,
    HandshakeError,
    ServerHandshake,
)

MAX_FRAME = 1 << 16
"""How many bytes `WebSocketConnection.encode` takes at once."""

FRAMES_AT_ONCE = 64
"""How many frames one call decodes; each takes 7 microseconds."""


MAX_REASON = 123
"""How many bytes a Close's reason may have: a control frame has 125, and two are the code."""


class WebSocketConnection:
    """One party of a WebSocket connection, from its first byte."""

    ends_one_way = False
    """A Close ends both directions (RFC 6455, 7.1.2)."""

    def __init__(self, handshake: Handshake, *, binary_only: bool = False) -> None:
        """Text messages are taken as UTF-8; with *binary_only* they are refused, as in QEMU."""
        self._handshake = handshake
        self._binary_only = binary_only
        self._frames: Connection | None = None
        self._outgoing = b""
        self._pong: Pong | None = None
        self.end: str | None = None
        """Why the connection is over, else None; ``""`` after a proper Close of the peer."""
        self.is_behind = False
        """Are there frames that were received but not decoded yet?"""

    @property
    def is_established(self) -> bool:
        """Was the handshake successful?"""
        return self._frames is not None

    def refusal_by(self, origins: Sequence[str]) -> str | None:
        """Why a server with *origins* would refuse the page that has connected, else None."""
        if not isinstance(self._handshake, ServerHandshake):
            return None
        return self._handshake.refusal_by(origins)

    # ------------------------------------------------------------ sending

    def data_to_send(self) -> bytes:
        """Take what the protocol itself has to send; send it before anything made later."""
        data = self._handshake.outgoing + self._outgoing
        self._handshake.outgoing = self._outgoing = b""
        if self._pong is not None:
            if self.is_open:
                data += self._sent(self._pong)
            self._pong = None
        return data

    def encode(self, data: bytes) -> bytes:
        """Make a frame with *data*, after what is due. Raises BrokenPipeError after a Close."""
        assert len(data) <= MAX_FRAME
        if not self.is_open:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        return self.data_to_send() + self._sent(BytesMessage(data=data))

    def close(self, code: int = CloseReason.GOING_AWAY, reason: str = "") -> None:
        """Queue a Close, once, and only after the handshake."""
        if self.is_open:
            self._outgoing = self.data_to_send() + self._sent(CloseConnection(code, reason))

    def refuse(self, why: str, code: int = CloseReason.TRY_AGAIN_LATER) -> None:
        """Close with the reason *why* and *code*."""
        self.close(code, why.encode()[:MAX_REASON].decode(errors="ignore"))

    @property
    def is_open(self) -> bool:
        """May frames be sent?"""
        return self._frames is not None and self._frames.state is ConnectionState.OPEN

    @property
    def is_closing(self) -> bool:
        """Was a Close sent that the peer has yet to answer (RFC 6455, 7.1.2)?"""
        return self._frames is not None and self._frames.state is ConnectionState.LOCAL_CLOSING

    def _sent(self, event: Event) -> bytes:
        assert self._frames is not None
        return self._frames.send(event)

    # ------------------------------------------------------------ receiving

    def receive_data(self, data: bytes) -> list[bytes]:
        """Decode what the peer has sent. After the `end` data is ignored.

        At most `FRAMES_AT_ONCE` frames are decoded; then it `is_behind`. ``b""``, the end, means
        nothing to a protocol that ends with a Close.
        """
        if self.end is None and self._frames is None:
            data = self._shake_hands(data)
        if self.end is not None or self._frames is None or not data:
            return []
        self._frames.receive_data(data)
        return self.decode_more()

    def decode_more(self) -> list[bytes]:
        """Go on where `receive_data` stopped, for as many frames; only after the handshake."""
        assert self._frames is not None
        content = bytearray()
        frames = 0
        for event in itertools.islice(self._frames.events(), FRAMES_AT_ONCE):
            content += self._take(event)
            frames += 1
            if self.end is not None:
                break
        self.is_behind = frames == FRAMES_AT_ONCE and self.end is None
        return [bytes(content)] if content else []

    def _shake_hands(self, data: bytes) -> bytes:
        """Take *data*, and return what follows the handshake."""
        try:
            rest = self._handshake.receive(data) if data else None
        except HandshakeError as exc:
            self.end = str(exc)
            return b""
        if rest is None:
            return b""
        self._frames = Connection(self._handshake.side)
        return rest

    def _take(self, event: Event) -> bytes:
        match event:
            case BytesMessage():
                return bytes(event.data)
            case TextMessage() if self._binary_only:
                self._fail(CloseReason.UNSUPPORTED_DATA, "only binary messages are taken")
            case TextMessage():
                return event.data.encode()
            case Ping():
                self._pong = event.response()
            case CloseConnection():
                self._take_close(event)
        return b""

    def _take_close(self, event: CloseConnection) -> None:
        """The peer has sent Close; or has broken the rules, which wsproto reports the same way."""
        assert self._frames is not None
        match self._frames.state:
            case ConnectionState.REMOTE_CLOSING:
                self._outgoing += self._sent(event.response())
                self.end = ""
            case ConnectionState.CLOSED:
                self.end = ""
            case _:
                self._fail(CloseReason(event.code), event.reason or "the peer broke the rules")

    def _fail(self, code: CloseReason, reason: str) -> None:
        self.close(code, reason)
        self.end = reason


def websocket_connection(
    *,
    is_server: bool,
    host: str,
    binary_only: bool,
    origins: Sequence[str] = (),
    path: str | None = None,
    names: Collection[str] = (),
) -> WebSocketConnection:
    """Make the party for a socket's options; *host* is for a client's Host header.

    *names* are those of this machine, see `ServerHandshake`.
    """
    handshake: Handshake
    if is_server:
        handshake = ServerHandshake(origins, path, names=names)
    else:
        handshake = ClientHandshake(host, path)
    return WebSocketConnection(handshake, binary_only=binary_only)
