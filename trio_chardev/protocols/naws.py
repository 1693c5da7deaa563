"""Telnet's option to tell the size of the window: RFC 1073, NAWS. The client tells, the server asks."""

from __future__ import annotations

import struct
from collections.abc import Set as AbstractSet

from trio_chardev.events import UNKNOWN_SIZE, WindowSize
from trio_chardev.protocols.telnet_roles import WINDOW_SIZE

_SIZE = struct.Struct("!HH")  # columns, rows


def encode_size(size: WindowSize) -> bytes:
    """Encode *size* for a subnegotiation, in which IAC is still to be doubled."""
    return _SIZE.pack(size.cols, size.rows)


def decode_size(data: bytes) -> WindowSize | None:
    """Decode *data* of a subnegotiation; None if it has not the length of a size."""
    return WindowSize(*_SIZE.unpack(data)) if len(data) == _SIZE.size else None


class WindowTeller:
    """What one party knows of its user's window, and has told the peer of it."""

    def __init__(self, ours: AbstractSet[int]) -> None:
        """*ours* has the options that the party may use."""
        self._may_offer = WINDOW_SIZE in ours
        self._size = self._told = UNKNOWN_SIZE

    def set(self, size: WindowSize) -> bool:
        """Note *size*. Returns whether to offer the option, unless it is agreed: only once."""
        self._size = size
        if is_due := self._may_offer and size.is_known:
            self._may_offer = False
        return is_due

    def due(self, *, is_agreed: bool) -> WindowSize | None:
        """Return the size that the peer is to be told now, if any, and take it as told."""
        if not is_agreed:
            self._told = UNKNOWN_SIZE  # a peer that wants it again is told it again
        elif self._size not in (UNKNOWN_SIZE, self._told):
            self._told = self._size
            return self._size
        return None
