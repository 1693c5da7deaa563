"""Who is at the other end of a socket backend: a peer, the last one if it may still read, or nobody."""

from __future__ import annotations

import math

import trio

from trio_chardev.backends.socket.half_closed import HalfClosedPeer
from trio_chardev.backends.socket.link import Link
from trio_chardev.core.runner import DRAIN_TIMEOUT


class DismissedPeer:
    """A peer that was told to leave: what it has sent until it knows is read.

    It is dropped after DRAIN_TIMEOUT, if it has not left by then.
    """

    __slots__ = ("_deadline", "_link")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._deadline = trio.current_time() + DRAIN_TIMEOUT

    def drop_in_time(self) -> None:
        """Drop it if its time is over."""
        if trio.current_time() >= self._deadline:
            self._deadline = math.inf
            self._link.shut_down()

    async def wait_readable(self) -> None:
        """Do as `Link.wait_readable`; it is dropped meanwhile."""
        with trio.CancelScope(deadline=self._deadline):
            await self._link.wait_readable()
        self.drop_in_time()

    async def wait_dropped(self) -> None:
        """Wait until it is dropped."""
        await trio.sleep_until(self._deadline)
        self.drop_in_time()


class Presence:
    """The peer of one backend, from its coming to its end; it is owned."""

    __slots__ = ("_linger", "dismissed", "half_closed", "has_sent_eof", "is_hung_up", "link")

    def __init__(self, linger: float) -> None:
        """*linger* is how many seconds a half-closed peer is still sent to."""
        self._linger = linger
        self.link: Link | None = None
        """The peer's connection; None while nobody is there."""
        self.has_sent_eof = False
        """The peer was told that no more will come."""
        self.is_hung_up = False
        """The peer has left, or was dismissed; False again once that was reported."""
        self.dismissed: DismissedPeer | None = None
        """The peer, if it was told to leave."""
        self.half_closed: HalfClosedPeer | None = None
        """The last peer, which sends no more and may still read, while there is no other."""

    @property
    def reader(self) -> Link | None:
        """The link that gets what is sent: the peer's, or the half-closed one's."""
        return self.link if self.half_closed is None else self.half_closed.link

    def come(self, link: Link) -> None:
        """Make *link* the peer, which is owned from now on."""
        self.let_go()
        self.link = link
        self.has_sent_eof = False

    def lose(self) -> bool:
        """Close the peer. Return False if nobody was there."""
        if self.link is None:
            return False
        self.link.close()
        self.link = self.dismissed = None
        self.is_hung_up = False
        return True

    @property
    def can_linger(self) -> bool:
        """After the end of the peer's input: may it still read?"""
        if self.link is None or self.dismissed is not None or self._linger <= 0:
            return False
        return self.link.unsent if self.has_sent_eof else self.link.takes_more

    def linger(self) -> None:
        """Keep the peer, whose input has ended, as the half-closed one."""
        assert self.link is not None
        self.half_closed = HalfClosedPeer(self.link, self._linger, self.has_sent_eof)
        self.link = None
        self.is_hung_up = False

    def let_go(self) -> None:
        """Close the half-closed peer, if there is one."""
        if self.half_closed is not None:
            half_closed, self.half_closed = self.half_closed, None
            half_closed.link.close()

    def dismiss(self) -> None:
        """Make the peer leave: what it has sent until it knows is read, as if it had left.

        If it does not leave, it is dropped, see `DismissedPeer`.
        """
        if self.link is not None and self.dismissed is None and self.link.dismiss():
            self.dismissed = DismissedPeer(self.link)
            self.is_hung_up = True

    @property
    def keepable(self) -> Link | None:
        """The peer, unless it was told to leave."""
        return self.link if self.dismissed is None else None

    def give_up(self) -> Link | None:
        """Return the peer, if it is `keepable`, for another backend to own."""
        if (link := self.keepable) is not None:
            self.link = None
        return link

    def close(self) -> None:
        """Close whoever is there."""
        self.let_go()
        if self.link is not None:
            self.link.close()
            self.link = None
