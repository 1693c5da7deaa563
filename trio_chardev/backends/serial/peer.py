"""The device at the other end of a serial line: it may go, and come, while nobody reads."""

from __future__ import annotations

import select
from collections.abc import Awaitable, Callable

import trio

from trio_chardev.backends.serial.search import Search
from trio_chardev.core.peer import Outlook, Peer
from trio_chardev.errors import NotSupportedError
from trio_chardev.readiness import wait_readable


class HangUp:
    """Notices that a descriptor hangs up, whatever there is to be read."""

    def __init__(self) -> None:
        self.has_come = False
        self._epoll: select.epoll | None = None  # kept, as filling it takes several calls

    async def wait(self, fd: int) -> None:
        """Wait until *fd*, always the same one until `reset`, has hung up; then note that.

        Without a descriptor to spare for that, it is noticed only by reading.
        """
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
                self._epoll.register(fd, 0)  # EPOLLHUP and EPOLLERR are always reported
            await wait_readable(self._epoll)
        except OSError:
            await trio.sleep_forever()
        self.has_come = True

    def reset(self) -> None:
        """Forget the descriptor, which is about to be closed."""
        self.has_come = False
        if self._epoll is not None:
            trio.lowlevel.notify_closing(self._epoll)
            self._epoll.close()
            self._epoll = None


class SerialPeer(Peer):
    """See `Peer`; *attend* is that of the backend, and *search* looks for an absent line."""

    needs_attention = True

    def __init__(
        self,
        filename: str,
        hang_up: HangUp,
        attend: Callable[[], Awaitable[None]],
        search: Search,
    ) -> None:
        super().__init__(filename)
        self._hang_up = hang_up
        self._attend = attend
        self._search = search

    @property
    def is_hung_up(self) -> bool:
        return self._hang_up.has_come

    @property
    def outlook(self) -> Outlook:
        return self._search.outlook

    def retry(self) -> None:
        if not self._search.interval:
            raise NotSupportedError(f"'{self.filename}' has nothing to retry with 'reopen-ms=0'")
        self._search.retry()

    async def attend(self) -> None:
        await self._attend()
