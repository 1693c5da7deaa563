"""A backend whose other side is one peer, on a connected socket.

It handles bytes, descriptors, the end, and what the layers on the socket hold back. How the peer
and its successors come is the subclass's task, see `trio_chardev.backends.socket.socket`.
"""

from __future__ import annotations

import abc
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trio_chardev.backends.socket.connection import Connection, Take
from trio_chardev.backends.socket.http_guard import HttpGuard
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.passed import SharedSocket
from trio_chardev.backends.socket.presence import Presence
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.direct import Direct
from trio_chardev.core.leaving import Leaving
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import BackendDisconnectedError

log = logging.getLogger(__name__)

LAST_LOOKS = 32  # at a layered peer's input, in a commit; `finish` gets the rest


class PeerBackend(Backend):
    """A backend that is open while it has a peer."""

    is_polled = True

    def __init__(
        self, request: OpenRequest, *, has_layers: bool, linger: float, http_guard: bool = False
    ) -> None:
        """*has_layers* says whether protocols stand on the sockets, which may hold back output.

        With *http_guard* a peer that turns out to be a web browser is let go, see `HttpGuard`.
        *linger* is how many seconds a half-closed peer is still sent to, see `HalfClosedPeer`.
        """
        super().__init__(request)
        self.there = Presence(linger)
        """The peer, or the last one."""
        self._has_layers = has_layers
        self.gives_all = not has_layers
        self._refuses_browsers = http_guard
        self._http_guard: HttpGuard | None = None  # of the peer, until it is known to be no browser
        self._last_looks: int | None = None  # how many are left, in a commit
        self._has_unsent = trio.Event()  # wakes `_keep_flushing`
        self._nursery: trio.Nursery | None = None

    @abc.abstractmethod
    async def _wait_for_peer(self) -> None:
        """Wait until there may be a peer; the caller checks, and calls again if there is none."""

    def _note_failure(self, error: Exception) -> None:
        """Note what ends a peer, or keeps somebody from becoming one."""

    def _connect(self, link: Link) -> None:
        """Make *link*, which is owned from now on, the peer."""
        self.there.come(link)
        self._http_guard = HttpGuard() if self._refuses_browsers else None
        self.note_unsent(link)
        self.set_open(True)

    def lose(self) -> None:
        """Drop the peer, if there is one; what it has sent is lost if it was not read."""
        if self.there.lose():
            self.set_open(False)

    def _note_end(self) -> None:
        """Handle the end of the peer's input: keep it for some time if it may still read."""
        if self.there.can_linger and not self.peer.others_wait:
            self.there.linger()
            self.set_open(False)
        else:
            self.lose()

    @property
    def leaving(self) -> Leaving:
        return _PeerLeaving(self)

    # ------------------------------------------------------------ bytes

    def receive_nowait(self, max_bytes: int) -> bytes:
        if self._last_looks is None:
            return self._receive(max_bytes)
        while self._last_looks:
            self._last_looks -= 1
            data = self._receive(max_bytes)
            link = self.there.link
            if data or link is None or not link.has_input():
                return data
        return b""

    def look_again_in_drain(self, *, looks: bool) -> None:
        """In a drain, let `receive_nowait` go on while what comes is no input, if *looks*."""
        self._last_looks = LAST_LOOKS if looks and self._has_layers else None

    def _receive(self, max_bytes: int) -> bytes:
        connection = self.there.link
        if connection is None:
            return b""
        if self.there.dismissed is not None:
            self.there.dismissed.drop_in_time()
        try:
            data = connection.receive(max_bytes)
        except BlockingIOError:
            return b""
        except OSError as exc:
            log.info("chardev '%s': %s: %s", self.id, connection.name, exc)
            self._note_failure(exc)
            self.lose()
            return b""
        except Exception as exc:  # whatever it is, it ends this peer only
            what = type(exc).__name__
            log.warning("chardev '%s': %s is let go: %s: %s", self.id, connection.name, what, exc)
            log.debug("chardev '%s'", self.id, exc_info=exc)
            self.lose()
            return b""
        finally:
            if connection.unsent:
                self.note_unsent(connection)
        if self._http_guard is not None and self._let_browser_go(data):
            return b""
        if not data and max_bytes:
            self._note_end()
        return data

    def _let_browser_go(self, data: bytes) -> bool:
        """Check *data*, the next of a peer's first bytes. Let it go if it is a browser."""
        guard = self._http_guard
        assert guard is not None
        if guard.is_browser(data):
            log.warning("chardev '%s': a web browser has come; it is let go", self.id)
            self.lose()
            return True
        if guard.is_done:
            self._http_guard = None
        return False

    def send_nowait(self, data: memoryview) -> int:
        connection = self.there.link
        if connection is None:
            return self._send_to_leaver(data)
        if self.there.has_sent_eof:
            raise self.disconnected()
        try:
            return connection.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if self.there.dismissed is None and not connection.has_input():
                self.lose()  # else the reader finds the end, after the input
            raise self.disconnected() from exc
        finally:
            if connection.unsent:
                self.note_unsent(connection)

    def _send_to_leaver(self, data: memoryview) -> int:
        half_closed = self.there.half_closed
        if half_closed is None or half_closed.is_ended:
            raise self.disconnected()
        try:
            return half_closed.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            self.there.let_go()
            raise self.disconnected() from exc
        finally:
            self.note_unsent(half_closed.link)

    @property
    def direct(self) -> Direct | None:
        """The peer's connection, if no protocol is on its socket, which is not shared."""
        link = self.there.link
        if not isinstance(link, Connection) or isinstance(link.sock, SharedSocket):
            return None
        return None if self.there.dismissed or self._http_guard else link

    def disconnected(self) -> BackendDisconnectedError:
        """Return the error of sending to nobody."""
        return BackendDisconnectedError(f"nobody is connected to chardev '{self.id}'")

    @property
    def input_fd(self) -> int | None:
        link = self.there.link
        if not isinstance(link, Connection) or self.there.dismissed is not None:
            return None
        return link.sock.fileno()

    async def wait_readable(self) -> None:
        connection = self.there.link
        if connection is None:
            await self.wait_for_next()
            return
        try:
            await (self.there.dismissed or connection).wait_readable()
        except OSError as exc:  # one that can't be waited for is lost
            log.warning("chardev '%s': %s: %s", self.id, connection.name, exc)
            if connection is self.there.link:
                self.lose()

    async def wait_for_next(self) -> None:
        """Wait until there may be a peer; meanwhile close the half-closed one in time."""
        half_closed = self.there.half_closed
        if half_closed is None:
            await self._wait_for_peer()
            return
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await half_closed.wait_over()
                if half_closed is self.there.half_closed:
                    self.there.let_go()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await self._wait_for_peer()
            nursery.cancel_scope.cancel()

    async def wait_writable(self) -> None:
        target, link = self.there.link or self.there.half_closed, self.there.reader
        if target is None:
            raise self.disconnected()
        try:
            await target.wait_writable()
        except (trio.ClosedResourceError, OSError):  # the reader finds out why
            raise self.disconnected() from None
        if link is not self.there.reader:  # what is to be sent is not for another peer
            raise self.disconnected()

    # ------------------------------------------------------------ what layers hold back

    def note_unsent(self, link: Link) -> None:
        """Have what *link* holds back sent soon."""
        if link.unsent:
            self._has_unsent.set()

    @asynccontextmanager
    async def flushing(self) -> AsyncIterator[None]:
        """Send in the block what counts as sent, also when nobody reads or writes."""
        if not (self._has_layers or self._watches):
            yield
            return
        async with open_background_nursery() as self._nursery:
            if self._has_layers:
                self._nursery.start_soon(self._keep_flushing)
            self._watch()
            yield

    @property
    def _watches(self) -> bool:
        """Is there something to `_watch`?"""
        return False

    def _watch(self) -> None:
        """Start in the nursery, if there is one, what is needed now that a peer may have come."""

    async def _keep_flushing(self) -> None:
        while True:
            await self._has_unsent.wait()
            self._has_unsent = trio.Event()
            if (link := self.there.reader) is not None:
                # The reader will get these errors.
                with contextlib.suppress(OSError, trio.ClosedResourceError):
                    await _flush(link)
                half_closed = self.there.half_closed
                if half_closed is not None and half_closed.is_ended:
                    self.there.let_go()


class _PeerLeaving(Leaving):
    """How a peer is left: it is told, and its input is read until it knows."""

    def __init__(self, backend: PeerBackend) -> None:
        self._backend = backend

    def prepare(self, *, carry: bool) -> None:
        self._backend.look_again_in_drain(looks=True)

    def stay(self) -> None:
        self._backend.look_again_in_drain(looks=False)

    @property
    def is_finished(self) -> bool:
        return self._backend.there.reader is None

    async def finish(self, take: Take) -> None:
        if (link := self._backend.there.reader) is not None:
            with contextlib.suppress(OSError, trio.ClosedResourceError):  # it has left
                await link.finish(take)


async def _flush(link: Link) -> None:
    while link.unsent:
        await link.wait_writable()
        link.flush()
