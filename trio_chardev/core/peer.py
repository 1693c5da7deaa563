"""Who is at the other end of a backend, and who comes there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import trio

from trio_chardev.errors import NotSupportedError


class Peer:
    """What a backend knows of its peer, and can do to it; by default nothing.

    A kind that lets peers come and go overrides what it can do.
    """

    can_disconnect: ClassVar[bool] = False
    """Does `disconnect` drop it?"""

    needs_attention: ClassVar[bool] = False
    """Has `attend` something to do?"""

    def __init__(self, filename: str) -> None:
        self.filename = filename
        """The name of the backend, for what the errors say."""

    # ------------------------------------------------------------ how it is

    @property
    def is_hung_up(self) -> bool:
        """Has `attend` found that the peer has left, which was not reported yet?"""
        return False

    @property
    def may_have_left(self) -> bool:
        """Is the peer lingering, and only what it is sent will tell whether it is still there?"""
        return False

    @property
    def is_lingering(self) -> bool:
        """CLOSED was reported, for nothing more will come: can that peer still be sent to?"""
        return False

    @property
    def is_kept(self) -> bool:
        """Does `Backend.activate` take over the peer of the backend that it replaces?

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

    # ------------------------------------------------------------ who comes

    async def attend(self) -> None:
        """Do what `Backend.wait_readable` does beside waiting for bytes, while there is no room for any.

        Accepts, connects, shakes hands; when the peer leaves `is_hung_up` becomes true, and then
        what it has sent is read. May return too early; always a checkpoint. Cancelled when
        there is room.
        """
        await trio.sleep_forever()

    def guard(self) -> None:
        """Let in only who may drive this service, from now on: a monitor is to use the chardev.

        Raises BackendError, and then nothing has changed, if it can't know who comes.
        """

    def recheck(self, *, drop: bool) -> list[tuple[str, str]]:
        """Name those who are there and would not be let in now, each with why; with *drop* drop them."""
        return []

    # ------------------------------------------------------------ what is done to it

    def disconnect(self, *, at_once: bool = False) -> None:
        """Drop the peer as if it had left; *at_once*: what it is sending is of no use to anybody."""

    def send_eof(self) -> None:
        """Tell it that no more will come, and receive from it as before (shutdown(2)).

        Raises BackendError, NotSupportedError.
        """
        raise NotSupportedError(f"'{self.filename}' has no end of its own in each direction")

    def take_fds(self) -> list[int]:
        """Take the descriptors that came with the last read that brought any."""
        return []

    def send_fds(self, fds: Sequence[int]) -> None:
        """Pass *fds*, which stay the caller's, with the next bytes that are sent.

        Raises BackendError, NotSupportedError.
        """
        raise NotSupportedError(f"'{self.filename}' can't pass file descriptors")
