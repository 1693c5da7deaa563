"""A stream of bytes in WebSocket messages (RFC 6455): wsproto reads and makes the frames.

A message has no meaning here: what has come of one is passed on, and what is sent is one
binary message a call. So that a peer can't make us hold more than a head, a control frame
and the answer to its last ping (RFC 6455, 5.5.3, asks for no more).
"""

from __future__ import annotations

import itertools

from wsproto.connection import Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from trio_chardev.protocols.websocket_handshake import Handshake, HandshakeError

MAX_FRAME = 1 << 16
"""Bytes that `WebSocketConnection.encode` takes at once."""

FRAMES_AT_ONCE = 64
"""So many are decoded with one call; one takes 7 microseconds."""


class WebSocketConnection:
    """One party of a connection, from its first byte."""

    def __init__(self, handshake: Handshake, *, binary_only: bool = False) -> None:
        """Text messages are input as UTF-8; *binary_only* refuses them, as QEMU does."""
        self._handshake = handshake
        self._binary_only = binary_only
        self._frames: Connection | None = None
        self._outgoing = b""
        self._pong: Pong | None = None
        self.end: str | None = None
        """Why it is over, if it is; ``""`` when the peer has closed it in good order."""
        self.is_behind = False
        """Are there frames that were received and not decoded yet?"""

    @property
    def is_established(self) -> bool:
        """Was the handshake successful?"""
        return self._frames is not None

    # ------------------------------------------------------------ sending

    def data_to_send(self) -> bytes:
        """What the protocol itself has to say; to be sent before anything that is made later."""
        data = self._handshake.outgoing + self._outgoing
        self._handshake.outgoing = self._outgoing = b""
        if self._pong is not None:
            if self.is_open:
                data += self._sent(self._pong)
            self._pong = None
        return data

    def encode(self, data: bytes) -> bytes:
        """One frame with *data*, behind what is due; while it `is_open`."""
        assert len(data) <= MAX_FRAME
        return self.data_to_send() + self._sent(BytesMessage(data=data))

    def close(self, code: CloseReason = CloseReason.GOING_AWAY, reason: str = "") -> None:
        """Say that nothing more will be sent; nothing is said twice, nor before the frames."""
        if self.is_open:
            self._outgoing = self.data_to_send() + self._sent(CloseConnection(code, reason))

    @property
    def is_open(self) -> bool:
        """May frames be sent?"""
        return self._frames is not None and self._frames.state is ConnectionState.OPEN

    @property
    def is_closing(self) -> bool:
        """Was a Close sent that the peer has to answer (RFC 6455, 7.1.2)?"""
        return self._frames is not None and self._frames.state is ConnectionState.LOCAL_CLOSING

    def _sent(self, event: Event) -> bytes:
        assert self._frames is not None
        return self._frames.send(event)

    # ------------------------------------------------------------ receiving

    def receive_data(self, data: bytes) -> bytes:
        """The bytes that the peer has sent. After the `end` nothing is taken any more.

        No more than `FRAMES_AT_ONCE` are decoded; while it `is_behind` more data, or none, makes
        it go on.
        """
        if self.end is not None:
            return b""
        if self._frames is None:
            data = self._shake_hands(data)
        if self._frames is None or not (data or self.is_behind):
            return b""
        content = bytearray()
        if data:  # to wsproto none is the end
            self._frames.receive_data(data)
        frames = 0
        for event in itertools.islice(self._frames.events(), FRAMES_AT_ONCE):
            content += self._take(event)
            frames += 1
            if self.end is not None:
                break
        self.is_behind = frames == FRAMES_AT_ONCE and self.end is None
        return bytes(content)

    def _shake_hands(self, data: bytes) -> bytes:
        """Take *data*, return what follows the handshake."""
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
        """The peer has closed; or, which wsproto reports in the same way, broken the rules."""
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
