"""What the kernel is told and knows of a TCP connection; other families have nothing to tell."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios

INTERNET = (socket.AF_INET, socket.AF_INET6)
PROBE_INTERVAL = 10  # seconds
ROUND_TRIPS = 2  # one, and a margin

# From struct tcp_info, linux/tcp.h.
TCP_CLOSE = 7
_TCP_INFO = struct.Struct("B147xI")  # the state, and the minimum round trip time in us


def set_tcp_options(sock: socket.socket, *, nodelay: bool, keep_alive: bool) -> None:
    """Set whether small pieces are sent at once, and whether an idle peer is probed."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, nodelay)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, keep_alive)


def probe(sock: socket.socket) -> None:
    """Have the kernel find out within about a minute whether a peer that sends no more has left.

    Its kernel answers for a process that has closed the socket, but not for ever (tcp_fin_timeout).
    """
    if sock.family in INTERNET:
        with contextlib.suppress(OSError):  # it has left
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_INTERVAL)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_INTERVAL)


def round_trips(sock: socket.socket) -> float:
    """Return the seconds in which a FIN reaches the peer and what it sent before comes here.

    That is 0 for a peer on this host.
    """
    with contextlib.suppress(OSError):  # it has left, so what it sent is here
        if sock.family in INTERNET and not _is_on_this_host(sock):
            _, shortest = _TCP_INFO.unpack(_info(sock, _TCP_INFO.size))
            return ROUND_TRIPS * float(shortest) * 1e-6
    return 0


def has_arrived(sock: socket.socket) -> bool:
    """Has the peer's kernel what was sent? The FIN is excepted, as its ACK may come late."""
    return sock.family not in INTERNET or count_unacknowledged(sock) <= 1


def is_reset(sock: socket.socket) -> bool:
    """Has the peer reset the connection? SIOCOUTQ still counts unacknowledged bytes then."""
    return sock.family in INTERNET and _info(sock, 1)[0] == TCP_CLOSE


def _info(sock: socket.socket, size: int) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)


def count_unacknowledged(sock: socket.socket) -> int:
    """How many bytes the peer's kernel has not acknowledged (SIOCOUTQ, tcp(7)). Raises OSError."""
    (count,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    assert isinstance(count, int)
    return count


def _is_on_this_host(sock: socket.socket) -> bool:
    """Does the peer have our own address? Raises OSError if it has left."""
    return bool(sock.getsockname()[0] == sock.getpeername()[0])
