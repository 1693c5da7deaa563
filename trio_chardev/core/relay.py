"""Methods for a user that passes a chardev's bytes on, as a bridge, a mux and a hub do."""

from __future__ import annotations

import weakref
from typing import Any

import trio

from trio_chardev.core.inbox import Inbox
from trio_chardev.core.outbox import Outbox


class Relay:
    """Looks at bytes before they are taken, and handles those that can't be sent."""

    def __init__(self, frontend: object, inbox: Inbox[Any], outbox: Outbox) -> None:
        self._frontend = weakref.ref(frontend)
        self._inbox = inbox
        self._outbox = outbox
        self.keeps_refused = False
        """Does the user keep what can't be sent because nobody is there? Then it sends that again,
        or calls `give_up`.

        Otherwise `Frontend.send_some` and `try_send` have given it up when they raise, and a log
        shows it then.
        """
        self.lost = 0
        """How many bytes for the chardev the user gave up, as a hub does for a slow chardev."""

    @property
    def is_attached(self) -> bool:
        """See `Frontend.is_attached`."""
        user = self._inbox.frontend
        return user is not None and user is self._frontend()

    @property
    def has_input(self) -> bool:
        """Would `Frontend.take_ready` return or report something?"""
        return self._inbox.has_items

    @property
    def queued(self) -> int:
        """How many bytes wait to be taken; an event among them counts as 64."""
        return len(self._inbox.queue)

    @property
    def blocked_at(self) -> float | None:
        """Since when somebody waits to send to the other end, by Trio's clock; None: nobody does."""
        return self._outbox.blocked_at

    def check(self) -> None:
        """Raise ClosedResourceError if the frontend is not attached."""
        if not self.is_attached:
            raise trio.ClosedResourceError("this frontend is not attached any more")

    def peek(self) -> bytes:
        """Return some of the next bytes without taking them; ``b""`` while there are none.

        They stay the next bytes until `consume`, whatever happens.
        """
        self.check()
        return self._inbox.peek()

    def peek_run(self, max_bytes: int) -> tuple[bytes, bool]:
        """Return all bytes that wait, up to *max_bytes* or an event, and whether that is behind them.

        They stay the next bytes until `consume`.
        """
        self.check()
        return self._inbox.peek_run(max_bytes)

    async def wait_input(self) -> None:
        """Wait until something more has come, or a change begins to hand over again."""
        await self._inbox.queue.wait_item()

    def consume(self, size: int) -> None:
        """Take *size* bytes, at most those that `peek` returned, also during a change."""
        self._inbox.queue.take(size)

    def put_back(self, data: bytes) -> None:
        """Make *data*, which was received or read directly, the next bytes again."""
        self._inbox.queue.put_back(data)

    def give_up(self, data: bytes | bytearray | memoryview) -> None:
        """Let a log show *data*, which was refused and will not be sent; see `keeps_refused`."""
        if self.is_attached:
            self._outbox.give_up(memoryview(data).cast("B"))
