"""Where newcomers at a socket stay until their handshakes are over.

Several shake hands at the same time, so a slow or silent one keeps nobody out: the first to finish
is the peer. The others stay, as those in the kernel's queue do, and go on when that peer has left;
or at once, at a listener that serves many.

If a newcomer makes the protocols raise anything, that ends this newcomer and no other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from trio_chardev.backends.socket.link import Link

log = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a newcomer may take for its handshakes."""

MAX_NEWCOMERS = 32
"""The most newcomers at the same time; then the oldest is closed for the next."""


@contextmanager
def ending(close: Callable[[], object], label: str) -> Iterator[None]:
    """Handle a newcomer in the body; whatever it raises, *close* ends that newcomer.

    Raises OSError. *label* begins the log's line about what should not have been raised.
    """
    try:
        yield
    except OSError:
        close()
        raise
    except Exception as exc:
        close()
        log.warning("%s: a newcomer is let go: %s: %s", label, type(exc).__name__, exc)
        log.debug("%s: a newcomer", label, exc_info=exc)
        raise OSError(f"{type(exc).__name__}: {exc}") from exc


class Handshaking:
    """The newcomers of one socket; `wait` until one is ready, then `take` it."""

    __slots__ = ("_deadlines", "_label", "_on_failure", "_ready", "_serves_many")

    def __init__(
        self,
        label: str,
        *,
        serves_many: bool = False,
        on_failure: Callable[[OSError], None] = lambda error: None,
    ) -> None:
        """*label* begins the log's lines. Unless it *serves_many*, there is one peer at a time.

        *on_failure* is told what has ended a newcomer's handshakes.
        """
        self._on_failure = on_failure
        self._label = label
        self._serves_many = serves_many
        self._deadlines: dict[Link, float] = {}  # infinite while another is the peer
        self._ready: Link | None = None

    def __len__(self) -> int:
        return len(self._deadlines)

    def let_in(self, link: Link) -> None:
        """Take in *link*, which is owned from now on."""
        if len(self._deadlines) == MAX_NEWCOMERS:
            oldest = next(iter(self._deadlines))
            log.info("%s: %s gives way to others", self._label, oldest.name)
            self._close(oldest)
        self._deadlines[link] = math.inf

    async def wait(self, more: Callable[[], Awaitable[None]]) -> None:
        """Wait until something has happened here, or *more*, which is awaited meanwhile, returns.

        When Cancelled, the handshakes go on with the next call.
        """
        async with trio.open_nursery() as nursery:
            for link in self._deadlines:
                nursery.start_soon(self._attend, link, nursery.cancel_scope)
            await more()
            nursery.cancel_scope.cancel()

    async def _attend(self, link: Link, waiting: trio.CancelScope) -> None:
        try:
            await self.shake_hands(link)
            self._ready = self._ready or link
        except OSError as exc:
            log.info("%s: %s: %s", self._label, link.name, exc)
            self._on_failure(exc)
        waiting.cancel()

    async def shake_hands(self, link: Link) -> None:
        """Wait until *link*, which was let in, may be the peer.

        Raises OSError if it can't; then it is closed. When Cancelled, it can go on.
        """
        if math.isinf(self._deadlines[link]):
            self._deadlines[link] = trio.current_time() + HANDSHAKE_TIMEOUT
        with ending(lambda: self._close(link), self._label):
            try:
                with trio.fail_at(self._deadlines[link]):
                    await link.handshake()
            except trio.TooSlowError as exc:
                raise TimeoutError(f"no handshake in {HANDSHAKE_TIMEOUT:g} seconds") from exc

    def take(self) -> Link | None:
        """Return the first newcomer that is ready, as the peer, if there is one.

        The others get their full time again, if they have to wait until that one has left.
        """
        link, self._ready = self._ready, None
        if link is not None:
            self.leave(link)
        return link

    def leave(self, link: Link) -> None:
        """Let *link* go, which is a peer now, and owned by the caller."""
        del self._deadlines[link]
        if not self._serves_many:
            self._deadlines = dict.fromkeys(self._deadlines, math.inf)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._deadlines)

    def empty(self) -> list[Link]:
        """Let all newcomers go; the caller owns them."""
        links = list(self._deadlines)
        self._deadlines.clear()
        self._ready = None
        return links

    def shut_down(self) -> None:
        """End all handshakes; the tasks that wait for them notice."""
        for link in self._deadlines:
            link.shut_down()

    def close(self) -> None:
        """Close all newcomers."""
        for link in list(self._deadlines):
            self._close(link)

    def _close(self, link: Link) -> None:
        del self._deadlines[link]
        if self._ready is link:
            self._ready = None
        link.close()
