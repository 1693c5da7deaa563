"""What a backend does when it is replaced or its chardev is closed.

A change calls these methods in this order. A subclass overrides what that kind needs; by default
nothing that was sent has to be waited for, and nothing can be taken back.
"""

from __future__ import annotations

from collections.abc import Callable


class Leaving:
    """What a backend does for bytes in transit when it is replaced."""

    __slots__ = ()

    async def settle(self, timeout: float) -> None:
        """Wait while the peer is about to take what it was sent, and `take_back` would take.

        Called while nothing is sent, in a change that carries over what the peer has not taken, and
        cut off after *timeout* seconds, its drain timeout. Raising BackendError ends the change.
        """

    @property
    def is_taking(self) -> bool:
        """Has the peer taken something since `settle` returned? Then `settle` is called again."""
        return False

    def prepare(self, *, carry: bool) -> None:
        """Open what `drain` and, with *carry*, `take_back` need, while descriptors are to be had.

        Called by a commit before it touches anything. Raising BackendError ends the change.
        """

    def stay(self) -> None:
        """Undo what `settle` and `prepare` did, if they were called, as there is no change."""

    def take_back(self) -> bytes:
        """Take back what was sent and the peer has not taken, for a change that carries it over.

        Called once, by the commit that replaces the backend.
        """
        return b""

    async def finish(self, take: Callable[[bytes], None]) -> None:
        """Tell the peer that it is left, and pass to *take* what it sends until it knows.

        Called once the backend has been replaced, before `drain`, for the change's drain timeout
        at most; until it returns the new backend is not read. When it returns, what was sent is
        safe, too. `Backend.receive_nowait` is not called any more.
        """

    @property
    def is_finished(self) -> bool:
        """Does `finish` have nothing to do, as no peer is there with bytes in transit?

        A subclass that overrides `finish` overrides this, too.
        """
        return True

    async def drain(self) -> None:
        """Wait until what was sent can't be dropped any more when the backend is closed.

        Called once the backend has been replaced, for the change's drain timeout at most.
        """

    @property
    def is_drained(self) -> bool:
        """Does `drain` have nothing to do? Calling it with a deadline would take 12 us.

        A subclass that overrides `drain` overrides this, too.
        """
        return True


LEAVES_NOTHING = Leaving()
"""The `Leaving` of a backend that has to do nothing."""
