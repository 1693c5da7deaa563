"""How a backend leaves, once another takes its place or its chardev is closed.

A change calls these in the order in which they stand here. A subclass overrides what that kind needs;
by default nothing that was sent has to be waited for, and nothing can be taken back.
"""

from __future__ import annotations

from collections.abc import Callable


class Leaving:
    """What a backend does for the bytes that are on their way when it is replaced."""

    __slots__ = ()

    async def settle(self, timeout: float) -> None:
        """Wait while the peer is about to take what it was sent, which `take_back` would take.

        Called while nothing is sent, in a change that carries over what nobody has taken, and cut
        off after *timeout* seconds, its drain timeout. Raises BackendError: there is no change.
        """

    @property
    def is_taking(self) -> bool:
        """Has the peer taken something since `settle` returned? Then that is called again."""
        return False

    def prepare(self, *, carry: bool) -> None:
        """Get what `drain` needs and, with *carry*, `take_back`: a descriptor may be the last.

        Called by a commit before it touches anything. Raises BackendError: there is no change.
        """

    def stay(self) -> None:
        """Undo what `settle` and `prepare` did, if they were called: there is no change."""

    def take_back(self) -> bytes:
        """Take back what was sent and its peer has not taken, for a change that carries it over.

        Called once, by the commit that puts another in place.
        """
        return b""

    async def finish(self, take: Callable[[bytes], None]) -> None:
        """Tell the peer that it is left, and have *take* get what it sends until it knows.

        Called once the backend has been replaced, before `drain`, for the change's drain timeout
        at most; until it returns nothing is read of the one in place. What was sent is safe then,
        too. `Backend.receive_nowait` is not called any more.
        """

    @property
    def is_finished(self) -> bool:
        """Has `finish` nothing to do, because nobody is there whose bytes could be on their way?

        A subclass that overrides `finish` overrides this, too.
        """
        return True

    async def drain(self) -> None:
        """Wait until what was sent is safe from being dropped when the backend is closed.

        Called once the backend has been replaced, for the change's drain timeout at most.
        """

    @property
    def is_drained(self) -> bool:
        """Has `drain` nothing to do? To call it with a deadline takes 12 us.

        A subclass that overrides `drain` overrides this, too.
        """
        return True


LEAVES_NOTHING = Leaving()
"""What a backend has that need not do anything."""
