"""Peers of sockets that send and read at the same time, until they learn that they are left."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
import trio.testing

from tests.certificates import client_credentials, peer_context, server_credentials
from tests.places import connect_to, socket_stream
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.backends.socket.codec import Codec
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.core.backend import Backend
from trio_chardev.protocols.com_port import Port
from trio_chardev.protocols.com_port_telnet import com_port_client, com_port_server
from trio_chardev.protocols.rfc2217 import FROM_SERVER, Command, Control
from trio_chardev.protocols.telnet import telnet_connection
from trio_chardev.protocols.telnet_roles import COM_PORT, IAC, SB
from trio_chardev.protocols.websocket import websocket_connection

FRAME = 9_000  # bytes
KINDS = ("tcp", "unix", "telnet", "rfc2217", "tls", "websocket", "websocket-tls", "telnet-tls")
LAST_ANSWER = bytes([IAC, SB, COM_PORT, FROM_SERVER + Command.SET_CONTROL, Control.RTS_ON])
"""The answer to the last of the questions with which our client of RFC 2217 begins."""
BREATH = 0.001  # seconds
ENOUGH = 100_001  # bytes; the kernels and the queue take more if the user is slow


def pattern(size: int, name: str = "old") -> bytes:
    """Make *size* bytes that show their positions, 0xff among them."""
    lines = (b"%s %08d\xff\n" % (name.encode(), number) for number in range(size // 12 + 1))
    return b"".join(lines)[:size]


@attrs.define(eq=False)
class Talker:
    """A peer; what it has sent when it learns that it is left must arrive.

    It answers the end of its input as its protocol does, after what it was sending has been sent.
    Its output goes through the *codecs*, the uppermost last.
    """

    stream: trio.abc.Stream
    codecs: list[Codec]
    data: bytes
    sent: int = 0
    got: bytearray = attrs.Factory(bytearray)
    reads: bool = True
    """If not, it does not learn that, and does not leave."""
    knows: bool = False
    """Has it read the end?"""
    has_sent_all: trio.Event = attrs.Factory(trio.Event)
    answers_first: bytes = b""
    """What it has to have sent before its peer can begin."""
    _said: bytes = b""
    _lock: trio.Lock = attrs.Factory(trio.Lock)

    async def begin(self) -> None:
        """Shake hands."""
        if isinstance(self.stream, trio.SSLStream):
            await self.stream.do_handshake()
        await self._send_wire()
        while self.answers_first not in self._said or not all(
            codec.is_established for codec in self.codecs
        ):
            await self._receive()

    async def run(self) -> None:
        """Send and read until the end, then leave."""
        try:
            async with trio.open_nursery() as nursery:
                if self.reads:
                    nursery.start_soon(self._read)
                await self._write()
            if not self.reads:
                await trio.sleep_forever()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            self.has_sent_all.set()
        finally:
            await trio.aclose_forcefully(self.stream)  # noqa: ASYNC102 - it does not wait

    async def _write(self) -> None:
        while self.sent < len(self.data) and not self.knows:
            frame = self.data[self.sent : self.sent + FRAME]
            await self.send(frame)
            self.sent += len(frame)
        self.has_sent_all.set()

    async def _read(self) -> None:
        while not self.knows:
            await self._receive()
        await self.has_sent_all.wait()
        await self._send_wire()

    async def _receive(self) -> None:
        """Read once."""
        wire = bytes(await self.stream.receive_some())
        self.knows = self.knows or not wire
        for codec in self.codecs:
            items = list(codec.receive_data(wire))
            while codec.is_behind:
                items += codec.decode_more()
            wire = b"".join(item for item in items if isinstance(item, bytes))
            self.knows = self.knows or codec.end is not None
        self.got += wire
        if not self.knows:
            await self._send_wire()

    async def send(self, data: bytes) -> None:
        """Send *data* as one record, or frame, of the uppermost protocol."""
        wire = self.codecs[-1].encode(data) if self.codecs else data
        await self._send_by(self.codecs[:-1], wire)

    async def _send_wire(self) -> None:
        await self._send_by(self.codecs)

    async def _send_by(self, codecs: list[Codec], wire: bytes = b"") -> None:
        async with self._lock:
            for codec in reversed(codecs):
                wire = codec.encode(wire) if wire else codec.data_to_send()
            if wire:
                self._said = wire
                await self.stream.send_all(wire)

    async def get_going(self) -> None:
        """Wait until it has sent all, or is stuck: for some time nothing moves in this process.

        Time alone says nothing: a process that is held up sends little in any time.
        """
        while self.sent < min(ENOUGH, len(self.data)):  # noqa: ASYNC110 - there is no event
            await trio.sleep(BREATH)
        if not self.has_sent_all.is_set():
            await trio.testing.wait_all_tasks_blocked(20 * BREATH)


def options_of(kind: str, address: SocketAddress, *, server: bool) -> SocketOptions:
    """Return the options of a socket that speaks *kind*; its credentials are "tls"."""
    return SocketOptions(
        addr=address,
        server=server,
        telnet="telnet" in kind,
        rfc2217="rfc2217" in kind,
        websocket="websocket" in kind,
        tls_creds="tls" if "tls" in kind else None,
    )


def address_for(kind: str, folder: Path) -> SocketAddress:
    return UnixAddress(str(folder / "old")) if kind == "unix" else InetAddress("localhost", "0")


def codecs_of(kind: str, *, server: bool) -> list[Codec]:
    """Return the codecs of the peer, which is a *server*, above TLS."""
    codecs: list[Codec] = []
    if "websocket" in kind:
        codecs.append(websocket_connection(is_server=server, host="localhost", binary_only=False))
    if "telnet" in kind:
        codecs.append(telnet_connection(is_server=server, tn3270=False))
    if "rfc2217" in kind:
        codecs.append(com_port_server(Port(), b"") if server else com_port_client(Port()))
    return codecs


def talker(kind: str, stream: trio.SocketStream, data: bytes, *, server: bool) -> Talker:
    """Make a peer, which is a *server*, on a connected socket."""
    over: trio.abc.Stream = stream
    if "tls" in kind:
        name = None if server else "localhost"
        context = peer_context(server=server)
        if not server:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        over = trio.SSLStream(stream, context, server_hostname=name, server_side=server)
    answers_first = LAST_ANSWER if server and kind == "rfc2217" else b""
    return Talker(over, codecs_of(kind, server=server), data, answers_first=answers_first)


@attrs.define
class Meeting:
    """How a chardev's backend of a kind gets its peer."""

    kind: str
    server: bool
    """Does the chardev listen?"""
    options: SocketOptions
    data: bytes
    _listener: socket.socket | None = None

    async def meet(self, get_backend: Callable[[], Backend]) -> Talker:
        """Connect to a server that is in place, or accept a client that is being opened."""
        if self._listener is None:
            stream = connect_to(get_backend())
        else:
            await trio.lowlevel.wait_readable(self._listener)
            stream = socket_stream(self._listener.accept()[0])
        peer = talker(self.kind, stream, self.data, server=not self.server)
        await peer.begin()
        return peer


@asynccontextmanager
async def meeting(
    kind: str, folder: Path, objects: dict[str, object], data: bytes, *, server: bool
) -> AsyncIterator[Meeting]:
    """Give the meeting of a chardev that is a server, or a client of a listener of ours."""
    address = address_for(kind, folder)
    if "tls" in kind:
        credentials = folder / "tls"
        objects["tls"] = (
            server_credentials(credentials, verify_peer=False)
            if server
            else client_credentials(credentials)
        )
    if server:
        yield Meeting(kind, server, options_of(kind, address, server=True), data)
        return
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    with socket.socket(family) as listener:
        if isinstance(address, UnixAddress):
            listener.bind(address.path)
        else:
            listener.bind(("127.0.0.1", 0))
            address = InetAddress("localhost", str(listener.getsockname()[1]), ipv4=True)
        listener.listen()
        listener.setblocking(False)
        yield Meeting(kind, server, options_of(kind, address, server=False), data, listener)
