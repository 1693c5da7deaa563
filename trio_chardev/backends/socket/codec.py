"""A protocol between a socket and its backend, without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from trio_chardev.events import Event
from trio_chardev.protocols.telnet import Subnegotiation

RECORD_SIZE = 1 << 14  # bytes; TLS has no larger ones

Input = bytes | Event | Subnegotiation
"""What a protocol makes of the wire."""


class Codec(Protocol):
    """A protocol without I/O. None of its methods raises for what a peer does wrong."""

    @property
    def is_established(self) -> bool:
        """Is the handshake over, so that bytes may be encoded?"""

    @property
    def end(self) -> str | None:
        """None as long as it goes on; then why it has ended, for the log: ``""`` is as agreed.

        What is to be sent is still sent then.
        """

    @property
    def is_behind(self) -> bool:
        """Was some of the wire not decoded yet? Never after the `end`."""

    def receive_data(self, data: bytes) -> Sequence[Input]:
        """Decode *data* from the wire, or begin to; ``b""`` says that no more will come.

        Returns bytes for the user, never none of them, and events (BREAK), in order. Not called
        after the `end`, nor while it `is_behind`. A peer may send what takes long to decode and
        gives nothing: so much is decoded at once as takes a millisecond, or two.
        """

    def decode_more(self) -> Sequence[Input]:
        """Go on, as much again; only while it `is_behind`."""

    def encode(self, data: bytes) -> bytes:
        """The wire's bytes for a record of *data*, 1 to `RECORD_SIZE` bytes, behind what is due."""

    def data_to_send(self) -> bytes:
        """What the protocol itself has to say now: a handshake's part, a reply."""

    def close(self) -> None:
        """It is about to be closed by this side: say so with the next `data_to_send`.

        May be called at any time and more than once.
        """

    @property
    def ends_one_way(self) -> bool:
        """Does a `close`, this side's or the peer's, leave the other way open?"""

    @property
    def is_closing(self) -> bool:
        """Has this side closed, and will the peer answer, behind all that it was sent?"""


@runtime_checkable
class BreakCodec(Protocol):
    """A codec that can send a break."""

    def encode_break(self) -> bytes:
        """The wire's bytes for a break, behind what is due."""


@runtime_checkable
class RefusingCodec(Protocol):
    """A codec whose protocol can say why it ends."""

    def refuse(self, why: str) -> None:
        """As `Codec.close`, because of *why*."""
