"""A peer that has said that it will send no more, and may still read: half closed.

``printf 'x\\n' | nc -N HOST PORT`` shuts down its side and waits for what comes back. With TCP
that looks as if the peer had left altogether; only its reset, on the first byte that it is sent,
tells. So of the first piece one byte goes alone, and counts as sent when it was acknowledged: who
writes to one that has left hears of it, and nothing is lost. That byte is sent by `wait_writable`,
which a cancellation does not cut short before the answer is known: else a change would have the
next peer get it once more.
"""

from __future__ import annotations

import contextlib

import attrs
import trio

from trio_chardev.backends.connection import INTERNET, TAKEN_INTERVAL, count_unacknowledged
from trio_chardev.backends.layer import Link

ANSWER_TIMEOUT = 0.2  # seconds that a cancellation waits for the answer to the first byte


@attrs.define(eq=False)
class Leaver:
    """It is let go when nothing was sent to it for a time, or it has reset the connection."""

    link: Link
    linger: float
    """Seconds that it is kept from its end, or from the last byte that it was sent."""
    is_ended: bool = False
    """It was told that no more will come: then it is let go as soon as it was sent all."""
    _deadline: float = attrs.field(init=False)
    _wanted: bytes = attrs.field(default=b"", init=False)
    """The first byte of what is to be sent, until it is on its way."""
    _asked: bytes = attrs.field(default=b"", init=False)
    """That byte, on its way or acknowledged, until it counts as sent."""
    _is_there: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._deadline = trio.current_time() + self.linger
        self._is_there = self.link.sock.family not in INTERNET

    def send(self, data: memoryview) -> int:
        """As `Link.send`."""
        if not self._is_there:
            if not self._asked:
                self._wanted = bytes(data[:1])
                raise BlockingIOError
            if not self._is_answered():
                raise BlockingIOError
            self._is_there = True
        asked, self._asked = self._asked, b""
        sent = 1 if asked and asked == data[:1] else 0
        if sent < len(data):
            try:
                sent += self.link.send(data[sent:])
            except BlockingIOError:
                if not sent:
                    raise
        self._deadline = trio.current_time() + self.linger
        return sent

    def _ask(self) -> None:
        """Send the first byte, if there is room. Raises OSError."""
        if self._wanted and not self._asked and self.link.send(memoryview(self._wanted)):
            self._asked, self._wanted = self._wanted, b""
            self._deadline = trio.current_time() + self.linger

    @property
    def _awaits_answer(self) -> bool:
        return bool(self._asked) and not self._is_there

    def _is_answered(self) -> bool:
        """Raises OSError if it has left."""
        if not self.link.takes_more:
            raise BrokenPipeError
        return not self.link.unsent and not count_unacknowledged(self.link.sock)

    async def wait_writable(self) -> None:
        """As `Link.wait_writable`. Cancelled: the first byte was not sent, or is not answered."""
        await self.link.wait_writable()
        with contextlib.suppress(OSError):  # it has left, which `send` meets
            self._ask()
            with trio.move_on_after(ANSWER_TIMEOUT, shield=True):
                await self._wait_answer()
            await self._wait_answer()

    async def _wait_answer(self) -> None:
        while self._awaits_answer and not self._is_answered():  # noqa: ASYNC110 - no event tells
            await trio.sleep(TAKEN_INTERVAL)

    async def wait_over(self) -> None:
        """Wait until it is to be let go."""
        while (rest := self._deadline - trio.current_time()) > 0:
            with trio.move_on_after(rest):
                try:
                    await self.link.wait_gone()
                except OSError:  # no descriptor to spare: then only time tells
                    await trio.sleep_forever()
                return
