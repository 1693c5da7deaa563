"""Where connected sockets come from: in general, and for a client.

Nothing here blocks: host names are looked up in a thread, and a UNIX server whose queue is
full, of which a non-blocking connect(2) only says EAGAIN, is tried again after a pause.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
from collections.abc import Callable
from typing import Protocol

import trio

from trio_chardev.backends.addresses import Endpoint, SocketAddress, check_path, resolve
from trio_chardev.errors import BackendError
from trio_chardev.sandbox import EVERYWHERE, Sandbox

log = logging.getLogger(__name__)

MAX_DELAY = 60.0  # seconds between two attempts, unless the user wants more
QUEUE_PAUSE = 0.01  # seconds, at first
MAX_QUEUE_PAUSE = 0.5


class Peers(Protocol):
    """Where connected sockets come from."""

    async def wait(self) -> None:
        """Wait until there may be one to take."""

    def take(self) -> socket.socket | None:
        """The next one, non-blocking, if there is one."""

    def connected(self) -> None:
        """The one that was taken is the peer: its handshakes, too, are over."""

    def activate(self) -> None:
        """See `Backend.activate`."""

    def close(self) -> None:
        """Give up what it holds."""


class Nobody:
    """No more sockets: a client that does not reconnect, or a server without address."""

    async def wait(self) -> None:
        """Wait for ever."""
        await trio.sleep_forever()

    def take(self) -> None:
        """There is none."""

    def connected(self) -> None:
        """Nothing to do."""

    def activate(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


async def connect(address: SocketAddress, sandbox: Sandbox = EVERYWHERE) -> socket.socket:
    """A socket that is connected to the first endpoint of *address* that answers.

    *sandbox* says which paths may be its. Raises BackendError, with the last endpoint's error. Cancelled: nothing is left open.
    """
    check_path(address, sandbox)
    error = OSError("there is no endpoint")
    for endpoint in await resolve(address, passive=False):
        try:
            return await _connect_to(endpoint)
        except OSError as exc:
            error = exc
    raise BackendError.from_os_error(f"Failed to connect to '{address}'", error) from error


async def _connect_to(endpoint: Endpoint) -> socket.socket:
    sock = endpoint.socket()
    try:
        code = await _start_connecting(sock, endpoint)
        if code == errno.EINPROGRESS:
            await trio.lowlevel.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


async def _start_connecting(sock: socket.socket, endpoint: Endpoint) -> int:
    """connect(2)'s error code, once the server's queue has room."""
    await trio.lowlevel.checkpoint_if_cancelled()
    pause = QUEUE_PAUSE
    while True:
        with endpoint.for_connect() as address:
            code = sock.connect_ex(address)
        if code != errno.EAGAIN or sock.family != socket.AF_UNIX:
            return code
        await trio.sleep(pause)
        pause = min(2 * pause, MAX_QUEUE_PAUSE)


class Backoff:
    """Delays in seconds that begin at *base* and double, each with some jitter.

    The jitter makes each up to a half longer, so that many clients of one server do not
    come back at once. *jitter* gives numbers from 0 to 1.
    """

    __slots__ = ("_jitter", "_next", "base")

    def __init__(self, base: float, jitter: Callable[[], float] = random.random) -> None:
        self.base = base
        self._next = base
        self._jitter = jitter

    def next(self) -> float:
        """The delay before the next attempt."""
        delay = self._next
        self._next = min(2 * delay, max(self.base, MAX_DELAY))
        return delay * (1 + self._jitter() / 2)

    def reset(self) -> None:
        """Begin again at the base."""
        self._next = self.base


class Redialer:
    """Connects until it succeeds, and again when asked again.

    The first attempt is made at once; what fails is logged once until a success.
    """

    __slots__ = (
        "_address",
        "_backoff",
        "_is_failing",
        "_label",
        "_ready",
        "_sandbox",
        "_was_tried",
    )

    def __init__(
        self,
        label: str,
        address: SocketAddress,
        backoff: Backoff,
        sandbox: Sandbox = EVERYWHERE,
    ) -> None:
        self._label = label
        self._address = address
        self._backoff = backoff
        self._sandbox = sandbox
        self._was_tried = False
        self._is_failing = False
        self._ready: socket.socket | None = None

    async def wait(self) -> None:
        """Wait until there is a connection to take. Cancelled: the attempt is given up."""
        while self._ready is None:
            if self._was_tried:
                await trio.sleep(self._backoff.next())
            self._was_tried = True
            try:
                self._ready = await connect(self._address, self._sandbox)
            except BackendError as exc:
                if not self._is_failing:
                    log.warning("Unable to connect character device %s: %s", self._label, exc)
                self._is_failing = True

    def take(self) -> socket.socket | None:
        """The connection, if there is one."""
        sock, self._ready = self._ready, None
        return sock

    def connected(self) -> None:
        """See `Peers.connected`: from now on it begins again with the first delay."""
        self._is_failing = False
        self._backoff.reset()

    def activate(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Close a connection that nobody took."""
        if (sock := self.take()) is not None:
            sock.close()
