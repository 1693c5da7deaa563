"""The peer that a change keeps: the replaced backend has it until the commit, which takes it over."""

from __future__ import annotations

from collections.abc import Callable

from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.presence import Presence
from trio_chardev.errors import BackendError


class KeptPeer:
    """Whoever is *there*, at the replaced backend: until it is taken it may leave, and another come."""

    __slots__ = ("_refusal_of", "_there")

    def __init__(self, there: Presence, refusal_of: Callable[[Link], str | None]) -> None:
        """*refusal_of* says why a peer would not be let in if it came now, or None."""
        self._there = there
        self._refusal_of = refusal_of

    @property
    def is_open(self) -> bool:
        """Has the replaced backend a peer?"""
        return self._there.link is not None

    @property
    def is_there(self) -> bool:
        """Is there a peer to take?"""
        return self._there.keepable is not None

    def check(self) -> None:
        """Raise BackendError if the peer would not be let in, if it came now."""
        peer = self._there.keepable
        if peer is not None and (why := self._refusal_of(peer)) is not None:
            raise BackendError(f"'keep-peer': {peer.name} would not be let in: {why}")

    def take(self) -> Link | None:
        """Take the peer from the replaced backend; the caller owns it."""
        return self._there.give_up()
