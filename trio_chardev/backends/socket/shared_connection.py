"""A connection below protocols, whose senders may be several tasks."""

from __future__ import annotations

import socket

import trio

from trio_chardev.backends.socket import rights
from trio_chardev.backends.socket.connection import Connection

DECODED_AT_ONCE = 1 << 11  # bytes, each of which may cost a protocol much


class SharedConnection(Connection):
    """A connection below protocols: several tasks may wait to write to it, in turn.

    TCP's urgent byte stays in the stream, where telnet has its meaning (RFC 854).
    """

    __slots__ = ("_turn",)

    _reads = 1, DECODED_AT_ONCE

    def __init__(self, sock: socket.socket, name: str) -> None:
        super().__init__(sock, name)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self._turn = trio.Lock()
        if sock.family == socket.AF_UNIX:
            rights.refuse(sock)

    def _receive(self, max_bytes: int) -> bytes:
        if self._sock.family != socket.AF_UNIX:
            return super()._receive(max_bytes)
        data, fds = rights.receive(self._sock, max_bytes)
        rights.close_fds(fds)
        return data

    async def wait_writable(self) -> None:
        async with self._turn:
            await super().wait_writable()
