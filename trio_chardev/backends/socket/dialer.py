"""Where connected sockets come from: in general, and for a client.

Nothing here blocks: names of hosts and files are looked up in a thread, and a UNIX server whose queue is
full, of which a non-blocking connect(2) only says EAGAIN, is tried again after a pause.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import random
import socket
from collections.abc import Callable
from typing import Protocol

import trio

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.backends.socket.addresses import Endpoint, SocketAddress, resolve
from trio_chardev.errors import BackendError
from trio_chardev.files import finish_on_files
from trio_chardev.readiness import wait_writable

log = logging.getLogger(__name__)

STEADY = 5.0  # seconds; a connection that ends sooner does not count as a success
QUIET_TIME = 60.0  # seconds between two lines in the log about connections that are not steady
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
    error = OSError("there is no endpoint")
    for endpoint in await resolve(address, passive=False):
        try:
            return await _connect_to(endpoint, sandbox)
        except OSError as exc:
            error = exc
    raise BackendError.from_os_error(f"Failed to connect to '{address}'", error) from error


async def _connect_to(endpoint: Endpoint, sandbox: Sandbox) -> socket.socket:
    sock, code = await _start_connecting(endpoint, sandbox)
    try:
        if code == errno.EINPROGRESS:
            await wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


async def _start_connecting(endpoint: Endpoint, sandbox: Sandbox) -> tuple[socket.socket, int]:
    """A socket and connect(2)'s error code, once the server's queue has room.

    A path is looked up in a thread, for its disk may hang whatever the socket's mode is. Cancelled
    meanwhile it is waited for, as long as a file may take: the server has us as a client already.
    """
    pause = QUEUE_PAUSE
    while True:
        if endpoint.is_path:
            sock, code = await finish_on_files(_call_connect, endpoint, sandbox, discard=_discard)
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
            sock, code = _call_connect(endpoint, sandbox)
        if code != errno.EAGAIN or endpoint.family != socket.AF_UNIX:
            return sock, code
        sock.close()
        await trio.sleep(pause)
        pause = min(2 * pause, MAX_QUEUE_PAUSE)


def _call_connect(endpoint: Endpoint, sandbox: Sandbox) -> tuple[socket.socket, int]:
    sock = endpoint.socket()
    try:
        with endpoint.for_connect(sandbox) as address:
            return sock, sock.connect_ex(address)
    except BaseException:
        sock.close()
        raise


def _discard(result: tuple[socket.socket, int]) -> None:
    result[0].close()


class Backoff:
    """Delays in seconds: *base* each time, as QEMU's, unless they may grow up to *longest*.

    Those that grow double, and are random between a half of that, at least *base*, and all of it,
    so that many clients of one server do not come back at once. *jitter* gives numbers from 0
    to 1.
    """

    __slots__ = ("_jitter", "_next", "base", "longest")

    def __init__(
        self,
        base: float,
        longest: float | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.base = base
        self.longest = base if longest is None else longest
        self._next = base
        self._jitter = jitter

    def next(self) -> float:
        """The delay before the next attempt."""
        delay = self._next
        self._next = min(2 * delay, self.longest)
        return max(self.base, delay * (1 - self._jitter() / 2))

    def reset(self) -> None:
        """Begin again at the base."""
        self._next = self.base

    def __str__(self) -> str:
        """How often it is tried, for the log."""
        if self.longest > self.base:
            return f"after {self.base:g} s, then after longer, every {self.longest:g} s at last"
        return f"every {self.base:g} s"


class Redialer:
    """Connects until it succeeds, and again when asked again.

    The first attempt is made at once. That it begins to try again is logged, and that it has
    succeeded; of connections that end at once, before they are `STEADY`, once in `QUIET_TIME`.
    """

    __slots__ = (
        *("_address", "_backoff", "_connected_at", "_is_steady", "_is_troubled", "_label"),
        *("_quiet_until", "_ready", "_sandbox", "_was_tried"),
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
        self._connected_at: float | None = None  # since when there is, or was, a peer
        self._is_steady = True  # was the last connection?
        self._is_troubled = False  # it was logged that it is tried again
        self._quiet_until = -math.inf
        self._ready: socket.socket | None = None

    async def wait(self) -> None:
        """Wait until there is a connection to take. Cancelled: the attempt is given up."""
        if self._connected_at is not None:
            self._note_end(trio.current_time() - self._connected_at)
        while self._ready is None:
            if self._was_tried:
                await trio.sleep(self._backoff.next())
            self._was_tried = True
            try:
                self._ready = await connect(self._address, self._sandbox)
            except BackendError as exc:
                self._note_trouble(f"Unable to connect character device {self._label}: {exc}")

    def take(self) -> socket.socket | None:
        """The connection, if there is one."""
        sock, self._ready = self._ready, None
        return sock

    def connected(self) -> None:
        """See `Peers.connected`."""
        self._connected_at = trio.current_time()
        if self._is_troubled:
            self._is_troubled = False
            self._log(f"chardev '{self._label}': connected to '{self._address}' again")

    def _note_end(self, lived: float) -> None:
        """The connection is over. One that has not lived long is no success."""
        self._connected_at = None
        if lived >= STEADY:
            self._is_steady = True
            self._backoff.reset()
            how = "has ended"
        else:
            self._is_steady = False
            how = f"has ended after {lived:.1f} s"
        self._note_trouble(f"chardev '{self._label}': the connection to '{self._address}' {how}")

    def _note_trouble(self, text: str) -> None:
        if not self._is_troubled:
            self._is_troubled = True
            self._log(f"{text}; trying again {self._backoff}")

    def _log(self, text: str) -> None:
        now = trio.current_time()
        if self._is_steady or now >= self._quiet_until:
            self._quiet_until = now + QUIET_TIME
            log.warning("%s", text)

    def activate(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Close a connection that nobody took."""
        if (sock := self.take()) is not None:
            sock.close()
