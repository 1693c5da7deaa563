"""A half-closed peer: it has said that it will send no more, and may still read.

``printf 'x\\n' | nc -N HOST PORT`` shuts down its side and waits for what comes back. With TCP
that looks as if the peer had left altogether; only its reset, in reply to the first byte that it
is sent, shows that. So the first byte is sent alone, and the rest when it was acknowledged: a
sender to a peer that has left gets the error, and no more than that byte is lost.
"""

from __future__ import annotations

import contextlib

import attrs
import trio

from trio_chardev.backends.socket.connection import TAKEN_INTERVAL
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.tcp import INTERNET, count_unacknowledged


@attrs.define(eq=False, repr=False)
class HalfClosedPeer:
    """Ends when nothing was sent to the peer for a time, or the peer has reset the connection."""

    link: Link
    linger: float
    """Seconds that it is kept after its end, or after the last byte that it was sent."""
    is_ended: bool = False
    """It was sent our end, too: then it is closed as soon as all has been sent."""
    _deadline: float = attrs.field(init=False)
    _was_asked: bool = attrs.field(default=False, init=False)
    _is_there: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._deadline = trio.current_time() + self.linger
        self._is_there = self.is_known

    @property
    def is_known(self) -> bool:
        """Does the kernel report it when the peer leaves? Not with TCP."""
        return self.link.sock.family not in INTERNET

    def send(self, data: memoryview) -> int:
        """Do as `Link.send`."""
        if self._awaits_answer:
            if not self._is_answered():
                raise BlockingIOError
            self._is_there = True
        sent = self.link.send(data if self._is_there else data[:1])
        self._was_asked = True
        self._deadline = trio.current_time() + self.linger
        return sent

    @property
    def _awaits_answer(self) -> bool:
        return self._was_asked and not self._is_there

    def _is_answered(self) -> bool:
        """Has the peer acknowledged everything? Raises OSError if it has left."""
        if not self.link.takes_more:
            raise BrokenPipeError
        return not self.link.unsent and not count_unacknowledged(self.link.sock)

    async def wait_writable(self) -> None:
        """Do as `Link.wait_writable`."""
        await self.link.wait_writable()
        with contextlib.suppress(OSError):  # it has left, as `send` will find
            while self._awaits_answer and not self._is_answered():  # noqa: ASYNC110
                await trio.sleep(TAKEN_INTERVAL)

    async def wait_over(self) -> None:
        """Wait until it is to be closed."""
        while (rest := self._deadline - trio.current_time()) > 0:
            with trio.move_on_after(rest):
                try:
                    await self.link.wait_gone()
                except OSError:  # no descriptor to spare, so only the time ends it
                    await trio.sleep_forever()
                return
