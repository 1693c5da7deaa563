"""socket: a stream socket of any family, which listens or connects.

A server has one client at a time. While it has one it does not accept, so the others wait
in the kernel's queue, and are served in their turn. Accepting, handshakes, connecting again
and noticing a hang-up all happen in `wait_readable` and `attend`, in the one task that reads.

The parts, from the bottom up:

    Listener | Redialer | Nobody     gives connected sockets, one after the other
    Connection                       one of them
    Layer                            a protocol on it, and another on that, see `Stack`
    Handshaking                      where newcomers shake hands
    PeerBackend                      what is done with the peer
    SocketBackend                    joins them: opens, and decides who is the peer
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from trio_chardev.backends.descriptor import slow_errors
from trio_chardev.backends.holder import owned
from trio_chardev.backends.socket.access import PRIVATE, Access, check_peer, check_remote
from trio_chardev.backends.socket.addresses import (
    FdAddress,
    InetAddress,
    check_path,
    connection_name,
    fixed_endpoint,
)
from trio_chardev.backends.socket.codec import WindowCodec
from trio_chardev.backends.socket.connection import set_tcp_options
from trio_chardev.backends.socket.dialer import Backoff, Nobody, Peers, Redialer, connect
from trio_chardev.backends.socket.door import Door
from trio_chardev.backends.socket.handshaking import Handshaking, ending
from trio_chardev.backends.socket.layer import Layer
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.listener import Listener, listen, listen_on
from trio_chardev.backends.socket.options import SocketOptions as SocketOptions
from trio_chardev.backends.socket.passed import SharedSocket, socket_from_fd
from trio_chardev.backends.socket.peer import LinkPeer, PeerBackend
from trio_chardev.backends.socket.recheck import recheck
from trio_chardev.backends.socket.rights import close_socket
from trio_chardev.backends.socket.stack import Stack
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.core.line import Line
from trio_chardev.core.peer import Outlook, Peer
from trio_chardev.core.turns import take_turn
from trio_chardev.core.weak import weakly
from trio_chardev.errors import NOTICE, BackendError, NotSupportedError
from trio_chardev.events import UNKNOWN_SIZE, BackendEvent, LineRequest, WindowSize
from trio_chardev.files import work_on_files

if TYPE_CHECKING:
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
        self.address = options.addr
        """The address that it connects to, or listens at, with the port once it does."""
        self._options = options
        self._users = request.users
        self.answers = trio.lowlevel.ParkingLot()
        """See `LayeredSocket.answers`."""
        self.keeps_peer = False
        """`activate` takes over the peer of the replaced backend."""
        self._peers: Peers = Nobody()
        self._handshaking = Handshaking(
            f"chardev '{self.id}'", on_failure=weakly(SocketBackend._note_failure, self)
        )
        self._waiting: trio.CancelScope | None = None  # for a peer; add_client cancels it
        self._access: Access | None = None
        self._door = Door(
            self.id,
            check=weakly(SocketBackend._check, self),
            link_on=self._stack.link_on,
            refuses=options.on_busy == "refuse",
            on_waiting=request.touch,
        )
        self._window_size = UNKNOWN_SIZE  # of our user, which a telnet client tells each server
        self._has_told_size = False  # the peer, of its window
        self._original: SocketBackend | None = None  # its peer is kept; None after the commit

    # ------------------------------------------------------------ opening

    async def listen(self, request: OpenRequest) -> None:
        """Become a server. Raises BackendError."""
        if isinstance(self.address, FdAddress):
            if not self.address.str_:
                return
            passed = socket_from_fd(request.files.take_fd(self.address.str_), self.address.str_)
            listener = listen_on(self.address, passed)
        else:
            replaces = request.replaces
            shared = replaces._peers if isinstance(replaces, SocketBackend) else None
            listener = await listen(
                self.address,
                shared if isinstance(shared, Listener) else None,
                PRIVATE if request.is_guarded else None,
                sandbox=request.files.sandbox,
            )
        self._peers = listener
        if not listener.is_taking_over:
            listener.let_pass_descriptors(not self._has_layers)
        self.address = listener.address
        if request.keep_peer and listener.is_taking_over:
            self._keep_peer_of(request.replaces)
        # Clients of an address that is being taken over go to its holder until the commit.
        if self._options.wait and not listener.is_taking_over:
            log.log(NOTICE, "chardev '%s': waiting for connection on: %s", self.id, self.filename)
            while self._connection is None:
                await self._wait_for_peer()

    async def connect(self, request: OpenRequest, *, is_needed_now: bool = False) -> None:
        """Become a client. Raises BackendError.

        One that is to try again and again does so from the first time on, unless it
        *is_needed_now*.
        """
        if request.keep_peer:
            if not self._is_client_of_same_server(request.replaces):
                return  # the change will be refused
            self._keep_peer_of(request.replaces)
        if (delay := self._options.reconnect_delay) > 0:
            if not isinstance(self.address, InetAddress):
                fixed_endpoint(self.address)  # what is wrong now would always be
            with slow_errors(f"Failed to connect to '{self.address}'"):
                await work_on_files(check_path, self.address, request.files.sandbox)
            backoff = Backoff(delay, self._options.longest_reconnect_delay)
            self._peers = Redialer(
                self.id, self.address, backoff, request.files.sandbox, request.on_failure
            )
            if not is_needed_now:
                return
        if self.is_open:
            return  # with the peer that is kept
        if isinstance(self.address, FdAddress):
            sock = socket_from_fd(request.files.take_fd(self.address.str_), self.address.str_)
        else:
            sock = await connect(self.address, request.files.sandbox)
        await self.begin_with(sock, f"Failed to connect to '{self.address}'")

    async def begin_with(self, sock: socket.socket, failed: str) -> None:
        """Make *sock*, which is owned from now on, the peer, after its handshakes.

        Raises BackendError, *failed* and the reason, if that fails.
        """
        try:
            if (newcomer := self._take_in(sock)) is not None:
                await self._handshaking.shake_hands(newcomer)
                self._handshaking.leave(newcomer)
                self._admit(newcomer)
        except OSError as exc:
            raise BackendError.from_os_error(failed, exc) from exc

    def serve_only(self, link: Link) -> None:
        """Make *link*, which is owned from now on, the peer; nobody comes after it."""
        self._take_over(link)

    def _is_client_of_same_server(self, original: Backend | None) -> bool:
        return (
            isinstance(original, SocketBackend)
            and not (original._options.server or isinstance(self.address, FdAddress))
            and original.address.name == self.address.name
        )

    def _keep_peer_of(self, original: Backend | None) -> None:
        """Be open as long as *original* is, whose peer the commit takes over.

        Raises BackendError if the protocols differ, or the peer would not be let in.
        """
        assert isinstance(original, SocketBackend)
        if original._options.protocols != self._options.protocols:
            raise BackendError(
                "'keep-peer' requires the same 'tls-creds', 'tls-authz', 'websocket', "
                "'binary-only', 'ws-path', 'telnet' and 'tn3270'"
            )
        self._check_kept(original._connection)
        self._original = original
        self.keeps_peer = True

    def _check_kept(self, peer: Link | None) -> None:
        """Raise BackendError if *peer* would not be let in with our own options, if it came now."""
        if peer is not None and (why := self._refusal_of(peer)) is not None:
            raise BackendError(f"'keep-peer': {peer.name} would not be let in: {why}")

    @property
    def is_open(self) -> bool:
        return super().is_open if self._original is None else self._original.is_open

    def activate(self) -> None:
        original, self._original = self._original, None
        peer = None if original is None or original.is_dismissed else original._connection
        can_get_another = self._options.server or self._options.reconnect_delay > 0
        if original and not (peer or self._connection or can_get_another):
            raise BackendError(f"the peer at '{self.address}' has left")
        self._check_kept(peer)  # it may be another peer by now
        self._peers.activate()
        if isinstance(self._peers, Listener):  # perhaps one of a backend with other protocols
            self._peers.let_pass_descriptors(not self._has_layers)
        if original and peer:
            original._connection = None
            self._take_over(peer)

    def _take_over(self, peer: Link) -> None:
        """Make *peer*, which the replaced backend or a listener had, the peer."""
        if self._connection is not None:  # there can't be two
            self._connection.close()
        keep_alive = isinstance(self.address, InetAddress) and self.address.keep_alive
        peer.hand_over(self.hear, nodelay=self._options.nodelay, keep_alive=keep_alive)
        if self._options.rfc2217 and isinstance(peer, Layer):
            from trio_chardev.protocols.com_port_telnet import ComPortTelnet

            if isinstance(peer.codec, ComPortTelnet):
                self._stack.port = peer.codec.party.port
        self._connect(peer)

    def _check(self, sock: socket.socket) -> None:
        """Raise OSError if there is a guard, and it refuses the peer of *sock*."""
        if self._access is not None:
            self._access.check(sock, is_proved=self._stack.proves_peers)

    async def aclose(self) -> None:
        """Close everything; the opener calls it at its end. It can't be Cancelled."""
        if isinstance(self._peers, Listener):
            await self._peers.remove_file()
        self._peers.close()
        self._handshaking.close()
        self._let_go()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ------------------------------------------------------------ peers come and go

    @property
    def filename(self) -> str:
        if self._connection is not None:
            return self._connection.name
        server = ",server=on" if self._options.server else ""
        return f"disconnected:{self._options.named(self.address.name)}{server}"

    @property
    def port(self) -> int | None:
        port = self.address.port if isinstance(self.address, InetAddress) else ""
        return int(port) if port.isdecimal() else None

    def _take_in(self, sock: socket.socket) -> Link | None:
        """Do as `_meet`, but close *sock* if this raises OSError."""
        with ending(partial(close_socket, sock), f"chardev '{self.id}'"):
            return self._meet(sock)

    def _meet(self, sock: socket.socket) -> Link | None:
        """Own *sock*. It is the peer now (None), or when the returned link has shaken hands.

        Raises OSError if it may not come or has left; then the caller still owns it.
        """
        self._check(sock)
        name = connection_name(self.address, sock, is_server=self._options.server)
        name = self._options.named(name)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            keep_alive = isinstance(self.address, InetAddress) and self.address.keep_alive
            set_tcp_options(sock, nodelay=self._options.nodelay, keep_alive=keep_alive)
        newcomer = self._stack.link_on(sock, name, self.hear)
        if not self._has_layers:
            self._connect(newcomer)
            return None
        self._handshaking.let_in(newcomer)
        return newcomer

    def _connect(self, link: Link) -> None:
        self._peers.connected()
        super()._connect(link)
        self._watch()
        if isinstance(link, Layer) and isinstance(link.codec, WindowCodec):
            self._exchange_window_sizes(link.codec)

    def set_open(self, is_open: bool) -> None:
        if not is_open:  # whoever comes now is the next peer
            self._door.leave()
            self.answers.unpark_all()
        super().set_open(is_open)
        if not is_open and self._has_told_size:
            self._has_told_size = False
            self._on_event(UNKNOWN_SIZE)

    @property
    def _watches(self) -> bool:
        return isinstance(self._peers, Listener)

    def _watch(self) -> None:
        link, listener = self._connection, self._peers
        if link is not None and self._nursery is not None and isinstance(listener, Listener):
            with contextlib.suppress(OSError):  # it has left already
                newcomers = (
                    self._handshaking.empty() if self._door.refuses else list(self._handshaking)
                )
                self._door.watch(self._nursery, listener, link.sock, newcomers)

    def _admit(self, newcomer: Link) -> None:
        """Make *newcomer*, whose handshakes are over, the peer.

        Raises OSError, having closed it, if the guard refuses it, which may have come meanwhile.
        """
        with ending(newcomer.close, f"chardev '{self.id}'"):
            self._check(newcomer.sock)
        self._connect(newcomer)

    async def _wait_for_peer(self) -> None:
        self._door.leave()
        with trio.CancelScope() as self._waiting:
            if not self._handshaking:
                await self._peers.wait()
                if isinstance(self._peers, Listener):
                    await take_turn()
            elif self._options.server:
                await self._handshaking.wait(self._peers.wait)
            else:
                await self._handshaking.wait(trio.sleep_forever)  # a client makes one connection
        self._waiting = None
        if self._connection is not None:
            return
        try:
            if (newcomer := self._handshaking.take()) is not None:
                self._admit(newcomer)
            elif (sock := self._peers.take()) is not None:
                self._take_in(sock)
        except OSError as exc:  # it may not come, or has left already
            self._note_failure(exc)

    def add_client(self, sock: socket.socket) -> None:
        """Make *sock*, a connected stream socket, the peer, and own it.

        Raises BackendError if there is a peer, or if *sock* can't be one: then the caller still
        owns it.
        """
        try:
            if self._connection is not None or (self._handshaking and not self._options.server):
                raise BackendError("failed to add client")
            if not isinstance(sock, SharedSocket):
                sock.setblocking(False)
            self._meet(sock)
        except BackendError:
            raise
        except Exception as exc:  # whatever it is, it ends this client only
            raise BackendError("failed to add client") from exc
        if self._waiting is not None:
            self._waiting.cancel()

    def _note_failure(self, error: Exception) -> None:
        if isinstance(self._peers, Redialer):
            self._peers.failed(str(error))

    def _refusal_of(self, link: Link) -> str | None:
        """Return why the peer on *link* would not be let in if it came now, or None."""
        try:
            self._check(link.sock)
        except OSError as exc:
            return exc.strerror or str(exc)
        return self._stack.refusal_of(link)

    def _end(self, link: Link) -> None:
        """Drop *link*, which is the peer, wants to be, or has been."""
        if link is self._connection:
            self._lose()
        elif link is self.reader:
            self._let_go()
        else:
            link.shut_down()  # which the handshaking notices

    @property
    def peer(self) -> Peer:
        return _SocketPeer(self)

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
        return self._connection if isinstance(self._connection, Layer) else None

    def flush(self, layer: Layer) -> None:
        """See `LayeredSocket.flush`; that the peer has left is noticed by who reads."""
        with contextlib.suppress(OSError):
            layer.flush()
        self._note_unsent(layer)

    @property
    def com_port(self) -> Port:
        """See `LayeredSocket.com_port`."""
        return self._stack.port


class _SocketPeer(LinkPeer):
    """The one peer that the backend has, and the clients that wait."""

    can_disconnect = True

    def __init__(self, backend: SocketBackend) -> None:
        super().__init__(backend)
        self._backend: SocketBackend = backend

    @property
    def is_kept(self) -> bool:
        return self._backend.keeps_peer

    @property
    def outlook(self) -> Outlook:
        peers = self._backend._peers
        if isinstance(peers, Redialer):
            return peers.outlook
        return Outlook(may_come=self._backend._options.server)

    def retry(self) -> None:
        if not isinstance(self._backend._peers, Redialer):
            raise NotSupportedError(
                f"'{self.filename}' has nothing to retry: it is no client with 'reconnect-ms'"
            )
        self._backend._peers.retry()

    @property
    def waiting(self) -> int:
        if self._backend._connection is None or not isinstance(self._backend._peers, Listener):
            return 0
        return self._backend._peers.waiting + len(self._backend._handshaking)

    @property
    def others_wait(self) -> bool:
        return isinstance(self._backend._peers, Listener) and self._backend._peers.has_waiting

    def guard(self) -> None:
        """Let in only peers that may, see `Peer.guard`; drop one that is there and may not."""
        listener = self._backend._peers if isinstance(self._backend._peers, Listener) else None
        if not self._backend._stack.proves_peers:
            if listener is not None:
                listener.check_local()
            elif not self._backend._options.server:
                check_remote(self._backend.address)
                if self._backend._connection is not None:
                    check_peer(self._backend._connection.sock)
        if listener is not None:
            listener.make_private()
        self._backend._access = Access(f"chardev '{self._backend.id}'")
        self._backend._let_go()
        if self._backend._connection is not None:  # newcomers are checked after their handshakes
            try:
                self._backend._check(self._backend._connection.sock)
            except OSError:
                self._backend._lose()

    def recheck(self, *, drop: bool) -> list[tuple[str, str]]:
        """Check the peer, and the newcomers that shake hands. *drop* loses what was not read."""
        links = (
            *(() if self._backend.reader is None else (self._backend.reader,)),
            *self._backend._handshaking,
        )
        return recheck(
            self._backend.id, links, self._backend._refusal_of, self._backend._end if drop else None
        )

    def disconnect(self, *, at_once: bool = False) -> None:
        """Drop the peer, or all newcomers, as if they had left: what they sent can be read.

        Unless *at_once*, a peer that is sending is read until it knows, see `_dismiss`.
        """
        if self._backend._half_closed is not None:
            self._backend._let_go()
        elif self._backend._connection is None:
            self._backend._handshaking.shut_down()
        elif at_once:
            self._backend._connection.shut_down()
        else:
            self._backend._dismiss(self._backend._connection)


@asynccontextmanager
async def open_socket(options: SocketOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Listen or connect. Raises OptionsError and BackendError, with QEMU's texts."""
    backend = SocketBackend(request, options)
    try:
        if options.server:
            await backend.listen(request)
        else:
            await backend.connect(request)
        async with backend.flushing():
            yield backend
    finally:
        await backend.aclose()  # noqa: ASYNC102 - it shields itself, with a deadline


@asynccontextmanager
async def open_accepted(
    options: SocketOptions, request: OpenRequest, link: Link
) -> AsyncIterator[Backend]:
    """Serve *link*, a client of a listener with *options*, whose handshakes are over.

    It is owned from now on. Raises BackendError.
    """
    with owned(link.close):
        backend = SocketBackend(request, options)
    try:
        backend.serve_only(link)
        async with backend.flushing():
            yield backend
    finally:
        await backend.aclose()  # noqa: ASYNC102 - it shields itself, with a deadline


SOCKET = Kind(SocketOptions, open_socket)
