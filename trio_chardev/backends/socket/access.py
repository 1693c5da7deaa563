"""Decides who may use a monitor: this process's user and root, or a peer that TLS authenticates.

The kernel names the user of a UNIX peer (SO_PEERCRED, unix(7)). TCP names nobody, so it has to stay
on this machine, unless it has TLS with certificates for both sides. A vsock leads out of a virtual
machine, or into all of them. Addresses are checked before anybody can come, and each peer when it
has come: by a listener, as a descriptor, by add_client.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import struct
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, VsockAddress
from trio_chardev.plain_errors import BackendError, backend_errors

if TYPE_CHECKING:  # a command without an event loop does not import it
    import trio

log = logging.getLogger(__name__)

AnySocket: TypeAlias = "socket.socket | trio.socket.SocketType"
_UCRED = struct.Struct("iII")  # pid, uid, gid
PRIVATE = 0o600
"""The mode of a monitor's socket file."""


class Access:
    """Checks the peers of one chardev or listener, which the log calls *label*."""

    __slots__ = ("_label", "_refused")

    def __init__(self, label: str) -> None:
        self._label = label
        self._refused: set[object] = set()  # those that the log has already

    def check(self, sock: socket.socket, *, is_proved: bool = False) -> None:
        """Raise PermissionError if the peer of *sock* is another user, or on another machine.

        *is_proved* says that TLS will authenticate the peer, wherever it is. Even then another
        user may not. Raises OSError if the peer has left.
        """
        if sock.family == socket.AF_UNIX:
            uid = peer_uid(sock)
            if uid not in (os.geteuid(), 0):
                self._refuse(uid, f"user {uid}")
        elif not is_proved and (where := _exposed_peer(sock)) is not None:
            self._refuse("", f"who is at {where}")

    def _refuse(self, key: object, who: str) -> NoReturn:
        """Raise PermissionError, which is logged once for each *key*."""
        if key not in self._refused:
            self._refused.add(key)
            log.warning("%s: %s may not use a monitor; let go", self._label, who)
        raise PermissionError(errno.EPERM, f"{who} may not use a monitor")


def peer_uid(sock: socket.socket) -> int:
    """Return the effective uid of the peer at connect(2) or listen(2). Raises OSError."""
    return _credentials(sock)[1]


def peer_pid(sock: AnySocket) -> int:
    """Return the pid of the peer at connect(2) or listen(2) (unix(7)); 0 if that is hidden.

    Raises OSError.
    """
    return _credentials(sock)[0]


def peer_name(sock: socket.socket) -> str:
    """Name a UNIX socket's peer, for the log; "" for other sockets and peers that have left."""
    try:
        if sock.family != socket.AF_UNIX:
            return ""
        pid, uid, _ = _credentials(sock)
    except OSError:
        return ""
    return f" (process {pid}, user {uid})"


def _credentials(sock: AnySocket) -> tuple[int, int, int]:
    found: tuple[int, int, int] = _UCRED.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    return found


def check_listening(sock: socket.socket) -> None:
    """Raise BackendError if *sock*, which listens, can be reached from another machine."""
    if (where := exposed_at(sock)) is not None:
        raise _exposed(where)


def exposed_at(sock: socket.socket) -> str | None:
    """Return where other machines reach *sock*, which listens; None if none does.

    Raises BackendError if that can't be told.
    """
    with backend_errors("Could not look where it listens"):  # such as for want of memory
        name = sock.getsockname()
    if sock.family == socket.AF_VSOCK or (
        sock.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(name[0])
    ):
        return str(name[0])
    return None


def check_remote(address: SocketAddress) -> None:
    """Raise BackendError if the peer at *address* may be on another machine."""
    if isinstance(address, VsockAddress):
        raise _exposed(address.cid)
    if isinstance(address, InetAddress) and not is_loopback(address.host):
        raise _exposed(address.host)


def check_peer(sock: socket.socket) -> None:
    """Raise BackendError if the peer of *sock*, of whatever origin, is on another machine."""
    with contextlib.suppress(OSError):  # it has left
        if (where := _exposed_peer(sock)) is not None:
            raise _exposed(where)


def _exposed_peer(sock: socket.socket) -> str | None:
    """Return the address of the peer if that may be another machine. Raises OSError if it left."""
    if sock.family == socket.AF_UNIX:
        return None
    address = sock.getpeername()
    host = str(address[0]) if isinstance(address, tuple) and address else "an unknown address"
    if sock.family in (socket.AF_INET, socket.AF_INET6) and is_loopback(host):
        return None
    return host


def is_loopback(host: str) -> bool:
    """Does *host* never leave this machine? Of names only ``localhost`` is trusted."""
    if host in ("", "localhost"):  # "" means localhost to a client; listeners have numbers
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _exposed(where: str) -> BackendError:
    return BackendError(
        f"A monitor at '{where}' needs TLS with 'verify-peer', a loopback address, or insecure=on"
    )
