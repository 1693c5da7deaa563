"""udp: datagrams to and from one peer. Each write is one datagram, each datagram is input.

The socket is connected, so the kernel delivers only datagrams from that peer, and reports ICMP
errors about earlier datagrams by failing the next call (udp(7)). Such an error only means that
datagrams get lost, so it does not end the connection.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from trio_chardev.backends.socket.access import check_remote
from trio_chardev.backends.socket.addresses import Endpoint, InetAddress, SocketAddress
from trio_chardev.backends.socket.resolving import resolve
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.core.peer import Peer
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.readiness import Shortage, wait_readable, wait_writable

log = logging.getLogger(__name__)

RECEIVE_SIZE = 1 << 16  # bytes; no datagram is larger
DATAGRAMS_AT_ONCE = 512
"""How many empty datagrams and errors are skipped before other tasks run. A queue of the usual size
holds fewer, so a change finds the datagrams after them."""
MAX_DATAGRAM = 65507  # bytes in an IPv4 datagram: 65535 less the headers


@attrs.frozen(kw_only=True)
class UdpOptions(BackendOptions):
    """Exchanges datagrams with one peer."""

    remote: SocketAddress
    """Address of the peer."""

    local: SocketAddress | None = None
    """Address to receive at; the default is a port that the system chooses."""


class UdpBackend(Backend):
    """A connected UDP socket."""

    def __init__(
        self,
        request: OpenRequest,
        sock: socket.socket,
        addresses: tuple[Endpoint | None, Endpoint],
    ) -> None:
        """Take *sock* over, which has these local and remote *addresses*."""
        super().__init__(request)
        self._sock = sock
        self._addresses = addresses
        self._rest = b""  # of a datagram that was larger than max_bytes
        self._is_failing = False
        self._receiving, self._sending = Shortage(), Shortage()

    @property
    def filename(self) -> str:
        return "udp"

    @property
    def port(self) -> int | None:
        return int(self._sock.getsockname()[1])

    @property
    def peer(self) -> Peer:
        return _UdpPeer(self.filename, self._addresses[1])

    def share(self, addresses: tuple[Endpoint | None, Endpoint]) -> socket.socket | None:
        """Duplicate the socket, which keeps its queue, if it has *addresses*. Raises OSError."""
        return self._sock.dup() if addresses == self._addresses else None

    def receive_nowait(self, max_bytes: int) -> bytes:
        data = self._rest or self._receive_datagram()
        self._rest = data[max_bytes:]
        return data[:max_bytes]

    def _receive_datagram(self) -> bytes:
        """The next datagram that is not empty; b"" if none has come, or too many are empty."""
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                if data := self._sock.recv(RECEIVE_SIZE):
                    return data
            except BlockingIOError:
                break
            except OSError as exc:
                if self._receiving.note(exc, f"chardev '{self.id}'"):
                    break
                log.debug("chardev '%s': %s", self.id, exc)
        return b""

    def send_nowait(self, data: memoryview) -> int:
        datagram = data[:MAX_DATAGRAM]
        try:
            try:
                sent = self._sock.send(datagram)
            except ConnectionRefusedError:  # this is about an earlier datagram
                sent = self._sock.send(datagram)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if self._sending.note(exc, f"chardev '{self.id}'"):
                return 0
            if not self._is_failing:
                log.warning("chardev '%s': datagrams get lost: %s", self.id, exc)
            self._is_failing = True
            return len(datagram)
        self._is_failing = False
        return sent

    async def wait_readable(self) -> None:
        if self._rest:
            await trio.lowlevel.checkpoint()
        elif self._receiving.is_met:
            await self._receiving.wait()
        else:
            await wait_readable(self._sock)

    async def wait_writable(self) -> None:
        if self._sending.is_met:
            await self._sending.wait()
            return
        try:
            await wait_writable(self._sock)
        except trio.ClosedResourceError:
            raise BackendError("The socket was closed") from None

    def close(self) -> None:
        """Close the socket. Called by the opener at its end."""
        trio.lowlevel.notify_closing(self._sock)
        self._sock.close()


class _UdpPeer(Peer):
    """The peer at the other address."""

    def __init__(self, filename: str, endpoint: Endpoint) -> None:
        super().__init__(filename)
        self._endpoint = endpoint

    def guard(self) -> None:
        """Raise BackendError unless the peer is on this machine, as a monitor requires."""
        host, port, *_ = self._endpoint.address
        check_remote(InetAddress(host, str(port)))


@asynccontextmanager
async def open_udp(options: UdpOptions, request: OpenRequest) -> AsyncIterator[Backend]:
    """Open a socket for the first peer address that works. Raises OptionsError, BackendError."""
    remote, local = options.remote, options.local
    if not isinstance(remote, InetAddress) or not isinstance(local, InetAddress | None):
        raise OptionsError("socket type unsupported for datagram")
    if not remote.port:
        raise OptionsError("remote port not specified")
    if not local and remote.port.isdigit() and int(remote.port) == 0:
        raise OptionsError("remote port 0 needs a local port: nobody could send to this one")
    replaced = request.replaces if isinstance(request.replaces, UdpBackend) else None
    sock, addresses = await _connected_socket(remote, local, replaced)
    backend = UdpBackend(request, sock, addresses)
    try:
        backend.set_open(True)
        yield backend
    finally:
        backend.close()


async def _connected_socket(
    remote: InetAddress, local: InetAddress | None, replaced: UdpBackend | None
) -> tuple[socket.socket, tuple[Endpoint | None, Endpoint]]:
    reachable = attrs.evolve(remote, host=remote.host or "localhost")
    error = BackendError(f"Failed to connect to '{remote}'")
    for there in await resolve(reachable, passive=False, kind=socket.SOCK_DGRAM):
        try:
            here = None
            if local is not None:
                [here, *_] = await resolve(
                    local, passive=True, kind=socket.SOCK_DGRAM, family=there.family
                )
            return _open_pair(here, there, remote, replaced), (here, there)
        except BackendError as exc:
            error = exc
    raise error


def _open_pair(
    local: Endpoint | None, remote: Endpoint, address: InetAddress, replaced: UdpBackend | None
) -> socket.socket:
    """Make a socket with these addresses, or share that of *replaced*. Raises BackendError."""
    what = "Failed to create a socket"
    sock = None
    try:
        if replaced is not None and (shared := replaced.share((local, remote))) is not None:
            return shared
        sock = remote.socket(socket.SOCK_DGRAM)
        if local is not None:
            what = "Failed to bind socket"
            # As in QEMU: several sockets may have the same port, if their peers differ.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(local.address)
        what = f"Failed to connect to '{address}'"
        sock.connect(remote.address)
    except OSError as exc:
        if sock is not None:
            sock.close()
        raise BackendError.from_os_error(what, exc) from exc
    return sock


UDP = Kind(UdpOptions, open_udp)
