"""What a backend offers for bytes that bypass this process."""

from __future__ import annotations

import socket
from typing import Protocol

from trio_chardev.core.splicing import SplicePipe


class Direct(Protocol):
    """How bytes bypass this process, from and to one peer, while `Backend.direct` gives it."""

    @property
    def plain_socket(self) -> socket.socket | None:
        """The peer's socket, or None if its bytes are not the chardev's or anything is pending."""

    def receive_into(self, pipe: SplicePipe, max_bytes: int) -> int:
        """Do as `Backend.receive_nowait`, into *pipe*. Returns how many bytes, 0 if none have come.

        Raises CannotSplice if bytes have to be looked at, and at the end.
        """

    def send_from(self, pipe: SplicePipe) -> int:
        """Do as `Backend.send_nowait` with what is in *pipe*.

        Raises CannotSplice, for any error as well: `Backend.send_nowait` will raise that.
        """


class Source(Protocol):
    """A source of bytes, which is a backend."""

    @property
    def direct(self) -> Direct | None:
        """See `Backend.direct`."""

    def receive_nowait(self, max_bytes: int) -> bytes:
        """See `Backend.receive_nowait`."""
