"""socket: a stream socket of any family, that listens or connects.

A server has one client at a time. While it has one it does not accept, so the others wait
in the kernel's queue, and are served in their turn. Accepting, connecting again and hearing
of a hang-up all happen in `wait_readable`, in the one task that reads.

What is there, from below:

    Listener | Redialer | Nobody     gives connected sockets, one after the other
    Connection                       one of them; protocols will be layers on it
    SocketBackend                    joins the two, and reports OPENED and CLOSED
"""

from __future__ import annotations

import logging
import math
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from trio_chardev.backends.addresses import (
    FdAddress,
    InetAddress,
    SocketAddress,
    connection_name,
    fixed_endpoint,
)
from trio_chardev.backends.connection import Connection, UnixConnection, socket_from_fd
from trio_chardev.backends.dialer import Backoff, Nobody, Peers, Redialer, connect
from trio_chardev.backends.listener import Listener, listen, listen_on
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendDisconnectedError, BackendError, NotSupportedError
from trio_chardev.options import BackendOptions

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class SocketOptions(BackendOptions):
    """Listens for one client at a time, or connects to a server."""

    addr: SocketAddress
    """Address to listen at or to connect to."""

    server: bool = True
    """Listen, instead of connecting."""

    wait: bool | None = None
    """Opening waits for the first client; only for a server."""

    nodelay: bool = False
    """Send small pieces at once (TCP_NODELAY)."""

    reconnect: int | None = None
    """Seconds before a client connects again; they grow while that fails. 0 is never."""

    reconnect_ms: int | None = None
    """The same in milliseconds."""

    @property
    def open_timeout(self) -> float:
        """Seconds that opening may take, when the caller does not say."""
        return math.inf if self.server and self.wait else super().open_timeout

    @property
    def reconnect_delay(self) -> float:
        """Seconds before the first retry; not positive if there is none."""
        return float(self.reconnect or 0) + (self.reconnect_ms or 0) / 1000


def check_options(options: SocketOptions) -> None:
    """Raise BackendError, in QEMU's words and order, for options that exclude each other."""
    reconnect = None
    if options.reconnect_ms is not None:
        reconnect = "reconnect-ms"
    if options.reconnect is not None:
        reconnect = "reconnect"
    if reconnect and isinstance(options.addr, FdAddress):
        raise BackendError(f"'{reconnect}' option is incompatible with 'fd' address type")
    if reconnect and options.server:
        raise BackendError(
            f"'{reconnect}' option is incompatible with socket in server listen mode"
        )
    if options.wait is not None and not options.server:
        raise BackendError("'wait' option is incompatible with socket in client connect mode")
    if options.reconnect is not None and options.reconnect_ms is not None:
        raise BackendError("'reconnect' and 'reconnect-ms' are mutually exclusive")


class SocketBackend(Backend):
    """A server with at most one client, or a client."""

    def __init__(self, request: OpenRequest, options: SocketOptions) -> None:
        super().__init__(request)
        self.address = options.addr
        """Where it listens, as soon as it does, or connects to."""
        self._options = options
        self._peers: Peers = Nobody()
        self._connection: Connection | None = None
        self._waiting: trio.CancelScope | None = None  # for a peer; add_client cuts it short

    # ------------------------------------------------------------ opening

    async def listen(self, request: OpenRequest) -> None:
        """Become a server. Raises BackendError."""
        if isinstance(self.address, FdAddress):
            if not self.address.str_:
                return
            listener = listen_on(self.address, _passed_socket(request, self.address.str_))
        else:
            replaces = request.replaces
            shared = replaces._peers if isinstance(replaces, SocketBackend) else None
            listener = await listen(self.address, shared if isinstance(shared, Listener) else None)
        self._peers = listener
        self.address = listener.address
        # Clients of an address that is being taken over go to its holder until the commit.
        if self._options.wait and not listener.is_taking_over:
            log.info("chardev '%s': waiting for connection on: %s", self.id, self.filename)
            while self._connection is None:
                await self._wait_for_peer()

    async def connect(self, request: OpenRequest) -> None:
        """Become a client. Raises BackendError, unless it is to try again and again."""
        if (delay := self._options.reconnect_delay) > 0:
            if not isinstance(self.address, InetAddress):
                fixed_endpoint(self.address)  # what is wrong now will always be
            self._peers = Redialer(self.id, self.address, Backoff(delay))
            return
        if isinstance(self.address, FdAddress):
            sock = _passed_socket(request, self.address.str_)
        else:
            sock = await connect(self.address)
        try:
            self._meet(sock)
        except OSError as exc:
            sock.close()
            raise BackendError.from_os_error(f"Failed to connect to '{self.address}'", exc) from exc

    def activate(self) -> None:
        self._peers.activate()

    def close(self) -> None:
        """Close everything; for the opener, when it leaves."""
        self._peers.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ------------------------------------------------------------ peers come and go

    @property
    def filename(self) -> str:
        if self._connection is not None:
            return self._connection.name
        return f"disconnected:{self.address.name}{',server=on' if self._options.server else ''}"

    def _meet(self, sock: socket.socket) -> None:
        """*sock* is the peer now, and owned. Raises OSError if it has left again."""
        name = connection_name(self.address, sock, is_server=self._options.server)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            self._set_tcp_options(sock)
        kind = UnixConnection if sock.family == socket.AF_UNIX else Connection
        self._connection = kind(sock, name)
        self.set_open(True)

    def _set_tcp_options(self, sock: socket.socket) -> None:
        if self._options.nodelay:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(self.address, InetAddress) and self.address.keep_alive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _lose(self) -> None:
        """The peer has left."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self.set_open(False)

    async def _wait_for_peer(self) -> None:
        with trio.CancelScope() as self._waiting:
            await self._peers.wait()
        self._waiting = None
        if self._connection is None and (sock := self._peers.take()) is not None:
            try:
                self._meet(sock)
            except OSError:  # it has left already
                sock.close()

    def add_client(self, sock: socket.socket) -> None:
        """*sock*, a connected stream socket, is the peer from now on, and owned.

        Raises BackendError if there is a peer, or if *sock* can't be one: then it is the
        caller's still.
        """
        try:
            if self._connection is not None:
                raise BackendError("failed to add client")
            sock.setblocking(False)
            self._meet(sock)
        except OSError as exc:
            raise BackendError("failed to add client") from exc
        if self._waiting is not None:
            self._waiting.cancel()

    def disconnect(self) -> None:
        """Drop the peer, if there is one, as if it had left: what it has sent can be read."""
        if self._connection is not None:
            self._connection.shut_down()

    # ------------------------------------------------------------ bytes

    def receive_nowait(self, max_bytes: int) -> bytes:
        connection = self._connection
        if connection is None:
            return b""
        try:
            data = connection.receive(max_bytes)
        except BlockingIOError:
            return b""
        except OSError as exc:
            log.info("chardev '%s': %s: %s", self.id, connection.name, exc)
            data = b""
        if not data and max_bytes:
            self._lose()
        return data

    def send_nowait(self, data: memoryview) -> int:
        connection = self._connection
        if connection is None:
            raise self._disconnected()
        try:
            return connection.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if not connection.has_input():  # else the reader meets the end, behind the input
                self._lose()
            raise self._disconnected() from exc

    def _disconnected(self) -> BackendDisconnectedError:
        return BackendDisconnectedError(f"nobody is connected to chardev '{self.id}'")

    async def wait_readable(self) -> None:
        while self._connection is None:
            await self._wait_for_peer()
        await self._connection.wait_readable()

    async def wait_writable(self) -> None:
        if self._connection is None:
            raise self._disconnected()
        try:
            await self._connection.wait_writable()
        except trio.ClosedResourceError:
            raise self._disconnected() from None

    # ------------------------------------------------------------ descriptors

    def take_fds(self) -> list[int]:
        """The descriptors that came with the last read that brought any; see `UnixConnection`."""
        if isinstance(self._connection, UnixConnection):
            return self._connection.take_fds()
        return []

    def send_fds(self, fds: Sequence[int]) -> None:
        """Pass *fds*, which stay the caller's, with the next bytes that are sent.

        Instead of those of an earlier call; dropped if these bytes can't be sent. Raises
        NotSupportedError on other than UNIX sockets, BackendDisconnectedError, BackendError
        if one is not open.
        """
        if self._connection is None:
            raise self._disconnected()
        if not isinstance(self._connection, UnixConnection):
            raise NotSupportedError(f"'{self.filename}' can't pass file descriptors")
        try:
            self._connection.send_fds(fds)
        except OSError as exc:
            raise BackendError.from_os_error("Could not pass file descriptors", exc) from exc


def _passed_socket(request: OpenRequest, name: str) -> socket.socket:
    """The socket that was passed in under *name*. Raises BackendError."""
    return socket_from_fd(request.take_fd(name), name)


@asynccontextmanager
async def open_socket(options: SocketOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Listen or connect. Raises BackendError, in QEMU's words."""
    check_options(options)
    backend = SocketBackend(request, options)
    try:
        if options.server:
            await backend.listen(request)
        else:
            await backend.connect(request)
        yield backend
    finally:
        backend.close()
