"""Peers that send as fast as they can, without waiting; they use blocking calls, in a thread."""

from __future__ import annotations

import abc
import array
import base64
import contextlib
import errno
import hashlib
import os
import select
import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.certificates import peer_context
from tests.protocols.websocket_wire import request

PIECE = 1 << 16  # bytes that are sent at once
TIMEOUT = 20.0  # seconds for what the service has to do meanwhile
LEAVING = 60.0  # seconds for all answers that a peer has asked for
PAUSE = 0.001  # seconds
RIGHTS = 16  # descriptors that are passed with a byte
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class Peer(abc.ABC):
    """A peer that floods a chardev."""

    @abc.abstractmethod
    def fileno(self) -> int:
        """The descriptor to wait for when sending would block; -1 if it never does."""

    @abc.abstractmethod
    def send(self) -> int:
        """Send a piece; returns how many bytes. Raises BlockingIOError, or OSError at the end."""

    def wait(self, seconds: float) -> None:
        """Wait until more can be sent, or *seconds*."""
        if self.fileno() < 0:
            time.sleep(PAUSE)
        else:
            select.select([], [self.fileno()], [], seconds)

    @abc.abstractmethod
    def close(self) -> None:
        """Leave."""


class Stream(Peer):
    """Sends *first*, and then *unit* again and again."""

    def __init__(self, sock: socket.socket, unit: bytes, first: bytes = b"") -> None:
        self._sock = sock
        sock.sendall(first)
        sock.setblocking(False)
        self._piece = unit * max(1, PIECE // len(unit))
        self._at = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self) -> int:
        try:
            sent = self._sock.send(self._piece[self._at :])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError) as exc:
            raise BlockingIOError from exc
        self._at = (self._at + sent) % len(self._piece)
        return sent

    async def finish(self, last: bytes) -> None:
        """Send the rest of the piece, then *last*, and leave; read what comes."""
        rest = self._piece[self._at :] if self._at else b""
        rest += last
        while rest:
            with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                rest = rest[self._sock.send(rest) :]
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                self._sock.recv(PIECE)
            await trio.lowlevel.checkpoint()
        self._sock.close()

    def close(self) -> None:
        self._sock.close()


class Talker(Stream):
    """Reads and drops what it is sent; leaves when it has all its answers."""

    def __init__(self, sock: socket.socket, unit: bytes, first: bytes = b"") -> None:
        super().__init__(sock, unit, first)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the smallest buffer

    def wait(self, seconds: float) -> None:
        select.select([self.fileno()], [self.fileno()], [], seconds)

    def send(self) -> int:
        with contextlib.suppress(BlockingIOError):
            while self._sock.recv(PIECE):
                pass
        return super().send()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it was disconnected
            self._sock.settimeout(LEAVING)
            self._sock.shutdown(socket.SHUT_WR)
            while self._sock.recv(PIECE):
                pass
        super().close()


class Records(Stream):
    """Sends each unit in a record of its own."""

    def __init__(self, sock: ssl.SSLSocket, unit: bytes, first: bytes = b"") -> None:
        super().__init__(sock, unit, first)
        self._piece = unit


class Writer(Peer):
    """Writes *unit* again and again to a terminal."""

    def __init__(self, fd: int, unit: bytes) -> None:
        self._fd = fd
        os.set_blocking(fd, False)
        self._piece = unit * (PIECE // len(unit))

    def fileno(self) -> int:
        return self._fd

    def send(self) -> int:
        return os.write(self._fd, self._piece)

    def close(self) -> None:
        os.close(self._fd)


class Datagrams(Stream):
    """Sends *unit* as one datagram, again and again."""

    def __init__(self, sock: socket.socket, unit: bytes) -> None:
        super().__init__(sock, b"x")
        self._unit = unit

    def send(self) -> int:
        self._sock.send(self._unit)
        return 1


class Rights(Stream):
    """Passes descriptors with each byte."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, b"x")
        self._null = os.open(os.devnull, os.O_RDONLY)

    def send(self) -> int:
        rights = array.array("i", [self._null] * RIGHTS)
        try:
            return self._sock.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except (PermissionError, BrokenPipeError, ConnectionResetError) as exc:
            raise BlockingIOError from exc  # disconnected, as so many wait to be closed
        except OSError as exc:
            if exc.errno == errno.ETOOMANYREFS:  # too many are in flight
                raise BlockingIOError from exc
            raise

    def close(self) -> None:
        super().close()
        os.close(self._null)


class Opener(Peer):
    """Opens a file and closes it, again and again."""

    def __init__(self, path: str) -> None:
        self._path = path

    def fileno(self) -> int:
        return -1

    def send(self) -> int:
        os.close(os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
        return 1 << 10  # an open is expensive

    def close(self) -> None:
        pass


class Caller(Peer):
    """Connects and leaves, again and again."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def fileno(self) -> int:
        return -1

    def send(self) -> int:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            sock.connect(self._path)
        return 1

    def close(self) -> None:
        pass


# ---------------------------------------------------------------- how they connect


def dial(path: Path) -> socket.socket:
    """Connect to the server at *path*."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT)
    sock.connect(str(path))
    return sock


def dial_by_tls(path: Path) -> ssl.SSLSocket:
    """Connect by TLS."""
    return peer_context(server=False).wrap_socket(dial(path), server_hostname="localhost")


def open_websocket(sock: socket.socket) -> socket.socket:
    """Do the handshake of a WebSocket client."""
    sock.sendall(request())
    _read_head(sock)
    return sock


def accept_websocket(sock: socket.socket) -> socket.socket:
    """Do the handshake of a WebSocket server."""
    [key] = [
        line.split(b":")[1].strip()
        for line in _read_head(sock).split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    ]
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    lines: Sequence[bytes] = (
        *(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"),
        *(b"Sec-WebSocket-Accept: " + accept, b"", b""),
    )
    sock.sendall(b"\r\n".join(lines))
    return sock


def _read_head(sock: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        more = sock.recv(1 << 16)
        assert more, head
        head += more
    return head


class Answering:
    """A server at *path*, for a chardev that is its client; listens from the beginning."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(TIMEOUT)
        self._sock.bind(str(path))
        self._sock.listen(1)

    def accept(self) -> socket.socket:
        """Accept its client; no other comes."""
        with self._sock:
            sock, _ = self._sock.accept()
        sock.settimeout(TIMEOUT)
        return sock


def fill(peer: Peer, most: int = 1 << 20) -> int:
    """Send until sending blocks, at most about *most* bytes; returns how many were sent."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < most:
            sent += peer.send()
    return sent
