"""A QMP client, for QEMU, its storage daemon, this package's service, and any other server.

    async with open_qmp_client("/run/vm/qmp.sock") as qmp:
        print(await qmp.execute("query-chardev"))

`QmpClient.execute` only puts its command into a queue and waits for the reply. One task writes and
one reads, so cancelling `execute` never cuts a command in two: either it is withdrawn before its
first byte is sent, or the writer finishes it.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.backends.socket.dialer import connect
from trio_chardev.backends.socket.unix_connection import MAX_FDS
from trio_chardev.core.nursery import open_background_nursery
from trio_chardev.errors import BackendError, ChardevError, OptionsError, strerror
from trio_chardev.qmp.client import reasons
from trio_chardev.qmp.client.conversation import (
    Call,
    Conversation,
    QmpConnectionError,
    QmpEvent,
    QmpEvents,
)
from trio_chardev.qmp.errors import QmpError
from trio_chardev.qmp.json.codec import Decoder, Message

if TYPE_CHECKING:  # most clients need none
    from trio_chardev.access.tls_creds import TlsCredsX509

__all__ = [
    "QmpAddress",
    "QmpClient",
    "QmpConnectionError",
    "QmpError",
    "QmpEvent",
    "QmpEvents",
    "open_qmp_client",
]

RECEIVE_SIZE: Final = 1 << 16  # bytes
GRACE: Final = 1.0  # seconds to read the server's last messages after a write has failed

# What the methods of a stream raise; it may also be a chardev's Frontend.
_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ChardevError)

_Secure: TypeAlias = Callable[[trio.abc.Stream, str], Awaitable[trio.abc.Stream]]
QmpAddress: TypeAlias = "str | os.PathLike[str] | tuple[str, int] | SocketAddress | trio.abc.Stream"


class QmpClient:
    """A client's connection, made by `open_qmp_client`. Any number of tasks may share it."""

    def __init__(self, stream: trio.abc.Stream, conversation: Conversation) -> None:
        self.is_oob_enabled = False
        """Was out-of-band execution asked for, and offered?"""
        self._stream = stream
        self._conversation = conversation

    @property
    def greeting(self) -> dict[str, Any]:
        """The greeting's ``QMP`` object: ``version`` and ``capabilities``."""
        return self._conversation.greeting or {}

    async def execute(
        self,
        command: str,
        /,
        arguments: Mapping[str, Any] | None = None,
        *,
        oob: bool = False,
        fds: Sequence[int] = (),
        **more: Any,
    ) -> Any:
        """Run *command* and return its result.

        Its arguments are *arguments* and *more*; in the names of the latter ``_`` stands for
        ``-``. With *oob* it overtakes other commands (QMP's exec-oob). The descriptors *fds*,
        at most 16, are passed along over a UNIX socket, for getfd; the caller keeps its own.

        Raises QmpError if the server answers with an error, QmpConnectionError if the connection
        is over, OptionsError for what can't be sent, TypeError for what JSON can't express. When
        this is cancelled, either nothing was sent, or the server may still run the command, and
        its reply is ignored.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        named = {name.replace("_", "-"): value for name, value in more.items()}
        self._check_fds(fds)
        with _duplicates(fds) as copies:
            call = self._conversation.submit(
                command, {**(arguments or {}), **named}, is_oob=oob, fds=copies
            )
        try:
            await call.done.wait()
        finally:
            self._conversation.leave(call)
        return call.result()

    def open_events(self, *, max_pending: int = 1000) -> AbstractContextManager[QmpEvents]:
        """Subscribe to the events that come within the block, for ``async for event in events``.

        Enter it before sending the command whose events matter. If more than *max_pending* wait
        to be received, the oldest are dropped and counted. The events end when the server goes.
        """
        return self._conversation.subscribe(max_pending)

    def _check_fds(self, fds: Sequence[int]) -> None:
        if fds and _unix_socket(self._stream) is None:
            raise OptionsError("Descriptors can only be passed over a UNIX socket")
        if len(fds) > MAX_FDS:
            raise OptionsError(f"No more than {MAX_FDS} descriptors can be passed at once")

    # ------------------------------------------------------------ tasks

    async def _read(self) -> None:
        decoder = Decoder()
        conversation = self._conversation
        try:
            while data := bytes(await self._stream.receive_some(RECEIVE_SIZE)):
                pos = 0
                while pos < len(data):
                    messages: list[Message] = []
                    pos = decoder.feed_some(data, pos, messages)
                    for message in messages:
                        conversation.take(message)
                        if conversation.end_reason is not None:
                            return
                    if pos < len(data):
                        await trio.lowlevel.checkpoint()
        except _BROKEN as exc:
            conversation.end(self._end_reason(exc))
        else:
            conversation.end(self._end_reason())

    async def _write(self) -> None:
        try:
            while True:
                call = await self._conversation.wait_begun()
                try:
                    await self._send(call)
                finally:
                    call.close_fds()
        except _BROKEN as exc:
            # The server's last messages, such as the reply to quit, may not have been read yet.
            await trio.sleep(GRACE)
            self._conversation.end(self._end_reason(exc))

    async def _send(self, call: Call) -> None:
        sent = 0
        unix_socket = _unix_socket(self._stream)
        if call.fds and unix_socket is not None:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", call.fds))
            sent = await unix_socket.sendmsg([call.wire], [rights])
        await self._stream.send_all(call.wire[sent:])

    def _end_reason(self, error: Exception | None = None) -> str:
        """Why the connection is over, after the end of the stream or *error*."""
        conversation = self._conversation
        cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
        return reasons.gone(conversation.peer, cause, greeted=conversation.greeting is not None)


@asynccontextmanager
async def open_qmp_client(
    address: QmpAddress,
    *,
    timeout: float = 30.0,
    negotiate: bool = True,
    oob: bool = False,
    tls: TlsCredsX509 | None = None,
    tls_hostname: str | None = None,
) -> AsyncIterator[QmpClient]:
    """Connect to the QMP server at *address* and negotiate; disconnect when the block ends.

    *address* is the path of a UNIX socket, a host and a port, an address class, or a stream,
    which the client then owns. Connecting and negotiating take at most *timeout* seconds. *oob*
    enables out-of-band execution if the server offers it. Without *negotiate* the first command
    has to be qmp_capabilities. With *tls* the server, at a host and a port, speaks TLS; its
    certificate must have the name *tls_hostname*, by default that of the host.

    Raises QmpConnectionError, QmpError if the server refuses to negotiate, or OptionsError and
    BackendError about the files of *tls*. Exceptions of the block are not changed.
    """
    if oob and not negotiate:
        raise OptionsError("oob is enabled by negotiating")
    deadline = trio.current_time() + timeout
    secure = None if tls is None else await _loaded(tls, tls_hostname or _host_of(address))
    stream, peer = await _open_stream(address, deadline)
    if secure is not None:
        with _fail_at(deadline, lambda: reasons.slow_tls(peer, timeout)):
            stream = await secure(stream, peer)
    conversation = Conversation(peer)
    client = QmpClient(stream, conversation)
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(client._read)
            nursery.start_soon(client._write)
            unix = _unix_socket(stream)
            with _fail_at(deadline, lambda: reasons.slow_to_greet(peer, timeout, unix)):
                await conversation.greeted.wait()
            conversation.check()
            if negotiate:
                client.is_oob_enabled = oob and "oob" in client.greeting["capabilities"]
                enable = {"enable": ["oob"]} if client.is_oob_enabled else {}
                with _fail_at(deadline, lambda: reasons.slow_to_negotiate(peer, timeout, unix)):
                    await client.execute("qmp_capabilities", enable)
            yield client
    finally:
        conversation.end("The QMP client is closed")
        await trio.aclose_forcefully(stream)


async def _open_stream(address: QmpAddress, deadline: float) -> tuple[trio.abc.Stream, str]:
    """Connect; return the stream, and the server's name for error texts."""
    if isinstance(address, trio.abc.Stream):
        return address, "The QMP server"
    if isinstance(address, tuple):
        address = InetAddress(address[0], str(address[1]))
    elif isinstance(address, str | os.PathLike):
        address = UnixAddress(os.fspath(address))
    with _fail_at(deadline, lambda: reasons.slow_to_connect(address)):
        try:
            sock = await connect(address)
        except BackendError as exc:
            raise QmpConnectionError(str(exc)) from exc
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock)), reasons.name_of(address)


@contextmanager
def _fail_at(deadline: float, text: Callable[[], str]) -> Iterator[None]:
    try:
        with trio.fail_at(deadline):
            yield
    except trio.TooSlowError as exc:
        raise QmpConnectionError(text()) from exc


def _host_of(address: QmpAddress) -> str | None:
    match address:
        case (str(host), _):
            return host
        case InetAddress(host=host):
            return host
    return None


async def _loaded(options: TlsCredsX509, hostname: str | None) -> _Secure:
    """Load a client's credentials; return what speaks TLS by them, with the server *hostname*.

    Raises OptionsError, BackendError.
    """
    from trio_chardev.qmp.client.secure import load, start_tls

    if hostname is None:
        raise OptionsError("TLS is for a server at a host and a port")
    credentials = await load(options)

    async def secure(stream: trio.abc.Stream, peer: str) -> trio.abc.Stream:
        assert isinstance(stream, trio.SocketStream)
        try:
            return await start_tls(stream, credentials, hostname)
        except BackendError as exc:
            raise QmpConnectionError(f"{peer}: {exc}") from exc

    return secure


def _unix_socket(stream: trio.abc.Stream) -> trio.socket.SocketType | None:
    """The socket beneath *stream*, if descriptors can be passed over it."""
    if isinstance(stream, trio.SocketStream) and stream.socket.family == socket.AF_UNIX:
        return stream.socket
    return None


@contextmanager
def _duplicates(fds: Sequence[int]) -> Iterator[list[int]]:
    """Duplicate *fds*, as the caller may close them before they are sent. Closes them on error."""
    with contextlib.ExitStack() as undo:
        copies: list[int] = []
        for fd in fds:
            try:
                copies.append(os.dup(fd))
            except OSError as exc:
                raise OptionsError(f"Can't pass descriptor {fd}: {strerror(exc)}") from exc
            undo.callback(os.close, copies[-1])
        yield copies
        undo.pop_all()
