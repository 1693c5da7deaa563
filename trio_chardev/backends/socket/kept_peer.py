"""The peer that a change keeps: the replaced backend has it until the commit, which takes it over."""

from __future__ import annotations

from collections.abc import Callable

from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.peer import PeerBackend
from trio_chardev.errors import BackendError


class KeptPeer:
    """The peer of *original*, which may leave until it is taken, or another may come."""

    __slots__ = ("_original", "_refusal_of")

    def __init__(self, original: PeerBackend, refusal_of: Callable[[Link], str | None]) -> None:
        """*refusal_of* says why a peer would not be let in if it came now, or None."""
        self._original = original
        self._refusal_of = refusal_of

    @property
    def is_open(self) -> bool:
        """Is the replaced backend open?"""
        return self._original.is_open

    @property
    def is_there(self) -> bool:
        """Is there a peer to take?"""
        return self._original.keepable is not None

    def check(self) -> None:
        """Raise BackendError if the peer would not be let in, if it came now."""
        peer = self._original.keepable
        if peer is not None and (why := self._refusal_of(peer)) is not None:
            raise BackendError(f"'keep-peer': {peer.name} would not be let in: {why}")

    def take(self) -> Link | None:
        """Take the peer from the replaced backend; the caller owns it."""
        return self._original.give_up_peer()
