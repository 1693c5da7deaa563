"""Where connected sockets come from: the interface, and its implementation for a client.

Nothing here blocks: names of hosts are looked up in a thread, and so are those of files, unless the
kernel has them in memory (`trio_chardev.cached_path`). If a UNIX server's queue is full, which a
non-blocking connect(2) reports as EAGAIN, it is tried again after a pause.
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
from trio_chardev.backends.socket.addresses import Endpoint, SocketAddress, path_of_open
from trio_chardev.backends.socket.resolving import resolve
from trio_chardev.cached_path import open_cached
from trio_chardev.core.peer import Outlook
from trio_chardev.errors import BackendError
from trio_chardev.files import finish_on_files
from trio_chardev.readiness import wait_writable

log = logging.getLogger(__name__)

STEADY = 5.0  # seconds; a connection that ends sooner does not count as a success
SHORT_FACTOR = 32  # times the delay that was asked for, after connections that were short
QUIET_TIME = 60.0  # seconds between two lines in the log about connections that are not steady
QUEUE_PAUSE = 0.01  # seconds, at first
MAX_QUEUE_PAUSE = 0.5


class Peers(Protocol):
    """Where connected sockets come from."""

    async def wait(self) -> None:
        """Wait until there may be a socket to take."""

    def take(self) -> socket.socket | None:
        """Return the next socket, non-blocking, if there is one."""

    def connected(self) -> None:
        """Note that the socket that was taken is the peer: its handshakes are over, too."""

    def activate(self) -> None:
        """See `Backend.activate`."""

    def close(self) -> None:
        """Close what it holds."""


class Nobody:
    """Gives no sockets: for a client that does not reconnect, or a server without address."""

    async def wait(self) -> None:
        """Wait for ever."""
        await trio.sleep_forever()

    def take(self) -> None:
        """Return None."""

    def connected(self) -> None:
        """Do nothing."""

    def activate(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


async def connect(address: SocketAddress, sandbox: Sandbox = EVERYWHERE) -> socket.socket:
    """Connect to the first endpoint of *address* that answers.

    A path has to be in *sandbox*. Raises BackendError, with the last endpoint's error. When
    Cancelled, nothing is left open.
    """
    error = OSError("there is no endpoint")
    for endpoint in await resolve(address, passive=False):
        try:
            return await _connect_to(endpoint, sandbox)
        except OSError as exc:
            error = exc
    try:
        raise BackendError.from_os_error(f"Failed to connect to '{address}'", error) from error
    finally:
        del error  # its traceback has this frame


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
    """Return a socket and connect(2)'s error code, once the server's queue has room.

    A path that has to be looked up in a thread may be on a disk that hangs, whatever the socket's mode
    is. If Cancelled meanwhile, wait for that, as long as a file may take: the server may have the
    client already.
    """
    pause = QUEUE_PAUSE
    while True:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not endpoint.is_path:
            sock, code = _call_connect(endpoint, sandbox)
        elif (cached := _connect_cached(endpoint, sandbox)) is not None:
            sock, code = cached
        else:
            sock, code = await finish_on_files(_call_connect, endpoint, sandbox, discard=_discard)
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


def _connect_cached(endpoint: Endpoint, sandbox: Sandbox) -> tuple[socket.socket, int] | None:
    """Do as `_call_connect`, without waiting. None if that can't be done, or fails for a reason to be told."""
    fd = open_cached(os.fsdecode(endpoint.address))
    if fd is None:
        return None
    try:
        if not sandbox.contains(fd):
            return None
        sock, code = _call_connect(Endpoint(endpoint.family, path_of_open(fd)), EVERYWHERE)
    finally:
        os.close(fd)
    if code in (0, errno.EAGAIN):
        return sock, code
    sock.close()
    return None


def _discard(result: tuple[socket.socket, int]) -> None:
    result[0].close()


class Backoff:
    """Delays in seconds.

    After a failure to connect always *base*, like QEMU's, unless they may grow up to *longest*.
    After a connection that was short, which says that the server is there and does not want us,
    they grow in any case: up to *longest*, or `SHORT_FACTOR` times *base* if that was not given.

    If they grow, they double, with random jitter: each is between half of that, at least *base*,
    and the whole, so that many clients of one server do not come back at once. *jitter* returns
    numbers from 0 to 1.
    """

    __slots__ = ("_jitter", "_next", "base", "longest", "longest_if_short")

    def __init__(
        self,
        base: float,
        longest: float | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.base = base
        self.longest = base if longest is None else longest
        self.longest_if_short = SHORT_FACTOR * base if longest is None else longest
        self._next = base
        self._jitter = jitter

    def next(self, *, was_short: bool = False) -> float:
        """Return the delay before the next attempt, after a failure or a short connection."""
        longest = self._longest(was_short=was_short)
        delay = min(self._next, longest)
        self._next = min(2 * delay, longest)
        return max(self.base, delay * (1 - self._jitter() / 2))

    def _longest(self, *, was_short: bool) -> float:
        return self.longest_if_short if was_short else self.longest

    def reset(self) -> None:
        """Begin again at *base*."""
        self._next = self.base

    def words(self, *, was_short: bool = False) -> str:
        """Say how often it is tried, for the log."""
        if (longest := self._longest(was_short=was_short)) > self.base:
            return f"after {self.base:g} s, then after longer, every {longest:g} s at last"
        return f"every {self.base:g} s"


class Redialer:
    """Connects until it succeeds, and again when asked again.

    The first attempt is made at once. The beginning and the success of retries are logged; for
    connections that end before they are `STEADY`, once in `QUIET_TIME`.
    """

    __slots__ = (
        *("_address", "_backoff", "_connected_at", "_is_given", "_is_steady", "_is_troubled"),
        *(
            "_label",
            "_last_error",
            "_next_try",
            "_on_failure",
            "_quiet_until",
            "_ready",
            "_reason",
            "_sandbox",
        ),
        "_trying",
    )

    def __init__(
        self,
        label: str,
        address: SocketAddress,
        backoff: Backoff,
        sandbox: Sandbox = EVERYWHERE,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """*on_failure* is called when an attempt, or a connection with a reason, has failed."""
        self._label = label
        self._on_failure = on_failure
        self._address = address
        self._backoff = backoff
        self._sandbox = sandbox
        self._next_try = -math.inf
        self._trying: trio.CancelScope | None = None  # the attempt, or the wait for it; for `retry`
        self._is_given = False  # was a socket taken whose end is not noted yet?
        self._connected_at: float | None = None  # when its peer came
        self._reason = ""  # why it has ended, if that was told
        self._last_error: str | None = None
        self._is_steady = True  # was the last connection?
        self._is_troubled = False  # has it been logged that it is tried again?
        self._quiet_until = -math.inf
        self._ready: socket.socket | None = None

    async def wait(self) -> None:
        """Wait until there is a connection to take. When Cancelled, the attempt is given up."""
        if self._is_given or self._connected_at is not None:
            self._note_end()
        while self._ready is None:
            with trio.CancelScope() as self._trying:
                await trio.sleep_until(self._next_try)
                await self._try()
        self._trying = None

    async def _try(self) -> None:
        try:
            self._ready = await connect(self._address, self._sandbox)
        except BackendError as exc:
            self._last_error = str(exc)
            self._on_failure()
            self._next_try = trio.current_time() + self._backoff.next()
            self._note_trouble(f"Unable to connect character device {self._label}: {exc}")

    def retry(self) -> None:
        """Try now, if there is no connection; an attempt that is under way is begun anew."""
        self._next_try = -math.inf
        if self._trying is not None:
            self._trying.cancel()

    @property
    def outlook(self) -> Outlook:
        """See `Peer.outlook`."""
        is_later = self._next_try > trio.current_time()
        next_try = self._next_try if is_later else None
        return Outlook(may_come=True, last_error=self._last_error, next_try=next_try)

    def take(self) -> socket.socket | None:
        """Return the connection, if there is one."""
        sock, self._ready = self._ready, None
        self._is_given = self._is_given or sock is not None
        return sock

    def connected(self) -> None:
        """See `Peers.connected`."""
        self._connected_at = trio.current_time()
        self._reason = ""
        if self._is_troubled:
            self._is_troubled = False
            self._log(f"chardev '{self._label}': connected to '{self._address}' again")

    def failed(self, reason: str) -> None:
        """Note why the connection that was taken ends, or why it did not get as far as a peer."""
        self._reason = reason

    def _note_end(self) -> None:
        """Note that the connection is over. One that was too short is no success."""
        now = trio.current_time()
        came_at, self._connected_at, self._is_given = self._connected_at, None, False
        reason, self._reason = self._reason, ""
        self._is_steady = came_at is not None and now - came_at >= STEADY
        if self._is_steady:
            self._backoff.reset()
        self._next_try = now + self._backoff.next(was_short=not self._is_steady)
        if came_at is None or reason:
            self._on_failure()
        if came_at is None:
            how = "has failed"
        elif self._is_steady:
            how = "has ended"
        else:
            how = f"has ended after {now - came_at:.1f} s"
        why = f": {reason}" if reason else ""
        self._last_error = f"the connection to '{self._address}' {how}{why}"
        self._note_trouble(f"chardev '{self._label}': {self._last_error}")

    def _note_trouble(self, text: str) -> None:
        if not self._is_troubled:
            self._is_troubled = True
            was_short = not self._is_steady
            self._log(f"{text}; trying again {self._backoff.words(was_short=was_short)}")

    def _log(self, text: str) -> None:
        now = trio.current_time()
        if self._is_steady or now >= self._quiet_until:
            self._quiet_until = now + QUIET_TIME
            log.warning("%s", text, extra={"fields": {"chardev": self._label}})

    def activate(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close a connection that nobody took."""
        if (sock := self.take()) is not None:
            sock.close()
