"""What stands in for a chardev of a configuration that could not open, and is tried again.

Nobody is there, so its users wait as for a device that is unplugged: a console has its clients and
its history all the same. When it opens, that is a change of the backend.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import attrs
import trio

from trio_chardev.backends.table import Kind
from trio_chardev.core.at_once import AtOnce
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.peer import Outlook, Peer
from trio_chardev.errors import BackendDisconnectedError
from trio_chardev.options.backend import BackendOptions


class Attempts:
    """How the attempts to make something fare."""

    def __init__(self, error: str) -> None:
        self.error = error
        """Why the last one failed."""
        self.next_try: float | None = None
        """When the next one is, by Trio's clock."""
        self._retry = trio.Event()

    def retry(self) -> None:
        """Make the next one now."""
        self._retry.set()

    async def wait(self, delay: float) -> None:
        """Wait for *delay* seconds, or until `retry`."""
        self._retry = trio.Event()
        self.next_try = trio.current_time() + delay
        with trio.move_on_at(self.next_try):
            await self._retry.wait()
        self.next_try = None


@attrs.frozen(kw_only=True)
class AbsentOptions(BackendOptions):
    """The options of what stands in for a chardev that can't open."""

    wanted: BackendOptions
    """Those with which it is to open."""
    attempts: Attempts

    @property
    def meant(self) -> BackendOptions:
        return self.wanted

    @property
    def again(self) -> None:
        return None


class AbsentPeer(Peer):
    """Nobody, until an attempt succeeds."""

    def __init__(self, filename: str, attempts: Attempts) -> None:
        super().__init__(filename)
        self._attempts = attempts

    @property
    def outlook(self) -> Outlook:
        return Outlook(
            may_come=True, last_error=self._attempts.error, next_try=self._attempts.next_try
        )

    def retry(self) -> None:
        self._attempts.retry()


class AbsentBackend(Backend):
    """Nobody is here: the chardev could not open yet."""

    is_silent = True

    def __init__(self, request: OpenRequest, attempts: Attempts) -> None:
        super().__init__(request)
        self._attempts = attempts

    @property
    def filename(self) -> str:
        return "absent"

    @property
    def peer(self) -> Peer:
        return AbsentPeer(self.filename, self._attempts)

    def send_nowait(self, data: memoryview) -> int:
        raise BackendDisconnectedError(f"'{self.id}' could not open: {self._attempts.error}")


def open_absent(options: AbsentOptions, request: OpenRequest) -> AtOnce[AbsentBackend]:
    """Give what opens a backend that can't fail."""
    return AtOnce(partial(AbsentBackend, request, options.attempts))


ABSENT: Final = Kind(AbsentOptions, open_absent)
