"""What a user needs that passes a chardev's bytes on, as a bridge, a mux and a hub do."""

from __future__ import annotations

import weakref
from typing import Any

import trio

from trio_chardev.core.inbox import Inbox
from trio_chardev.core.outbox import Outbox


class Relay:
    """Looks at bytes before they are taken, and says what becomes of those that can't be sent."""

    def __init__(self, frontend: object, inbox: Inbox[Any], outbox: Outbox) -> None:
        self._frontend = weakref.ref(frontend)
        self._inbox = inbox
        self._outbox = outbox
        self.keeps_refused = False
        """Does the user keep what nobody was there for? Then it sends that again, or calls `give_up`.

        Otherwise `Frontend.send_some` and `try_send` have given it up when they raise, and a log
        has it then.
        """
        self.lost = 0
        """How many bytes the user had for the chardev and gave up, as a hub does for a slow one."""

    @property
    def is_attached(self) -> bool:
        """See `Frontend.is_attached`."""
        user = self._inbox.frontend
        return user is not None and user is self._frontend()

    @property
    def has_input(self) -> bool:
        """Would `Frontend.take_ready` give or tell something?"""
        return self._inbox.has_items

    def check(self) -> None:
        """Raise ClosedResourceError if the frontend is not attached."""
        if not self.is_attached:
            raise trio.ClosedResourceError("this frontend is not attached any more")

    def peek(self) -> bytes:
        """Return some of the bytes that come next, which stay; ``b""`` while there are none.

        They are the first to come until `consume`, whatever happens.
        """
        self.check()
        return self._inbox.peek()

    def consume(self, size: int) -> None:
        """Take *size* bytes, at most those that `peek` gave, also during a change."""
        self._inbox.queue.take(size)

    def put_back(self, data: bytes) -> None:
        """Have *data*, which was received or read directly, be the next that comes again."""
        self._inbox.queue.put_back(data)

    def give_up(self, data: bytes | bytearray | memoryview) -> None:
        """Have a log show *data*, which was refused and will not be sent; see `keeps_refused`."""
        if self.is_attached:
            self._outbox.give_up(memoryview(data).cast("B"))
