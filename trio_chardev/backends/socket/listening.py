"""How a server begins to listen: at the first free port of a range, at a path, or on a passed socket.

If it replaces a server, the sockets of its listener are shared where they listen at the same address.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.holder import owned
from trio_chardev.backends.socket.addresses import (
    Endpoint,
    FdAddress,
    InetAddress,
    SocketAddress,
    UnixAddress,
    fixed_endpoint,
    listening_address,
)
from trio_chardev.backends.socket.listener import Listener
from trio_chardev.backends.socket.resolving import resolve
from trio_chardev.backends.socket.socket_file import SocketFile
from trio_chardev.errors import BackendError, OptionsError, backend_errors
from trio_chardev.files import end_on_files, finish_on_files, work_on_files

log = logging.getLogger(__name__)

BACKLOG = 1  # as QEMU; Linux lets one more wait
PORT_0_TRIES = 16  # a port that is free for one family may be in use for the other


async def listen(
    address: SocketAddress,
    replaced: Listener | None,
    mode: int | None = None,
    sandbox: Sandbox = EVERYWHERE,
) -> Listener:
    """Listen at *address*, if need be together with *replaced*.

    A socket file is made in *sandbox*, with the permissions *mode*; see `SocketFile`. Raises
    BackendError, OptionsError. When Cancelled, nothing has happened.
    """
    if isinstance(address, UnixAddress) and not address.abstract:
        return await _listen_at_path(address, replaced, mode, sandbox)
    endpoints = await resolve(address, passive=True)
    if isinstance(address, InetAddress):
        sockets, is_shared = _listen_in_range(address, endpoints, replaced)
        found = _found_address(address, sockets)
        return Listener(found, sockets, replaced=replaced if is_shared else None)
    try:
        sock, is_shared = _share_or_listen(endpoints[0], replaced)
    except OSError as exc:
        where = f" to {address}" if isinstance(address, UnixAddress) else ""
        raise BackendError.from_os_error(f"Failed to bind socket{where}", exc) from exc
    return Listener(address, [sock], replaced=replaced if is_shared else None)


def listen_on(address: FdAddress, sock: socket.socket) -> Listener:
    """Listen on a socket that was passed in, and is owned from now on. Raises BackendError."""
    with backend_errors("Failed to listen on fd socket"), owned(sock.close):
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.listen(BACKLOG)
    return Listener(_found_address(address, [sock]), [sock], is_passed=True)


def _found_address(address: SocketAddress, sockets: Sequence[socket.socket]) -> SocketAddress:
    """Return where the first socket listens. Raises BackendError, having closed them all."""
    try:
        return listening_address(address, sockets[0])
    except OSError as exc:
        for sock in sockets:
            sock.close()
        raise BackendError.from_os_error("Failed to listen on socket", exc) from exc


# ---------------------------------------------------------------- ports and names


def _listen_in_range(
    address: InetAddress, endpoints: Sequence[Endpoint], replaced: Listener | None
) -> tuple[list[socket.socket], bool]:
    """Listen at the first free port, from that of the address up to `to`."""
    first = endpoints[0].address[1]
    last = first if address.to is None else address.to
    if last < first:
        raise OptionsError(f"Failed to find an available port: 'to' is below port {first}")
    in_use = None
    for port in range(first, last + 1) if first else [0] * PORT_0_TRIES:
        try:
            return _listen_at_port(address, endpoints, port, replaced)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise BackendError.from_os_error("Failed to bind socket", exc) from exc
            in_use = exc
    assert in_use is not None
    raise BackendError.from_os_error("Failed to find an available port", in_use) from in_use


def _listen_at_port(
    address: InetAddress, endpoints: Sequence[Endpoint], port: int, replaced: Listener | None
) -> tuple[list[socket.socket], bool]:
    """Listen at all *endpoints*, at the same port, but for those that this host lacks."""
    has_ipv4 = any(endpoint.family == socket.AF_INET for endpoint in endpoints)
    v6only = has_ipv4 or address.ipv4 is not address.ipv6  # else "::" serves IPv4 too, as QEMU
    sockets: list[socket.socket] = []
    is_any_shared = False
    lacking = None
    try:
        for endpoint in endpoints:
            host, _, *rest = endpoint.address
            wanted = attrs.evolve(endpoint, address=(host, port, *rest))
            try:
                sock, is_shared = _share_or_listen(wanted, replaced, v6only=v6only)
            except OSError as exc:
                if exc.errno == errno.EADDRINUSE:
                    raise
                lacking = lacking or exc
                continue
            sockets.append(sock)
            is_any_shared |= is_shared
            port = sock.getsockname()[1]
        if lacking is not None:
            if not sockets:
                raise lacking
            log.info("not all addresses of %s can be listened at: %s", address, lacking)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets, is_any_shared


def _share_or_listen(
    endpoint: Endpoint, replaced: Listener | None, *, v6only: bool = False
) -> tuple[socket.socket, bool]:
    """Return a socket that listens there, and whether it is *replaced*'s. Raises OSError."""
    if replaced is not None and (sock := replaced.share(endpoint)) is not None:
        return sock, True

    def bind(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
        sock.bind(endpoint.address)

    return _listening_socket(endpoint, bind), False


def _listening_socket(endpoint: Endpoint, bind: Callable[[socket.socket], None]) -> socket.socket:
    sock = endpoint.socket()
    try:
        bind(sock)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


# ---------------------------------------------------------------- paths


async def _listen_at_path(
    address: UnixAddress, replaced: Listener | None, mode: int | None, sandbox: Sandbox
) -> Listener:
    if not address.path:
        name = f"qemu-socket-{secrets.token_hex(4)}"
        address = attrs.evolve(address, path=os.path.join(tempfile.gettempdir(), name))
    endpoint = fixed_endpoint(address)
    file = SocketFile(endpoint.address, mode, sandbox)

    def discard(sock: socket.socket) -> None:
        file.unlink()
        sock.close()

    try:
        if replaced is not None and replaced.file is not None:
            is_there = partial(replaced.file.is_at, endpoint.address, sandbox)
            if await work_on_files(is_there):
                return Listener(address, replaced.share_all(), replaced=replaced)
        sock = await finish_on_files(_bind_file, file, endpoint, discard=discard)
    except OSError as exc:
        raise file.failed_to_bind(exc) from exc
    try:
        return Listener(address, [sock], file=file)
    except BackendError:
        await end_on_files(f"socket {address}", file.unlink)  # noqa: ASYNC120 - it shields itself
        raise


def _bind_file(file: SocketFile, endpoint: Endpoint) -> socket.socket:
    """Make a socket that listens at *file*; in a thread, as the disk may hang.

    Raises BackendError, OSError.
    """
    try:
        return _listening_socket(endpoint, file.bind)
    except (BackendError, OSError):
        file.unlink()
        raise
