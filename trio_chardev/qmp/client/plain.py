"""A QMP client without an event loop: for commands that ask and print.

Importing Trio takes longer than most of them. What messages mean, and the texts of errors, are those
of `trio_chardev.qmp.client.client`; events are ignored. Each wait has a deadline, or none, which a
signal's exception ends.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from trio_chardev.backends.socket import plain_connect
from trio_chardev.backends.socket.addresses import SocketAddress
from trio_chardev.backends.socket.plain_connect import remaining
from trio_chardev.plain_errors import BackendError
from trio_chardev.qmp.client import reasons
from trio_chardev.qmp.client.messages import MAX_IN_FLIGHT, Reply, greeting_in, meaning_of, wire_of
from trio_chardev.qmp.errors import QmpConnectionError, QmpTimeoutError
from trio_chardev.qmp.json.codec import Decoder, Message

if TYPE_CHECKING:  # few need it
    from trio_chardev.access.tls_creds import TlsCredsX509

RECEIVE_SIZE: Final = 1 << 16  # bytes


class PlainQmpClient:
    """A client's connection, made by `open_plain_client`."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.peer = peer
        """Names the server in error texts."""
        self.greeting: dict[str, Any] | None = None
        self._sock = sock
        self._decoder = Decoder()
        self._messages: deque[Message] = deque()
        self._ids = itertools.count(1)
        self._in_flight: dict[int, None] = {}  # ids, in order
        self._replies: dict[int, Reply] = {}  # those that have come out of turn
        self._was_answered = False

    def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Run *command* and return its result.

        Raises QmpError if the server answers with an error, QmpConnectionError if the connection
        is over, QmpTimeoutError after *timeout* seconds, OptionsError for what can't be sent, TypeError for what
        JSON can't express.
        """
        [reply] = self.execute_each(command, [arguments or {}], timeout=timeout)
        if reply.error is not None:
            raise reply.error
        return reply.value

    def execute_each(
        self, command: str, each: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> Iterator[Reply]:
        """Run *command* with *each* of the arguments, several at a time, and yield the replies.

        Raises as `execute`.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            waiting: deque[int] = deque()
            for arguments in each:
                if len(waiting) == MAX_IN_FLIGHT:
                    yield self._reply_to(waiting.popleft(), deadline)
                waiting.append(self._send(command, dict(arguments), deadline))
            while waiting:
                yield self._reply_to(waiting.popleft(), deadline)
        except TimeoutError as exc:
            assert timeout is not None
            text = reasons.slow_to_answer(self.peer, command, timeout)
            raise QmpTimeoutError(text) from exc

    def wait_greeting(self, deadline: float) -> None:
        """Wait for the greeting. Raises QmpConnectionError, TimeoutError."""
        self.greeting = greeting_in(self._next_message(deadline), self.peer)

    def close(self) -> None:
        """Disconnect."""
        self._sock.close()

    def _send(self, command: str, arguments: dict[str, Any], deadline: float | None) -> int:
        """Send a command; return its id. Raises as `execute`, and TimeoutError."""
        id = next(self._ids)
        wire = wire_of(id, command, arguments)
        self._sock.settimeout(None if deadline is None else remaining(deadline))
        try:
            self._sock.sendall(wire)
        except ConnectionError:
            pass  # the server's last messages have not been read yet; then its end is found
        except OSError as exc:
            raise self._ended(exc) from exc
        self._in_flight[id] = None
        return id

    def _reply_to(self, id: int, deadline: float | None) -> Reply:
        """Wait for the reply to a command. Raises QmpConnectionError, TimeoutError."""
        while id not in self._replies:
            message = self._next_message(deadline)
            meaning = meaning_of(message, self.peer, was_answered=self._was_answered)
            if isinstance(meaning, Reply):
                self._was_answered = True
                its = meaning.id if meaning.has_id else next(iter(self._in_flight), None)
                if isinstance(its, int) and its in self._in_flight:
                    del self._in_flight[its]
                    self._replies[its] = meaning
        return self._replies.pop(id)

    def _next_message(self, deadline: float | None) -> Message:
        """Raises QmpConnectionError, TimeoutError."""
        while not self._messages:
            self._sock.settimeout(None if deadline is None else remaining(deadline))
            try:
                data = self._sock.recv(RECEIVE_SIZE)
            except OSError as exc:
                raise self._ended(exc) from exc
            if not data:
                raise self._ended()
            self._messages += self._decoder.feed(data)
        return self._messages.popleft()

    def _ended(self, error: OSError | None = None) -> Exception:
        """Make what to raise when the connection has ended; *error* itself at a deadline."""
        if error is not None and plain_connect.is_timeout(error):
            return error
        greeted = self.greeting is not None
        return QmpConnectionError(reasons.gone(self.peer, error, greeted=greeted))


def open_plain_client(
    address: SocketAddress,
    *,
    timeout: float = 30.0,
    tls: TlsCredsX509 | None = None,
    tls_hostname: str = "",
) -> PlainQmpClient:
    """Connect to the QMP server at *address* and negotiate, in *timeout* seconds at most.

    With *tls* the server speaks TLS; its certificate must have the name *tls_hostname*. Raises
    as `open_qmp_client`.
    """
    deadline = time.monotonic() + timeout
    peer = reasons.name_of(address)
    if tls is not None:
        from trio_chardev.qmp.client.secure import load_now, start_tls_now

        credentials = load_now(tls)
    try:
        sock = plain_connect.connect(address, deadline)
    except TimeoutError as exc:
        raise QmpConnectionError(reasons.slow_to_connect(address)) from exc
    except BackendError as exc:
        raise QmpConnectionError(str(exc)) from exc
    with contextlib.ExitStack() as undo:
        undo.callback(lambda: sock.close())
        if tls is not None:
            try:
                sock.settimeout(remaining(deadline))
                sock = start_tls_now(sock, credentials, tls_hostname)
            except TimeoutError as exc:
                raise QmpConnectionError(reasons.slow_tls(peer, timeout)) from exc
            except BackendError as exc:
                raise QmpConnectionError(f"{peer}: {exc}") from exc
        client = PlainQmpClient(sock, peer)
        unix = reasons.unix_only(sock)
        try:
            client.wait_greeting(deadline)
        except TimeoutError as exc:
            raise QmpConnectionError(reasons.slow_to_greet(peer, timeout, unix)) from exc
        try:
            reply = client._reply_to(client._send("qmp_capabilities", {}, deadline), deadline)
        except TimeoutError as exc:
            raise QmpConnectionError(reasons.slow_to_negotiate(peer, timeout, unix)) from exc
        if reply.error is not None:
            raise reply.error
        undo.pop_all()
    return client
