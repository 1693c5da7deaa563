"""What a server does with clients that come while it has one: log them, and keep or refuse them.

They are accepted, up to MAX_WAITING of them, because only then it is known who they are, and kept
until their turn, in the order in which they came; the rest stay in the kernel's queue.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import struct
from collections.abc import Callable, Sequence
from functools import partial

import trio

from trio_chardev.backends.socket.handshaking import ending
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.listener import Listener
from trio_chardev.backends.socket.rights import close_socket

log = logging.getLogger(__name__)

MAX_WAITING = 8
MAX_REFUSED = 8  # at the same time; more are closed without a reason
REFUSAL_TIMEOUT = 5.0  # seconds for handshakes, and for the peer to get the reason
LOG_INTERVAL = 1.0  # seconds between two lines of the log

_UCRED = struct.Struct("iII")  # pid, uid, gid


class Door:
    """The door of one server; it is watched while there is a client."""

    def __init__(
        self,
        label: str,
        *,
        check: Callable[[socket.socket], None],
        link_on: Callable[[socket.socket], Link],
        refuses: bool,
        on_waiting: Callable[[], None],
    ) -> None:
        """*check* raises OSError for a refused peer; *link_on* puts the protocols on a socket.

        If it does not refuse clients they wait, and *on_waiting* is called for each one more.
        """
        self._label = label
        self._check = check
        self._link_on = link_on
        self.refuses = refuses
        self._on_waiting = on_waiting
        self._watching: trio.CancelScope | None = None
        self._refused = 0
        self._quiet_until = -math.inf
        self._untold = 0

    def watch(
        self,
        nursery: trio.Nursery,
        listener: Listener,
        client: socket.socket,
        newcomers: Sequence[Link],
    ) -> None:
        """Watch who comes while *client* is there; *newcomers* have come already."""
        self.leave()
        self._watching = trio.CancelScope()
        in_use_by = who(client)
        for newcomer in newcomers:
            with contextlib.suppress(OSError):  # it has left
                self._tell_of(newcomer.sock, in_use_by)
            if self.refuses:
                nursery.start_soon(self._refuse, newcomer, in_use_by)
        nursery.start_soon(self._watch, self._watching, nursery, listener, in_use_by)

    def leave(self) -> None:
        """Stop: from now on others accept from the listener."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    async def _watch(
        self, scope: trio.CancelScope, nursery: trio.Nursery, listener: Listener, client: str
    ) -> None:
        with scope:
            while not scope.cancel_called and listener.waiting < MAX_WAITING:
                with contextlib.suppress(trio.ClosedResourceError):
                    await listener.wait_for_more()
                if scope.cancel_called or (sock := listener.accept()) is None:
                    continue
                close = partial(close_socket, sock)
                with contextlib.suppress(OSError), ending(close, f"chardev '{self._label}'"):
                    self._take_in(sock, nursery, listener, client)

    def _take_in(
        self, sock: socket.socket, nursery: trio.Nursery, listener: Listener, client: str
    ) -> None:
        """Keep or refuse *sock*. Raises OSError, without owning it, if it may not or has left."""
        self._check(sock)
        self._tell_of(sock, client)
        if self.refuses:
            nursery.start_soon(self._refuse, self._link_on(sock), client)
        else:
            listener.keep(sock)
            self._on_waiting()

    async def _refuse(self, newcomer: Link, client: str) -> None:
        """Tell *newcomer*, as its protocol does that, that it can't come, and close it."""
        self._refused += 1
        try:
            if self._refused <= MAX_REFUSED:
                with trio.move_on_after(REFUSAL_TIMEOUT):
                    await newcomer.handshake()
                    newcomer.turn_away(f"chardev '{self._label}' is in use by {client}")
                    await newcomer.finish(lambda data: None)
        except Exception as exc:  # whatever it is, it ends this newcomer only
            log.info("chardev '%s': one who was refused: %r", self._label, exc)
        finally:
            self._refused -= 1
            newcomer.close()

    def _tell_of(self, newcomer: socket.socket, client: str) -> None:
        """Log a newcomer. Raises OSError if it has left."""
        if self.refuses:
            self._tell(f"{who(newcomer)} is refused: it is in use by {client}")
        else:
            self._tell(f"{who(newcomer)} waits for {client} to leave")

    def _tell(self, text: str) -> None:
        now = trio.current_time()
        if now < self._quiet_until:
            self._untold += 1
            return
        self._quiet_until = now + LOG_INTERVAL
        more = f" ({self._untold} more were not told of)" if self._untold else ""
        self._untold = 0
        log.warning("chardev '%s': %s%s", self._label, text, more)


def who(sock: socket.socket) -> str:
    """Describe the peer of *sock* for the log. Raises OSError if it has left."""
    if sock.family == socket.AF_UNIX:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid, uid, _ = _UCRED.unpack(credentials)
        return f"process {pid} of user {uid}"
    address = sock.getpeername()
    host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
    return f"{host}:{address[1]}"
