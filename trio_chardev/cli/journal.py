"""systemd's journal: whether standard error leads there, and writing to it in its own protocol."""

from __future__ import annotations

import os
import socket
from typing import Any

from trio_chardev.cli.log import LineWriter
from trio_chardev.errors import OptionsError, strerror

JOURNAL = "/run/systemd/journal/socket"


def leads_to_journal(fd: int) -> bool:
    """Is *fd* the stream to the journal that systemd has opened (systemd.exec(5))?"""
    try:
        device, inode = map(int, os.environ["JOURNAL_STREAM"].split(":"))
        status = os.fstat(fd)
    except (KeyError, ValueError, OSError):
        return False
    return (status.st_dev, status.st_ino) == (device, inode)


def check_journal() -> None:
    """Raise OptionsError if there is no journal."""
    with _open() as sock:
        try:
            sock.connect(JOURNAL)
        except OSError as exc:
            raise OptionsError(f"Could not connect to '{JOURNAL}': {strerror(exc)}") from exc


class JournalWriter(LineWriter):
    """Writes each entry as a datagram, to the path, so that it survives a restart of the journal."""

    def __init__(self, **more: Any) -> None:
        self._sock = _open()
        super().__init__(self._sock.fileno(), **more)

    def close(self) -> None:
        super().close()
        self._sock.close()

    def _send(self, data: memoryview, *, wait: bool) -> int:
        return self._sock.sendto(data, 0 if wait else socket.MSG_DONTWAIT, JOURNAL)


def _open() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
