"""The last bytes of a backend that is replaced; they come before those of its successor.

What it had received by the commit is taken at once. What its peer sends until it knows that it is
left is taken afterwards, for a while; only then is the new backend read.
"""

from __future__ import annotations

import logging

import attrs

from trio_chardev.core.inbox import INBOX_LIMIT
from trio_chardev.core.parts import Parts, show_received
from trio_chardev.core.runner import Runner
from trio_chardev.core.tap import show
from trio_chardev.errors import BackendError

log = logging.getLogger(__name__)

DRAIN_CHUNK = 1 << 16  # bytes
DRAIN_LIMIT = INBOX_LIMIT  # bytes that one change keeps; while more wait it is refused


@attrs.define(eq=False, repr=False)
class LastWords:
    """The last bytes of the backend that *runner* runs."""

    _parts: Parts
    runner: Runner
    _limit: int = attrs.field(default=0, init=False)  # of the queue's size, with these bytes
    _names: tuple[str, str] = attrs.field(default=("", ""), init=False)  # its own, the new one's

    def take_received(self) -> None:
        """Queue what the backend has received. Raises nothing.

        With a frontend that is up to DRAIN_LIMIT, which is more than a kernel's buffer holds; a
        file, or a peer as fast as this process, always has more. Without one nobody takes it, so
        the queue keeps no more than its usual capacity.
        """
        if self.runner.closed.is_set():
            return
        users = self._parts.users
        queue = users.focus.queue
        self._limit = len(queue) + DRAIN_LIMIT if users.frontends else queue.capacity
        try:
            while (room := self._room) > 0:
                if not (data := self.runner.backend.receive_nowait(min(room, DRAIN_CHUNK))):
                    break
                self._add(data)
        except Exception as exc:
            text = "chardev '%s': the old backend broke in the drain: %r"
            log.warning(text, self._parts.id, exc)

    @property
    def _room(self) -> int:
        return self._limit - len(self._parts.users.focus.queue)

    def _add(self, data: bytes) -> None:
        self._parts.tell(show_received, self.runner.backend.taps, data)
        self._parts.counts.received += len(data)
        self._parts.users.focus.data(data)

    def replaced_by(self, new: Runner) -> None:
        """Note that *new* is in place; the taps are told when they have been shown everything."""
        self._names = self.runner.backend.filename, new.backend.filename
        self.runner.is_replaced = True
        if self._has_more:
            self._parts.leaving = self.runner
        else:
            self._end_taps()

    @property
    def _has_more(self) -> bool:
        return not (self.runner.closed.is_set() or self.runner.backend.leaving.is_finished)

    def _end_taps(self) -> None:
        before, after = self._names
        self._parts.tell(show, self.runner.backend.taps, lambda tap: tap.replaced(before, after))

    async def hear(self, timeout: float) -> None:
        """Let the peer have its last bytes, and queue all it sends; then let the next one in.

        Takes *timeout* seconds at most. It can't be Cancelled.
        """
        parts = self._parts
        try:
            await self._take_slowly(timeout)
        finally:
            if parts.leaving is not None:
                parts.leaving = None
                self._end_taps()
                is_open = parts.runner.started and parts.backend.is_open
                parts.users.release(is_open=is_open)

    async def hear_before_close(self, timeout: float) -> None:
        """Let the users get all that the peer sends, as `hear`, before the chardev is closed."""
        parts, runner = self._parts, self.runner
        if not parts.frontends or not runner.started or not self._has_more:
            return
        try:
            runner.backend.leaving.prepare(carry=False)
        except BackendError as exc:
            log.warning("chardev '%s': its peer is not heard out: %s", parts.id, exc)
            return
        parts.users.hold(closed=False)
        try:
            self.take_received()
            runner.is_replaced = True
            await self._take_slowly(timeout)
        finally:
            parts.users.release(is_open=False)

    async def _take_slowly(self, timeout: float) -> None:
        lost = 0

        def take(data: bytes) -> None:
            nonlocal lost
            if kept := data[: max(0, self._room)]:
                self._add(kept)
            lost += len(data) - len(kept)

        await self.runner.drain(timeout, take)
        if lost:
            text = "chardev '%s': %d bytes that nobody has read are lost"
            log.warning(text, self._parts.id, lost)
