"""A UNIX socket, which passes descriptors along with the bytes (SCM_RIGHTS, unix(7))."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Sequence

from trio_chardev.backends.socket import rights
from trio_chardev.backends.socket.connection import Connection
from trio_chardev.core.splicing import CannotSplice, SplicePipe
from trio_chardev.readiness import NO_MEMORY

MAX_FDS = 16
"""The most descriptors that are kept of one read, as in QEMU; the others are closed."""


class UnixConnection(Connection):
    """Receives and passes descriptors along with the bytes (SCM_RIGHTS, unix(7))."""

    __slots__ = ("_fds_to_send", "_may_bring", "_received_fds")

    def __init__(self, sock: socket.socket, name: str) -> None:
        super().__init__(sock, name)
        self._received_fds: list[int] = []
        self._fds_to_send: list[int] = []
        self._may_bring: int | None = None  # how many bytes may, once more are refused

    def _receive(self, max_bytes: int) -> bytes:
        if self._may_bring == 0:
            return super()._receive(max_bytes)
        data, fds = rights.receive(self._sock, max_bytes)
        if self._may_bring is not None:
            self._may_bring = max(0, self._may_bring - len(data)) if data else 0
        if fds:
            self._keep(fds)
        return data

    def _keep(self, fds: list[int]) -> None:
        """Keep *fds* instead of earlier ones. Raises OSError if too many wait to be closed."""
        rights.close_fds([*self._received_fds, *fds[MAX_FDS:]])
        self._received_fds = fds[:MAX_FDS]
        if rights.CLOSER.is_full:
            raise ConnectionAbortedError("too many descriptors that were passed wait to be closed")

    def has_only_bytes(self) -> bool:
        """Refuse descriptors from now on. Is it sure that nothing but bytes will come?

        Descriptors on their way come first, with bytes that `receive` has to read.
        """
        if self._may_bring is None and rights.refuse(self._sock):
            with contextlib.suppress(OSError):
                self._may_bring = rights.count_unread(self._sock)
        return self._may_bring == 0

    @property
    def plain_socket(self) -> socket.socket | None:
        if self._has_sent_eof or self._fds_to_send or not self.has_only_bytes():
            return None
        return self._sock

    def receive_into(self, pipe: SplicePipe, max_bytes: int) -> int:
        if not self.has_only_bytes():
            raise CannotSplice
        return super().receive_into(pipe, max_bytes)

    def take_fds(self) -> list[int]:
        """Return the descriptors of the last read that brought any; the caller owns them now.

        If nobody takes them, they are closed when others come, and with the connection.
        """
        fds, self._received_fds = self._received_fds, []
        return fds

    def send_fds(self, fds: Sequence[int]) -> None:
        """Pass *fds*, which the caller keeps, with the next bytes; they replace earlier ones.

        They are dropped if those bytes can't be sent. Raises OSError if one is not open.
        """
        duplicates: list[int] = []
        try:
            for fd in fds:
                duplicates.append(os.dup(fd))  # noqa: PERF401 - those made are closed below
        except OSError:
            _close_all(duplicates)
            raise
        _close_all(self._fds_to_send)
        self._fds_to_send = duplicates

    def send(self, data: memoryview) -> int:
        if not self._fds_to_send:
            return super().send(data)
        try:
            return self._send_with_fds(data)
        except BlockingIOError:
            raise
        except OSError as exc:
            self._sending.meet(exc, self.name)
            raise

    def _send_with_fds(self, data: memoryview) -> int:
        rights = array.array("i", self._fds_to_send)
        try:
            sent = self._sock.sendmsg(
                [data],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)],
                socket.MSG_NOSIGNAL,
            )
        except BaseException as exc:
            if not (isinstance(exc, BlockingIOError) or getattr(exc, "errno", 0) in NO_MEMORY):
                self._drop_fds_to_send()
            raise
        self._drop_fds_to_send()
        return sent

    def send_from(self, pipe: SplicePipe) -> int:
        if self._fds_to_send:
            raise CannotSplice
        return super().send_from(pipe)

    def _drop_fds_to_send(self) -> None:
        fds, self._fds_to_send = self._fds_to_send, []
        _close_all(fds)

    def close(self) -> None:
        super().close()
        rights.close_fds(self.take_fds())
        self._drop_fds_to_send()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
