"""The peer of a socket backend, as the core sees it, and the clients that wait for it to leave."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import trio

from trio_chardev.backends.socket.door import who
from trio_chardev.backends.socket.entrance import Entrance
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.peer import PeerBackend
from trio_chardev.backends.socket.unix_connection import UnixConnection
from trio_chardev.core.peer import Outlook, Peer
from trio_chardev.errors import BackendError, NotSupportedError


class SocketPeer(Peer):
    """The one peer of *backend*, and those who come in by *entrance*."""

    can_disconnect = True
    needs_attention = True

    def __init__(self, backend: PeerBackend, entrance: Entrance, *, is_kept: bool) -> None:
        super().__init__(backend.filename)
        self._backend = backend
        self._there = backend.there
        self._entrance = entrance
        self._is_kept = is_kept

    # ------------------------------------------------------------ its state

    @property
    def who(self) -> str:
        link = self._there.reader
        with contextlib.suppress(OSError):  # it has left
            return "" if link is None else who(link.sock)
        return ""

    @property
    def is_hung_up(self) -> bool:
        return self._there.is_hung_up

    @property
    def may_have_left(self) -> bool:
        half_closed = self._there.half_closed
        return half_closed is not None and not half_closed.is_known

    @property
    def is_lingering(self) -> bool:
        return self._there.half_closed is not None

    @property
    def is_kept(self) -> bool:
        return self._is_kept

    @property
    def others_wait(self) -> bool:
        return self._entrance.others_wait

    @property
    def waiting(self) -> int:
        return 0 if self._there.link is None else self._entrance.waiting

    @property
    def outlook(self) -> Outlook:
        return self._entrance.outlook

    # ------------------------------------------------------------ newcomers

    def retry(self) -> None:
        if not self._entrance.retry():
            raise NotSupportedError(
                f"'{self.filename}' has nothing to retry: it is no client with 'reconnect-ms'"
            )

    async def attend(self) -> None:
        there, connection = self._there, self._there.link
        if connection is None:
            await self._backend.wait_for_next()
        elif there.dismissed is not None:
            await there.dismissed.wait_dropped()
        elif there.is_hung_up:
            await trio.sleep_forever()
        else:
            try:
                await connection.wait_hangup()
            except OSError:  # no descriptor to spare, so only reading notices it
                await trio.sleep_forever()
            there.is_hung_up = connection is there.link

    def guard(self) -> None:
        """Let in only peers that may, see `Peer.guard`; drop one that is there and may not."""
        link = self._there.link
        self._entrance.guard(link)
        self._there.let_go()
        if link is not None:  # newcomers are checked after their handshakes
            try:
                self._entrance.check(link.sock)
            except OSError:
                self._backend.lose()

    def recheck(self, *, drop: bool) -> list[tuple[str, str]]:
        """Check the peer, and the newcomers that shake hands. *drop* loses what was not read."""
        from trio_chardev.backends.socket.recheck import recheck

        reader = self._there.reader
        links = [*([] if reader is None else [reader]), *self._entrance.newcomers]
        end = self._end if drop else None
        return recheck(self._backend.id, links, self._entrance.refusal_of, end)

    def _end(self, link: Link) -> None:
        """Drop *link*, which is the peer, wants to be, or has been."""
        if link is self._there.link:
            self._backend.lose()
        elif link is self._there.reader:
            self._there.let_go()
        else:
            link.shut_down()  # which the handshaking notices

    # ------------------------------------------------------------ what can be done to it

    def disconnect(self, *, at_once: bool = False) -> None:
        """Drop the peer, or all newcomers, as if they had left: what they sent can be read.

        Unless *at_once*, a peer that is sending is read until it knows, see `Presence.dismiss`.
        """
        if self._there.half_closed is not None:
            self._there.let_go()
        elif self._there.link is None:
            self._entrance.shut_down_newcomers()
        elif at_once:
            self._there.link.shut_down()
        else:
            self._there.dismiss()

    def send_eof(self) -> None:
        """Tell the peer that nothing more will be sent. Raises NotSupportedError.

        Also raises BackendDisconnectedError, if nobody is there.
        """
        link = self._there.reader
        if link is None or self._there.has_sent_eof:
            raise self._backend.disconnected()
        if not link.ends_one_way:
            raise NotSupportedError(f"'{self.filename}' can't end in one direction only")
        try:
            link.send_eof()
        except OSError as exc:  # it has left, as its reader will find
            raise self._backend.disconnected() from exc
        finally:
            self._backend.note_unsent(link)
        if self._there.half_closed is None:
            self._there.has_sent_eof = True
            return
        self._there.half_closed.is_ended = True
        if not link.unsent:
            self._there.let_go()

    def take_fds(self) -> list[int]:
        """Return the descriptors of the last read that brought any; see `UnixConnection`."""
        link = self._there.link
        return link.take_fds() if isinstance(link, UnixConnection) else []

    def send_fds(self, fds: Sequence[int]) -> None:
        """Pass *fds*, which stay the caller's, with the next bytes that are sent.

        They replace those of an earlier call, and are dropped if these bytes can't be sent. Raises
        NotSupportedError on other than UNIX sockets, BackendDisconnectedError, BackendError
        if one is not open.
        """
        link = self._there.link
        if link is None:
            raise self._backend.disconnected()
        if not isinstance(link, UnixConnection):
            raise NotSupportedError(f"'{self.filename}' can't pass file descriptors")
        try:
            link.send_fds(fds)
        except OSError as exc:
            raise BackendError.from_os_error("Could not pass file descriptors", exc) from exc
