"""A protocol between a socket and its backend, without I/O: the interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from trio_chardev.events import BackendEvent, WindowSize
from trio_chardev.protocols.subnegotiation import Subnegotiation

RECORD_SIZE = 1 << 14  # bytes; the largest record of TLS (RFC 8446, 5.1)

TRY_AGAIN_LATER = 1013
"""The code of a refusal that need not last."""

Input = bytes | BackendEvent | Subnegotiation
"""What a protocol decodes from the wire."""


class Codec(Protocol):
    """A protocol without I/O. None of its methods raises for what a peer does wrong."""

    @property
    def is_established(self) -> bool:
        """Is the handshake over, so that bytes may be encoded?"""

    @property
    def end(self) -> str | None:
        """None while it goes on, then the reason of its end, for the log; ``""`` if in order.

        What is to be sent is still sent after it.
        """

    @property
    def is_behind(self) -> bool:
        """Is some of the wire not decoded yet? Never after the `end`."""

    def receive_data(self, data: bytes) -> Sequence[Input]:
        """Decode *data* from the wire, or begin to; ``b""`` says that no more will come.

        Returns the user's bytes, in items that are never empty, and events, in order. Not
        called after the `end`, nor while it `is_behind`. A peer may send what takes long to decode
        and gives nothing, so one call decodes as much as takes a millisecond or two.
        """

    def decode_more(self) -> Sequence[Input]:
        """Decode as much again; only while it `is_behind`."""

    def encode(self, data: bytes) -> bytes:
        """Encode *data*, 1 to `RECORD_SIZE` bytes, as a record, after what is due to be sent."""

    def data_to_send(self) -> bytes:
        """Return what the protocol itself has to send now: a part of a handshake, a reply."""

    def close(self) -> None:
        """Note that this side is about to close; the next `data_to_send` says so to the peer.

        May be called at any time and more than once.
        """

    @property
    def ends_one_way(self) -> bool:
        """Does a `close`, by this side or the peer, leave the other direction open?"""

    @property
    def is_closing(self) -> bool:
        """Has this side closed, and will the peer answer, after all that it was sent?"""


@runtime_checkable
class BreakCodec(Protocol):
    """A codec that can send a break."""

    def encode_break(self) -> bytes:
        """Encode a break, after what is due to be sent."""


@runtime_checkable
class WindowCodec(Protocol):
    """A codec that tells the size of a window, one way or the other: telnet."""

    def set_window_size(self, size: WindowSize) -> None:
        """Tell the peer the *size* of our user's window, by what is to be sent from now on."""

    @property
    def their_window_size(self) -> WindowSize:
        """The size of the peer's window, as far as it has told."""


@runtime_checkable
class SuspendingCodec(Protocol):
    """A codec whose peer can stop the bytes that it is sent."""

    @property
    def is_suspended(self) -> bool:
        """Does the peer want to be sent no bytes for now? What the protocol says is sent."""


@runtime_checkable
class RefusingCodec(Protocol):
    """A codec whose protocol can give a reason for its end."""

    def refuse(self, why: str, code: int = TRY_AGAIN_LATER) -> None:
        """Do as `Codec.close`, with the reason *why*, and its *code* (RFC 6455, 7.4)."""
