"""A connected peer, as its backend sees it: a socket, or a protocol on one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from trio_chardev.backends.socket.connection import Take
from trio_chardev.events import Event


class Link(Protocol):
    """A connected peer: a socket, or a protocol on one."""

    name: str
    """What query-chardev shows."""

    @property
    def sock(self) -> socket.socket:
        """The socket at the bottom, to ask who is there."""

    @property
    def unsent(self) -> bool:
        """Are there bytes that count as sent and that the kernel has not taken?"""

    async def handshake(self) -> None:
        """Wait until bytes may go. Raises OSError. Cancelled: may be called again, to go on."""

    def receive(self, max_bytes: int) -> bytes:
        """What has come, ``b""`` at the end. Raises BlockingIOError, or another OSError.

        BlockingIOError also when so much has come that is no input that others should have a
        turn: then it `has_input`, and `wait_readable` does not wait.
        """

    def send(self, data: memoryview) -> int:
        """Send a prefix. Raises BlockingIOError, or another OSError if that is the end."""

    def flush(self) -> None:
        """Try to send what is `unsent`. Raises OSError, and drops it, if that is the end."""

    def has_input(self) -> bool:
        """May `receive` give bytes?"""

    def has_room(self) -> bool:
        """Will `send` accept something, or fail?"""

    async def wait_readable(self) -> None:
        """Wait for input, or the end; or until it is closed by another task. May be too early."""

    async def wait_hangup(self) -> None:
        """Wait until no more can come, whatever can be read before; else as `wait_readable`.

        Raises OSError if it can't know.
        """

    async def wait_writable(self) -> None:
        """Wait for room, or the end; several tasks may.

        May be too early. Raises ClosedResourceError if another task closes it.
        """

    @property
    def ends_one_way(self) -> bool:
        """Can one side end while the other goes on?"""

    @property
    def takes_more(self) -> bool:
        """`receive` has come to the end: can it still be sent to, as far as one can tell?"""

    async def wait_gone(self) -> None:
        """Wait until it is over both ways: it was reset, for one. Raises OSError if it can't know."""

    def send_eof(self) -> None:
        """Tell the peer that no more will come, behind what was sent. Raises OSError.

        Only where `ends_one_way`. It can be received from as before.
        """

    def turn_away(self, why: str) -> None:
        """Tell a newcomer that it can't come. Raises OSError."""

    async def finish(self, take: Take) -> None:
        """Say that nothing more will be sent, and have *take* get what the peer sends until it knows.

        It is about to be closed. The peer has what was sent then, as far as its kernel or a
        protocol tells. Raises OSError.
        """

    def hand_over(
        self, on_event: Callable[[Event], None], *, nodelay: bool, keep_alive: bool
    ) -> None:
        """It is another backend's from now on, which waits for it: others stop. Never fails."""

    def shut_down(self) -> None:
        """End it both ways: what has come can still be read, then `receive` gives ``b""``."""

    def dismiss(self) -> bool:
        """Tell the peer to leave; is it worth to hear it until it knows? Else it is shut down.

        Nothing can be sent any more, and those who wait for input look again.
        """

    def close(self) -> None:
        """Close the socket and wake those who wait for it. Never fails."""
