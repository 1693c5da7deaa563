"""Sockets given by descriptor: they are open already, and others may have them open, too."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from typing import Any

from trio_chardev.backends.holder import owned
from trio_chardev.errors import BackendError, backend_errors


class SharedSocket(socket.socket):
    """A socket that never waits, though its description stays blocking for others.

    It can't be spliced, as splice(2) has no such flag for sockets.
    """

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        return super().recv(bufsize, flags | socket.MSG_DONTWAIT)

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        return super().recvmsg(bufsize, ancbufsize, flags | socket.MSG_DONTWAIT)

    def send(self, data: Any, flags: int = 0, /) -> int:
        return super().send(data, flags | socket.MSG_DONTWAIT)

    def sendmsg(
        self,
        buffers: Iterable[Any],
        ancdata: Iterable[tuple[int, int, Any]] = (),
        flags: int = 0,
        address: Any = None,
        /,
    ) -> int:
        return super().sendmsg(buffers, ancdata, flags | socket.MSG_DONTWAIT, address)


def socket_from_fd(fd: int, name: str) -> socket.socket:
    """Make a socket of *fd*, which is owned from now on, even if this raises BackendError.

    It never waits. It can be spliced if it was non-blocking already.
    """
    try:
        os.fstat(fd)  # raises for numbers that Python's socket would truncate to another descriptor
        is_shared = os.get_blocking(fd)
        sock = (SharedSocket if is_shared else socket.socket)(fileno=fd)
    except (OSError, OverflowError) as exc:
        with contextlib.suppress(OSError, OverflowError):
            os.close(fd)
        raise BackendError(f"File descriptor '{name}' is not a socket") from exc
    with owned(sock.close):
        if sock.type != socket.SOCK_STREAM:
            raise BackendError(f"File descriptor '{name}' is not a stream socket")
        with backend_errors(f"Could not use file descriptor '{name}'"):
            sock.set_inheritable(False)
            if not is_shared:
                sock.setblocking(False)  # for Python; in the kernel it is non-blocking already
    return sock
