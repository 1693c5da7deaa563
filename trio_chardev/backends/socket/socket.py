"""socket: a stream socket of any family, which listens or connects.

A server has one client at a time. While it has one it does not accept, so the others wait
in the kernel's queue, and are served in their turn. Accepting, handshakes, connecting again
and noticing a hang-up all happen in `wait_readable` and `attend`, in the one task that reads.

The parts, from the bottom up:

    Listener | Redialer | Nobody     gives connected sockets, one after the other
    Connection                       one of them
    Layer                            a protocol on it, and another on that, see `Stack`
    Handshaking                      where newcomers shake hands
    Entrance                         gives peers, who were found, checked and have shaken hands
    PeerBackend                      what is done with the peer
    SocketBackend                    joins them: opens, and decides who is the peer
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from trio_chardev.backends.holder import owned
from trio_chardev.backends.socket.addresses import FdAddress, InetAddress, SocketAddress
from trio_chardev.backends.socket.codec import WindowCodec
from trio_chardev.backends.socket.entrance import Entrance
from trio_chardev.backends.socket.layer import Layer
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.options import SocketOptions as SocketOptions
from trio_chardev.backends.socket.peer import PeerBackend
from trio_chardev.backends.socket.socket_peer import SocketPeer
from trio_chardev.backends.socket.stack import Stack
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.core.line import Line
from trio_chardev.core.peer import Peer
from trio_chardev.core.weak import weakly
from trio_chardev.errors import NOTICE, BackendError
from trio_chardev.events import UNKNOWN_SIZE, BackendEvent, LineRequest, WindowSize

if TYPE_CHECKING:
    from trio_chardev.backends.socket.kept_peer import KeptPeer
    from trio_chardev.protocols.com_port import Port

log = logging.getLogger(__name__)


class SocketBackend(PeerBackend):
    """A server with at most one client, or a client."""

    def __init__(self, request: OpenRequest, options: SocketOptions) -> None:
        self._stack = Stack(options, request.environment.objects)
        super().__init__(
            request,
            has_layers=not self._stack.is_empty,
            linger=options.linger,
            http_guard=options.http_guard,
        )
        self._options = options
        self._users = request.users
        self.entrance = Entrance(
            self.id,
            options,
            self._stack,
            on_event=weakly(SocketBackend.hear, self),
            on_waiting=request.touch,
        )
        """Where its peers come in."""
        self.answers = trio.lowlevel.ParkingLot()
        """See `LayeredSocket.answers`."""
        self.keeps_peer = False
        """`activate` takes over the peer of the replaced backend."""
        self._kept: KeptPeer | None = None  # until the commit
        self._window_size = UNKNOWN_SIZE  # of our user, which a telnet client tells each server
        self._has_told_size = False  # the peer, of its window

    @property
    def address(self) -> SocketAddress:
        """The address that it connects to, or listens at, with the port once it does."""
        return self.entrance.address

    # ------------------------------------------------------------ opening

    async def listen(self, request: OpenRequest) -> None:
        """Become a server. Raises BackendError."""
        if isinstance(self.address, FdAddress) and not self.address.str_:
            return
        original = request.replaces if isinstance(request.replaces, SocketBackend) else None
        await self.entrance.listen(request, None if original is None else original.entrance)
        is_taking_over = self.entrance.is_taking_over
        if request.keep_peer and original is not None and is_taking_over:
            self._keep_peer_of(original)
        # Clients of an address that is being taken over go to its holder until the commit.
        if self._options.wait and not is_taking_over:
            log.log(NOTICE, "chardev '%s': waiting for connection on: %s", self.id, self.filename)
            while self.there.link is None:
                await self._wait_for_peer()

    async def connect(self, request: OpenRequest, *, is_needed_now: bool = False) -> None:
        """Become a client. Raises BackendError.

        One that is to try again and again does so from the first time on, unless it
        *is_needed_now*.
        """
        if request.keep_peer:
            original = request.replaces
            if not (isinstance(original, SocketBackend) and self._has_same_server(original)):
                return  # the change will be refused
            self._keep_peer_of(original)
        if self._options.reconnect_delay > 0:
            await self.entrance.keep_dialling(request)
            if not is_needed_now:
                return
        if not self.is_open:  # as it is with the peer that is kept
            self._connect(await self.entrance.dial(request))

    def serve_only(self, link: Link) -> None:
        """Make *link*, which is owned from now on, the peer; nobody comes after it."""
        self._take_over(link)

    # ------------------------------------------------------------ in place of another

    def _has_same_server(self, original: SocketBackend) -> bool:
        return (
            not (original._options.server or isinstance(self.address, FdAddress))
            and original.address.name == self.address.name
        )

    def _keep_peer_of(self, original: SocketBackend) -> None:
        """Be open as long as *original* is, whose peer the commit takes over.

        Raises BackendError if the protocols differ, or the peer would not be let in.
        """
        from trio_chardev.backends.socket.kept_peer import KeptPeer

        if original._options.protocols != self._options.protocols:
            raise BackendError(
                "'keep-peer' requires the same 'tls-creds', 'tls-authz', 'websocket', "
                "'binary-only', 'ws-path', 'telnet' and 'tn3270'"
            )
        kept = KeptPeer(original.there, self.entrance.refusal_of)
        kept.check()
        self._kept = kept
        self.keeps_peer = True

    @property
    def is_open(self) -> bool:
        return super().is_open if self._kept is None else self._kept.is_open

    def activate(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            can_get_another = self._options.server or self._options.reconnect_delay > 0
            if not (kept.is_there or self.there.link or can_get_another):
                raise BackendError(f"the peer at '{self.address}' has left")
            kept.check()  # it may be another peer by now
        self.entrance.activate()
        if kept is not None and (peer := kept.take()) is not None:
            self._take_over(peer)

    def _take_over(self, peer: Link) -> None:
        """Make *peer*, which the replaced backend or a listener had, the peer."""
        if self.there.link is not None:  # there can't be two
            self.there.link.close()
        peer.hand_over(
            self.hear, nodelay=self._options.nodelay, keep_alive=self.entrance.keep_alive
        )
        if self._options.rfc2217 and isinstance(peer, Layer):
            from trio_chardev.protocols.com_port_telnet import ComPortTelnet

            if isinstance(peer.codec, ComPortTelnet):
                self._stack.port = peer.codec.party.port
        self._connect(peer)

    # ------------------------------------------------------------ peers come and go

    @property
    def filename(self) -> str:
        if self.there.link is not None:
            return self.there.link.name
        server = ",server=on" if self._options.server else ""
        return f"disconnected:{self._options.named(self.address.name)}{server}"

    @property
    def port(self) -> int | None:
        port = self.address.port if isinstance(self.address, InetAddress) else ""
        return int(port) if port.isdecimal() else None

    @property
    def peer(self) -> Peer:
        return SocketPeer(self, self.entrance, is_kept=self.keeps_peer)

    async def _wait_for_peer(self) -> None:
        await self.entrance.wait()
        if self.there.link is None and (link := self.entrance.take()) is not None:
            self._connect(link)

    def add_client(self, sock: socket.socket) -> None:
        """Make *sock*, a connected stream socket, the peer, and own it.

        Raises BackendError if there is a peer, or if *sock* can't be one: then the caller still
        owns it.
        """
        if self.there.link is not None:
            raise BackendError("failed to add client")
        try:
            if (link := self.entrance.add(sock)) is not None:
                self._connect(link)
        except BackendError:
            raise
        except Exception as exc:  # whatever it is, it ends this client only
            raise BackendError("failed to add client") from exc

    def _connect(self, link: Link) -> None:
        self.entrance.peer_came()
        super()._connect(link)
        self._watch()
        if isinstance(link, Layer) and isinstance(link.codec, WindowCodec):
            self._exchange_window_sizes(link.codec)

    def set_open(self, is_open: bool) -> None:
        if not is_open:
            self.entrance.peer_left()
            self.answers.unpark_all()
        super().set_open(is_open)
        if not is_open and self._has_told_size:
            self._has_told_size = False
            self._on_event(UNKNOWN_SIZE)

    @property
    def _watches(self) -> bool:
        return self.entrance.is_watched

    def _watch(self) -> None:
        if self.there.link is not None and self._nursery is not None:
            self.entrance.watch(self._nursery, self.there.link)

    def _note_failure(self, error: Exception) -> None:
        self.entrance.note_failure(error)

    async def aclose(self) -> None:
        """Close everything; the opener calls it at its end. It can't be Cancelled."""
        await self.entrance.aclose()
        self.there.close()

    # ------------------------------------------------------------ the line

    @property
    def line(self) -> Line:
        options = self._options
        if not options.rfc2217 and (options.server or not options.telnet):
            return super().line
        from trio_chardev.backends.socket.line import RemoteLine, ServedLine, TelnetLine

        if options.rfc2217:
            return ServedLine(self) if options.server else RemoteLine(self)
        return TelnetLine(self)

    def hear(self, event: BackendEvent) -> None:
        """Report *event*, from the peer. If no user answers for a line, grant what is asked."""
        self._has_told_size = self._has_told_size or isinstance(event, WindowSize)
        self._on_event(event)
        if isinstance(event, LineRequest) and self._options.server and not self._answers_line():
            self.line.acknowledge(event, event)

    def tell_window_size(self, size: WindowSize) -> None:
        """See `LayeredSocket.tell_window_size`."""
        self._window_size = size
        layer = self.layer
        if layer is not None and isinstance(layer.codec, WindowCodec):
            layer.codec.set_window_size(size)
            if not layer.unsent:  # else what it says goes with that, and is the last size then
                self.flush(layer)

    def _exchange_window_sizes(self, codec: WindowCodec) -> None:
        """Tell a new peer the size, and report what it has told the backend before this one."""
        if self._window_size.is_known:
            self.tell_window_size(self._window_size)
        if codec.their_window_size.is_known:
            self.hear(codec.their_window_size)

    def _answers_line(self) -> bool:
        return self._users is not None and self._users.answers_line

    @property
    def layer(self) -> Layer | None:
        """See `LayeredSocket.layer`."""
        return self.there.link if isinstance(self.there.link, Layer) else None

    def flush(self, layer: Layer) -> None:
        """See `LayeredSocket.flush`; that the peer has left is noticed by who reads."""
        with contextlib.suppress(OSError):
            layer.flush()
        self.note_unsent(layer)

    @property
    def com_port(self) -> Port:
        """See `LayeredSocket.com_port`."""
        return self._stack.port


@asynccontextmanager
async def open_socket(options: SocketOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Listen or connect. Raises OptionsError and BackendError, with QEMU's texts."""
    async with aclosing(SocketBackend(request, options)) as backend:
        if options.server:
            await backend.listen(request)
        else:
            await backend.connect(request)
        async with backend.flushing():
            yield backend


@asynccontextmanager
async def open_accepted(
    options: SocketOptions, request: OpenRequest, link: Link
) -> AsyncIterator[Backend]:
    """Serve *link*, a client of a listener with *options*, whose handshakes are over.

    It is owned from now on. Raises BackendError.
    """
    with owned(link.close):
        backend = SocketBackend(request, options)
    async with aclosing(backend):
        backend.serve_only(link)
        async with backend.flushing():
            yield backend


SOCKET = Kind(SocketOptions, open_socket)
