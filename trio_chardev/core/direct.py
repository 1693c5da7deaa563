"""What a backend offers for bytes that nobody in this process looks at."""

from __future__ import annotations

import socket
from typing import Protocol

from trio_chardev.core.splicing import SplicePipe


class Direct(Protocol):
    """The ways around this process to and from one peer, as long as `Backend.direct` gives them."""

    @property
    def plain_socket(self) -> socket.socket | None:
        """The peer's socket, if bytes are read from it and written to it as they are, and all now."""

    def receive_into(self, pipe: SplicePipe, max_bytes: int) -> int:
        """Do as `Backend.receive_nowait`, into *pipe*; return how much came, 0 if nothing has.

        Raises CannotSplice where bytes have to be looked at, and at the end.
        """

    def send_from(self, pipe: SplicePipe) -> int:
        """Do as `Backend.send_nowait` with what is in *pipe*.

        Raises CannotSplice, also for any error: `Backend.send_nowait` will meet that.
        """


class Source(Protocol):
    """What bytes come from: a backend."""

    @property
    def direct(self) -> Direct | None:
        """See `Backend.direct`."""

    def receive_nowait(self, max_bytes: int) -> bytes:
        """See `Backend.receive_nowait`."""
