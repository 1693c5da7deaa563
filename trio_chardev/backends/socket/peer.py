"""A backend whose other side is one peer, on a connected socket.

It handles bytes, descriptors, the end, and what the layers on the socket hold back. How the peer
and its successors come is the subclass's task, see `trio_chardev.backends.socket.socket`.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from trio_chardev.backends.socket.connection import Connection, Take
from trio_chardev.backends.socket.door import who
from trio_chardev.backends.socket.half_closed import HalfClosedPeer
from trio_chardev.backends.socket.http_guard import HttpGuard
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.passed import SharedSocket
from trio_chardev.backends.socket.unix_connection import UnixConnection
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.direct import Direct
from trio_chardev.core.leaving import Leaving
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.core.peer import Peer
from trio_chardev.core.runner import DRAIN_TIMEOUT
from trio_chardev.errors import BackendDisconnectedError, BackendError, NotSupportedError

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
        self._connection: Link | None = None
        self.is_hung_up = False
        """The peer has left, or was dismissed; False again once that was reported."""
        self._half_closed: HalfClosedPeer | None = None  # the last peer, while there is none
        self._linger = linger
        self._has_sent_eof = False  # to the peer
        self._dismissed_until: float | None = None  # when a dismissed peer is dropped
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
        self._let_go()
        self._connection = link
        self._has_sent_eof = False
        self._http_guard = HttpGuard() if self._refuses_browsers else None
        self._note_unsent(link)
        self.set_open(True)

    def _lose(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._dismissed_until = None
            self.is_hung_up = False
            self.set_open(False)

    def _note_end(self) -> None:
        """Handle the end of the peer's input: keep it for some time if it may still read."""
        link, is_ended = self._connection, self._has_sent_eof
        if link is None or self.is_dismissed or self._linger <= 0 or self.peer.others_wait:
            self._lose()
        elif link.unsent if is_ended else link.takes_more:
            self._connection = None
            self.is_hung_up = False
            self._half_closed = HalfClosedPeer(link, self._linger, is_ended)
            self.set_open(False)
        else:
            self._lose()

    def _let_go(self) -> None:
        """Close the half-closed peer, if there is one."""
        if self._half_closed is not None:
            half_closed, self._half_closed = self._half_closed, None
            half_closed.link.close()

    @property
    def peer(self) -> Peer:
        return LinkPeer(self)

    @property
    def leaving(self) -> Leaving:
        return _PeerLeaving(self)

    @property
    def reader(self) -> Link | None:
        """The link that gets what is sent: the peer's, or the half-closed one's."""
        return self._connection if self._half_closed is None else self._half_closed.link

    def _dismiss(self, connection: Link) -> None:
        """Make the peer leave: what it has sent until it knows is read, as if it had left.

        If it does not leave, it is dropped after DRAIN_TIMEOUT.
        """
        if self._dismissed_until is None and connection.dismiss():
            self._dismissed_until = trio.current_time() + DRAIN_TIMEOUT
            self.is_hung_up = True

    @property
    def is_dismissed(self) -> bool:
        """Has the peer been told to leave?"""
        return self._dismissed_until is not None

    @property
    def keepable(self) -> Link | None:
        """The peer, unless it was told to leave."""
        return None if self.is_dismissed else self._connection

    def give_up_peer(self) -> Link | None:
        """Return the peer, if it is `keepable`, for the backend in place of this one to own."""
        if (link := self.keepable) is not None:
            self._connection = None
        return link

    def _drop_in_time(self, connection: Link) -> None:
        """Drop the peer if it was dismissed and its time is over."""
        if self._dismissed_until is not None and trio.current_time() >= self._dismissed_until:
            self._dismissed_until = math.inf
            connection.shut_down()

    @asynccontextmanager
    async def _dropping_in_time(self, connection: Link) -> AsyncIterator[None]:
        """End the wait in the body when the peer is dropped."""
        if self._dismissed_until is None:
            yield
            return
        with trio.CancelScope(deadline=self._dismissed_until):  # noqa: ASYNC100 - the block waits
            yield
        self._drop_in_time(connection)

    # ------------------------------------------------------------ bytes

    def receive_nowait(self, max_bytes: int) -> bytes:
        if self._last_looks is None:
            return self._receive(max_bytes)
        while self._last_looks:
            self._last_looks -= 1
            data = self._receive(max_bytes)
            if data or self._connection is None or not self._connection.has_input():
                return data
        return b""

    def look_again_in_drain(self, *, looks: bool) -> None:
        """In a drain, let `receive_nowait` go on while what comes is no input, if *looks*."""
        self._last_looks = LAST_LOOKS if looks and self._has_layers else None

    def _receive(self, max_bytes: int) -> bytes:
        connection = self._connection
        if connection is None:
            return b""
        if self._dismissed_until is not None:
            self._drop_in_time(connection)
        try:
            data = connection.receive(max_bytes)
        except BlockingIOError:
            return b""
        except OSError as exc:
            log.info("chardev '%s': %s: %s", self.id, connection.name, exc)
            self._note_failure(exc)
            self._lose()
            return b""
        except Exception as exc:  # whatever it is, it ends this peer only
            what = type(exc).__name__
            log.warning("chardev '%s': %s is let go: %s: %s", self.id, connection.name, what, exc)
            log.debug("chardev '%s'", self.id, exc_info=exc)
            self._lose()
            return b""
        finally:
            if connection.unsent:
                self._note_unsent(connection)
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
            self._lose()
            return True
        if guard.is_done:
            self._http_guard = None
        return False

    def send_nowait(self, data: memoryview) -> int:
        connection = self._connection
        if connection is None:
            return self._send_to_leaver(data)
        if self._has_sent_eof:
            raise self.disconnected()
        try:
            return connection.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if not (self.is_dismissed or connection.has_input()):
                self._lose()  # else the reader finds the end, after the input
            raise self.disconnected() from exc
        finally:
            if connection.unsent:
                self._note_unsent(connection)

    def _send_to_leaver(self, data: memoryview) -> int:
        half_closed = self._half_closed
        if half_closed is None or half_closed.is_ended:
            raise self.disconnected()
        try:
            return half_closed.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            self._let_go()
            raise self.disconnected() from exc
        finally:
            self._note_unsent(half_closed.link)

    @property
    def direct(self) -> Direct | None:
        """The peer's connection, if no protocol is on its socket, which is not shared."""
        link = self._connection
        if not isinstance(link, Connection) or isinstance(link.sock, SharedSocket):
            return None
        return None if self.is_dismissed or self._http_guard else link

    def disconnected(self) -> BackendDisconnectedError:
        """Return the error of sending to nobody."""
        return BackendDisconnectedError(f"nobody is connected to chardev '{self.id}'")

    @property
    def input_fd(self) -> int | None:
        link = self._connection
        return (
            link.sock.fileno() if isinstance(link, Connection) and not self.is_dismissed else None
        )

    async def wait_readable(self) -> None:
        if self._connection is None:
            await self._wait_for_next()
            return
        connection = self._connection
        try:
            if self._dismissed_until is None:
                await connection.wait_readable()
            else:
                async with self._dropping_in_time(connection):
                    await connection.wait_readable()
        except OSError as exc:  # one that can't be waited for is lost
            log.warning("chardev '%s': %s: %s", self.id, connection.name, exc)
            if connection is self._connection:
                self._lose()

    async def _wait_for_next(self) -> None:
        """Wait until there may be a peer; meanwhile close the half-closed one in time."""
        half_closed = self._half_closed
        if half_closed is None:
            await self._wait_for_peer()
            return
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await half_closed.wait_over()
                if half_closed is self._half_closed:
                    self._let_go()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await self._wait_for_peer()
            nursery.cancel_scope.cancel()

    async def wait_writable(self) -> None:
        target, link = self._connection or self._half_closed, self.reader
        if target is None:
            raise self.disconnected()
        try:
            await target.wait_writable()
        except (trio.ClosedResourceError, OSError):  # the reader finds out why
            raise self.disconnected() from None
        if link is not self.reader:  # what is to be sent is not for another peer
            raise self.disconnected()

    # ------------------------------------------------------------ what layers hold back

    def _note_unsent(self, link: Link) -> None:
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
            if (link := self.reader) is not None:
                # The reader will get these errors.
                with contextlib.suppress(OSError, trio.ClosedResourceError):
                    await _flush(link)
                if self._half_closed is not None and self._half_closed.is_ended:
                    self._let_go()


class LinkPeer(Peer):
    """The peer of a `PeerBackend`."""

    needs_attention = True

    def __init__(self, backend: PeerBackend) -> None:
        super().__init__(backend.filename)
        self._backend = backend

    @property
    def who(self) -> str:
        link = self._backend.reader
        with contextlib.suppress(OSError):  # it has left
            return "" if link is None else who(link.sock)
        return ""

    @property
    def is_hung_up(self) -> bool:
        return self._backend.is_hung_up

    @property
    def may_have_left(self) -> bool:
        half_closed = self._backend._half_closed
        return half_closed is not None and not half_closed.is_known

    @property
    def is_lingering(self) -> bool:
        return self._backend._half_closed is not None

    async def attend(self) -> None:
        connection = self._backend._connection
        if connection is None:
            await self._backend._wait_for_next()
        elif self._backend.is_hung_up:
            async with self._backend._dropping_in_time(connection):
                await trio.sleep_forever()
        else:
            try:
                await connection.wait_hangup()
            except OSError:  # no descriptor to spare, so only reading notices it
                await trio.sleep_forever()
            self._backend.is_hung_up = connection is self._backend._connection

    def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent. Raises NotSupportedError.

        Also raises BackendDisconnectedError, if nobody is there.
        """
        link = self._backend.reader
        if link is None or self._backend._has_sent_eof:
            raise self._backend.disconnected()
        if not link.ends_one_way:
            raise NotSupportedError(f"'{self.filename}' can't end in one direction only")
        try:
            link.send_eof()
        except OSError as exc:  # it has left, as its reader will find
            raise self._backend.disconnected() from exc
        finally:
            self._backend._note_unsent(link)
        if self._backend._half_closed is None:
            self._backend._has_sent_eof = True
            return
        self._backend._half_closed.is_ended = True
        if not link.unsent:
            self._backend._let_go()

    def take_fds(self) -> list[int]:
        """Return the descriptors of the last read that brought any; see `UnixConnection`."""
        if isinstance(self._backend._connection, UnixConnection):
            return self._backend._connection.take_fds()
        return []

    def send_fds(self, fds: Sequence[int]) -> None:
        """Pass *fds*, which stay the caller's, with the next bytes that are sent.

        They replace those of an earlier call, and are dropped if these bytes can't be sent. Raises
        NotSupportedError on other than UNIX sockets, BackendDisconnectedError, BackendError
        if one is not open.
        """
        if self._backend._connection is None:
            raise self._backend.disconnected()
        if not isinstance(self._backend._connection, UnixConnection):
            raise NotSupportedError(f"'{self.filename}' can't pass file descriptors")
        try:
            self._backend._connection.send_fds(fds)
        except OSError as exc:
            raise BackendError.from_os_error("Could not pass file descriptors", exc) from exc


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
        return self._backend.reader is None

    async def finish(self, take: Take) -> None:
        if (link := self._backend.reader) is not None:
            with contextlib.suppress(OSError, trio.ClosedResourceError):  # it has left
                await link.finish(take)


async def _flush(link: Link) -> None:
    while link.unsent:
        await link.wait_writable()
        link.flush()
