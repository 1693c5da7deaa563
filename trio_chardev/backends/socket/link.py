"""A connected peer, as its backend sees it: a socket, or a protocol on one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from trio_chardev.backends.socket.codec import TRY_AGAIN_LATER
from trio_chardev.backends.socket.connection import Take
from trio_chardev.events import BackendEvent


class Link(Protocol):
    """A connected peer: a socket, or a protocol on one."""

    name: str
    """The connection as query-chardev shows it."""

    @property
    def sock(self) -> socket.socket:
        """The socket at the bottom, for questions about the peer."""

    @property
    def unsent(self) -> bool:
        """Are there bytes that count as sent and that the kernel has not taken?"""

    async def handshake(self) -> None:
        """Wait until bytes may be sent. Raises OSError. When Cancelled, call it again to go on."""

    def receive(self, max_bytes: int) -> bytes:
        """Read what has come, ``b""`` at the end. Raises BlockingIOError, or another OSError.

        It also raises BlockingIOError, to let other tasks run, when much has come that is no
        input: then it `has_input`, and `wait_readable` does not wait.
        """

    def send(self, data: memoryview) -> int:
        """Send a prefix. Raises BlockingIOError, or another OSError if the connection is over."""

    def flush(self) -> None:
        """Try to send what is `unsent`. Raises OSError, and drops it, if the connection is over."""

    def has_input(self) -> bool:
        """May `receive` give bytes?"""

    def has_room(self) -> bool:
        """Will `send` accept something, or fail?"""

    async def wait_readable(self) -> None:
        """Wait for input, the end, or the closing by another task. May return too early."""

    async def wait_hangup(self) -> None:
        """Wait until no more can come, even if input is unread; or else as `wait_readable`.

        Raises OSError if that can't be known.
        """

    async def wait_writable(self) -> None:
        """Wait for room, or the end; several tasks may wait.

        May return too early. Raises ClosedResourceError if another task closes it.
        """

    @property
    def ends_one_way(self) -> bool:
        """Can one direction end while the other goes on?"""

    @property
    def takes_more(self) -> bool:
        """After the end of `receive`: can the peer still be sent to, as far as is known?"""

    async def wait_gone(self) -> None:
        """Wait until both directions are over, as by a reset. Raises OSError if it can't know."""

    def send_eof(self) -> None:
        """Tell the peer that no more will come, after what was sent. Raises OSError.

        Only where `ends_one_way`. Receiving goes on as before.
        """

    def turn_away(self, why: str, code: int = TRY_AGAIN_LATER) -> None:
        """Tell the peer that it can't come or stay, and *why*; *code* is WebSocket's. Raises OSError."""

    async def finish(self, take: Take) -> None:
        """Tell the peer that no more will be sent, and pass to *take* what it sends until it knows.

        Called right before `close`. When it returns, the peer has what was sent, as far as its
        kernel or a protocol reports that. Raises OSError.
        """

    def hand_over(
        self, on_event: Callable[[BackendEvent], None], *, nodelay: bool, keep_alive: bool
    ) -> None:
        """Give it to another backend, which will wait for it; others stop. Never fails."""

    def shut_down(self) -> None:
        """End both directions: what has come can still be read, then `receive` gives ``b""``."""

    def dismiss(self) -> bool:
        """Tell the peer to leave. Is it worth reading until it knows? Else it is shut down.

        Nothing can be sent any more, and tasks that wait for input look again.
        """

    def close(self) -> None:
        """Close the socket and wake the tasks that wait for it. Never fails."""
