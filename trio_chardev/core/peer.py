"""The peer at the other end of a backend, and the clients that come there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import attrs
import trio

from trio_chardev.errors import NotSupportedError


@attrs.frozen
class Outlook:
    """What is to be expected while nobody is there."""

    may_come: bool = False
    """May somebody come, or be found, without a change?"""
    last_error: str | None = None
    """Why the last attempt to reach somebody, or the last connection, has ended."""
    next_try: float | None = None
    """When it is tried again, by Trio's clock; None if it is being tried, or never is."""


class Peer:
    """What a backend knows of its peer, and can do to it: by default nothing.

    A kind whose peers come and go overrides what it can do.
    """

    can_disconnect: ClassVar[bool] = False
    """Does `disconnect` drop it?"""

    needs_attention: ClassVar[bool] = False
    """Does `attend` have anything to do?"""

    takes_news: ClassVar[bool] = False
    """Does `tell` do anything?"""

    def __init__(self, filename: str) -> None:
        self.filename = filename
        """The name of the backend, for errors."""

    # ------------------------------------------------------------ its state

    @property
    def who(self) -> str:
        """Its process and user, or its address; "" if nothing is known."""
        return ""

    @property
    def is_hung_up(self) -> bool:
        """Has `attend` found that the peer has left, which was not reported yet?"""
        return False

    @property
    def may_have_left(self) -> bool:
        """Is the peer lingering, so that only sending to it shows whether it is still there?"""
        return False

    @property
    def is_lingering(self) -> bool:
        """Can a peer still be sent to that sends no more, for which CLOSED was reported?"""
        return False

    @property
    def is_kept(self) -> bool:
        """Does `Backend.activate` take over the peer of the replaced backend?

        See `OpenRequest.keep_peer`.
        """
        return False

    @property
    def others_wait(self) -> bool:
        """Does somebody wait for the peer to leave, to take its place?"""
        return False

    @property
    def waiting(self) -> int:
        """How many are known to wait for the peer to leave, to take its place."""
        return 0

    @property
    def outlook(self) -> Outlook:
        """What is to be expected, while the backend is not open."""
        return Outlook()

    # ------------------------------------------------------------ newcomers

    def retry(self) -> None:
        """Try now to reach somebody, unless somebody is there. Raises NotSupportedError.

        Only a kind that tries again and again by itself can.
        """
        raise NotSupportedError(f"'{self.filename}' has nothing to retry")

    async def attend(self) -> None:
        """Do all that `Backend.wait_readable` does but wait for bytes, as there is no room for any.

        It accepts, connects and shakes hands. When the peer leaves, `is_hung_up` becomes true, and
        then what it has sent is read. May return too early; always a checkpoint. Cancelled when
        there is room.
        """
        await trio.sleep_forever()

    def guard(self) -> None:
        """Let in only peers that may control this service, as a monitor will use the chardev.

        Raises BackendError if it can't tell who comes; then nothing has changed.
        """

    def recheck(self, *, drop: bool) -> list[tuple[str, str]]:
        """Name the peers that would not be let in now, each with the reason; *drop* drops them."""
        return []

    # ------------------------------------------------------------ what can be done to it

    def disconnect(self, *, at_once: bool = False) -> None:
        """Drop the peer as if it had left; *at_once* says that nobody needs what it is sending."""

    def send_eof(self) -> None:
        """Tell it that no more will come, and receive from it as before (shutdown(2)).

        Raises BackendError, NotSupportedError.
        """
        raise NotSupportedError(f"'{self.filename}' has no end of its own in each direction")

    def tell(self, text: str, mark: str) -> None:
        """Tell people there *text*, news of the device, and remember the place as *mark*."""

    def take_fds(self) -> list[int]:
        """Take the descriptors that came with the last read that brought any."""
        return []

    def send_fds(self, fds: Sequence[int]) -> None:
        """Pass *fds*, which stay the caller's, with the next bytes that are sent.

        Raises BackendError, NotSupportedError.
        """
        raise NotSupportedError(f"'{self.filename}' can't pass file descriptors")
