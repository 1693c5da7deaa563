"""Reads a backend in place, and hands over what comes, without a checkpoint in between."""

from __future__ import annotations

from typing import Any, Protocol

import trio

from trio_chardev.core.backend import Backend
from trio_chardev.core.fast import ways
from trio_chardev.core.look_again import SHORT, Next, Polling
from trio_chardev.core.peer import Peer
from trio_chardev.core.reactor import wait_and_look
from trio_chardev.core.users import Users

TURN, WAIT = Next.TURN, Next.WAIT  # to find a member by its name takes 0.1 us with Python 3.11


class Place(Protocol):
    """What the pump is told by its runner."""

    is_replaced: bool


class Pump:
    """Reads *backend* as long as it is in place."""

    __slots__ = ("_backend", "_is_all", "_place", "_polling", "_users")

    def __init__(self, place: Place, backend: Backend, users: Users[Any]) -> None:
        self._place = place
        self._backend = backend
        self._users = users
        self._polling = Polling(is_on=backend.is_polled)
        self._is_all = False  # did the last look find something, and all that had come?

    async def run(self) -> None:
        """Wait for room, read, hand over: no byte is held here over a checkpoint.

        A peer that has left need not wait for room, up to the queue's limit: so its leaving is
        noticed, the next one can come, and everything it has sent comes first.

        After the commit that replaced the backend nothing is read.
        """
        backend, users, peer = self._backend, self._users, self._backend.peer
        while not self._place.is_replaced:
            room = users.room
            if room <= 0 and peer.is_hung_up:
                room = users.spare
            if room <= 0:
                await _wait_room(users, peer)
                continue
            then = self._look(room)
            if then is TURN:
                await trio.lowlevel.checkpoint()
            elif then is WAIT and not (self._is_all and await self._wait_and_look()):
                await backend.wait_readable()
        await trio.sleep_forever()

    def _look(self, room: int) -> Next:
        """Read at most *room* bytes, hand them over, and decide what is next."""
        self._polling.look_begins()
        came = self._users.receive_from(self._backend, room)
        self._is_all = 0 < came < SHORT and came < room and self._backend.gives_all
        return self._polling.look_ended(found=came > 0, is_all=self._is_all)

    async def _wait_and_look(self) -> bool:
        """Have the reactor call `_look_for_more`, if it can, until there is more to be done."""
        fd = self._backend.input_fd if ways.are_taken else None
        return fd is not None and await wait_and_look(fd, self._look_for_more)

    def _look_for_more(self) -> bool:
        """Look once. Is it all that is left to do to wait for more?"""
        if self._place.is_replaced or (room := self._users.room) <= 0:
            return False
        return self._look(room) is WAIT and self._is_all


async def _wait_room(users: Users[Any], peer: Peer) -> None:
    """Wait until there is room; peers may come meanwhile."""
    if peer.needs_attention and not users.is_paused:
        await users.wait_room_attending(peer.attend)
    else:
        await users.wait_room()
