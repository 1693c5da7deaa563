"""What a service manager is told, by sd_notify(3)'s protocol: ready, reloading, stopping, alive.

Without ``NOTIFY_SOCKET`` nothing is sent. A manager that does not read is waited for briefly.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

import attrs
import trio

SEND_TIMEOUT: Final = 2.0  # seconds that a message may wait for room in the manager's queue
MAX_STATUS: Final = 1000  # characters; systemd drops what is longer than 4 KiB with all the rest


@attrs.define(eq=False, repr=False)
class Notifier:
    """Tells the service manager how the service is; `Notifier()` tells nobody."""

    _address: str | None = None
    """Of a UNIX datagram socket; one that begins with NUL is abstract."""
    _watchdog: float | None = None
    """Within how many seconds the manager wants to hear that the service is alive."""
    _is_ready: bool = False

    @classmethod
    def found(cls, environ: Mapping[str, str] = os.environ) -> Notifier:
        """The one that *environ* asks for: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID."""
        name = environ.get("NOTIFY_SOCKET", "")
        if name[:1] not in ("/", "@"):  # vsock is for the first process of a VM
            return cls()
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        usec = environ.get("WATCHDOG_USEC", "")
        seconds = int(usec) / 1e6 if is_ours and usec.isascii() and usec.isdigit() else 0
        return cls("\0" + name[1:] if name[0] == "@" else name, seconds or None)

    async def ready(self, status: str) -> None:
        """Say that all that is served is served, or that a reload is over."""
        self._is_ready = True
        await self._send("READY=1", _status(status))

    async def reloading(self) -> None:
        """Say that a reload begins. `ready` has to follow."""
        await self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    async def stopping(self, status: str) -> None:
        """Say that the service stops."""
        await self._send("STOPPING=1", _status(status))

    async def keep_alive(self) -> None:
        """Say twice in each period of the watchdog that the loop runs.

        While the service starts, this also lets it have more time, as chardevs may wait. It is a task of the loop, so that a loop that hangs says nothing.
        """
        while self._watchdog is not None:
            more_time = (
                () if self._is_ready else (f"EXTEND_TIMEOUT_USEC={self._watchdog * 1e6:.0f}",)
            )
            next_time = trio.current_time() + self._watchdog / 2
            await self._send("WATCHDOG=1", *more_time)
            await trio.sleep_until(next_time)

    async def _send(self, *assignments: str) -> None:
        """Send one message; one that can't be sent is dropped."""
        await trio.lowlevel.checkpoint()
        if self._address is None:
            return
        data = "\n".join(assignments).encode("utf-8", "backslashreplace")
        with (
            trio.move_on_after(SEND_TIMEOUT),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.setblocking(False)
            while True:
                try:
                    # Only a connected one is reported as writable when the receiver has room.
                    sock.connect(self._address)
                    sock.send(data)
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(sock)
                except (OSError, ValueError):  # the manager is gone
                    break


def _status(text: str) -> str:
    return f"STATUS={' '.join(text.split())[:MAX_STATUS]}"
