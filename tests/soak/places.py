"""What a console is changed to, with the peers at the other end."""

from __future__ import annotations

import base64
import contextlib
import errno
import itertools
import os
import socket
import ssl
import struct
import termios
import tty
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import trio
import trio_websocket
from trio.lowlevel import FdStream

from tests.talkers import LAST_ANSWER
from trio_chardev import QmpClient, QmpError
from trio_chardev.events import LineRequest
from trio_chardev.protocols.com_port import ComPortServer, Port
from trio_chardev.protocols.com_port_telnet import ComPortTelnet, com_port_client, com_port_server

RING_SIZE: Final = 1 << 20  # bytes; more than a console has in transit
CHUNK: Final = 1 << 16  # bytes
LOOK_INTERVAL: Final = 0.005  # seconds between looks at what can't be waited for
INET: Final = {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}

LINGERS: Final = {"linger-ms": 600_000}

WANTS: Final = {os.strerror(errno.EMFILE): "descriptors", "no thread can be started": "threads"}
"""The text of an error -> the resource that is lacking."""

_numbers = itertools.count()


def check_refusal(error: QmpError) -> str:
    """Return the resource that *error* names as lacking; raise it if it names none in one line."""
    text = str(error)
    for words, what in WANTS.items():
        if words in text and "\n" not in text:
            return what
    raise error


async def patiently(
    qmp: QmpClient,
    command: str,
    arguments: Mapping[str, Any],
    starved: Callable[[str], object] = lambda what: None,
) -> Any:
    """Run a command, again if the service lacked a resource for it: then it has done nothing."""
    while True:
        try:
            return await qmp.execute(command, arguments)
        except QmpError as exc:
            what = check_refusal(exc)
        starved(what)
        await trio.sleep(0.05)


@attrs.define
class Site:
    """The surroundings in which places are made."""

    folder: Path
    service: Path
    """The socket of the service's QMP listener."""

    id: str
    """The id of the chardev that is changed."""

    nursery: trio.Nursery
    tls: ssl.SSLContext
    """For checking the service's certificate, which is in its object ``tls``."""

    qmp: QmpClient = attrs.field(init=False)
    """A connection for this site alone, as the commands of a connection run one after another."""

    def path(self) -> Path:
        """Return a path that nobody uses."""
        return self.folder / f"p{next(_numbers)}"

    async def filename(self) -> str:
        """Return what query-chardev shows of the chardev."""
        rows = await self.qmp.execute("query-chardev")
        return str(next(row["filename"] for row in rows if row["label"] == self.id))

    async def port(self) -> int:
        """Return the port at which it listens."""
        return int((await self.filename()).partition(",")[0].rpartition(":")[2])


class Peer:
    """The peer at the other end of a backend."""

    can_send = True
    is_replaced = False
    """Was the backend replaced?"""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def receive(self) -> bytes:
        """Receive the next bytes; b"" once no more can come."""
        try:
            return bytes(await self._stream.receive_some(CHUNK))
        except trio.BrokenResourceError:  # such as a tty whose other end is closed
            return b""
        except trio.ClosedResourceError:  # by `leave`
            return b""

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    def reset(self) -> None:
        """Have TCP say, when it is closed, that nothing is read any more."""
        assert isinstance(self._stream, trio.SocketStream)
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@attrs.frozen
class Place:
    """A backend to change to."""

    kind: str
    backend: dict[str, Any]
    """The backend, for QMP."""

    join: Callable[[], Awaitable[Peer]]
    """Connects to the other end, once the backend is in place."""

    keeps: bool = True
    """Can what it was sent before it was replaced be read after that, or is it waited for?"""

    is_tcp: bool = False
    """Is it noticed that the peer has left only after a writer may write again?"""

    is_socket: bool = False
    """Are bytes that were sent safe, even if nobody has read them when it is closed?"""

    takes_another: bool = False
    """Can another peer come when one has left?"""

    sends_no_more: bool = False
    """Does its peer shut down its side when it has joined? Then it counts as disconnected."""

    clean_up: Callable[[], object] = lambda: None
    """Called when nobody uses it any more."""


def backend(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data}


def listening(address: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    return backend("socket", addr=address, server=True, wait=False, **options)


# ---------------------------------------------------------------- sockets


def unix_server(site: Site) -> Place:
    path = site.path()

    async def join() -> Peer:
        return Peer(await trio.open_unix_socket(str(path)))

    address = {"type": "unix", "data": {"path": str(path)}}
    return Place("unix", listening(address), join, takes_another=True, is_socket=True)


def abstract_server(site: Site) -> Place:
    name = f"soak{os.getpid()}.{next(_numbers)}"
    address = {"type": "unix", "data": {"path": name, "abstract": True}}

    async def join() -> Peer:
        sock = trio.socket.socket(socket.AF_UNIX)
        await sock.connect(f"\0{name}")
        return Peer(trio.SocketStream(sock))

    return Place("abstract", listening(address), join, takes_another=True, is_socket=True)


def unix_client(site: Site) -> Place:
    path = site.path()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(100)
    listener.setblocking(False)

    async def join() -> Peer:
        accepted, _ = listener.accept()  # at once, as it connected before it was in place
        with contextlib.suppress(BlockingIOError):
            while True:  # earlier attempts failed for want of descriptors
                accepted, _ = listener.accept()
        accepted.setblocking(False)
        return Peer(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)))

    address = {"type": "unix", "data": {"path": str(path)}}
    client = backend("socket", addr=address, server=False)
    return Place("unix client", client, join, clean_up=listener.close)


def tcp_server(site: Site) -> Place:
    async def join() -> Peer:
        return Peer(await trio.open_tcp_stream("127.0.0.1", await site.port()))

    return Place("tcp", listening(INET), join, takes_another=True, is_socket=True, is_tcp=True)


class TelnetPeer(Peer):
    """Speaks as much telnet as bytes need: it agrees to BINARY and answers nothing else."""

    _rest = b""

    async def receive(self) -> bytes:
        while wire := await super().receive():
            if data := self._parse(self._rest + wire):
                return data
        return b""

    def _parse(self, wire: bytes) -> bytes:
        data = bytearray()
        while (at := wire.find(b"\xff")) >= 0:
            data += wire[:at]
            wire = wire[at:]
            if wire[1:2] == b"\xff":
                data.append(0xFF)
                wire = wire[2:]
            elif len(wire) >= 3:  # WILL, WONT, DO, DONT
                wire = wire[3:]
            else:
                break
        else:
            data += wire
            wire = b""
        self._rest = wire
        return bytes(data)

    async def send(self, data: bytes) -> None:
        await super().send(data.replace(b"\xff", b"\xff\xff"))


def telnet(site: Site) -> Place:
    async def join() -> Peer:
        stream = await trio.open_tcp_stream("127.0.0.1", await site.port())
        await stream.send_all(b"\xff\xfb\x00\xff\xfd\x00")  # WILL BINARY, DO BINARY
        return TelnetPeer(stream)

    return Place("telnet", listening(INET, telnet=True), join, takes_another=True, is_tcp=True)


HANDSHAKE_TIME: Final = 5.0  # seconds, for a client that was given up before it has asked all


class ComPortPeer(Peer):
    """Speaks RFC 2217, as the client or the server; a server grants what it is asked for."""

    def __init__(self, stream: trio.abc.Stream, codec: ComPortTelnet) -> None:
        super().__init__(stream)
        self._codec = codec
        self._lock = trio.Lock()
        self._ahead = b""  # came during the handshake
        self._said = b""

    async def learn(self) -> None:
        """Shake hands as a client: go on until it knows the line."""
        await self._say()
        while not self._codec.is_established:
            self._ahead += await self._read() or b""

    async def be_asked(self) -> None:
        """Shake hands as a server: go on until the last of the client's questions is answered."""
        while LAST_ANSWER not in self._said and (data := await self._read()) is not None:
            self._ahead += data

    async def receive(self) -> bytes:
        data, self._ahead = self._ahead, b""
        while not data:
            if (read := await self._read()) is None:
                return b""
            data = read
        return data

    async def _read(self) -> bytes | None:
        """Read once, answer, and return the bytes that came; None at the end."""
        if not (wire := await super().receive()):
            return None
        items = self._codec.receive_data(wire)
        while self._codec.is_behind:
            items += self._codec.decode_more()
        for item in items:
            if isinstance(self._codec.party, ComPortServer) and isinstance(item, LineRequest):
                self._codec.party.acknowledge(item, item)
        await self._say()
        return b"".join(item for item in items if isinstance(item, bytes))

    async def send(self, data: bytes) -> None:
        async with self._lock:
            await super().send(self._codec.encode(data))

    async def _say(self) -> None:
        async with self._lock:
            if wire := self._codec.data_to_send():
                self._said = wire
                with contextlib.suppress(trio.BrokenResourceError):  # it has left: read the rest
                    await super().send(wire)


def rfc2217(site: Site) -> Place:
    async def join() -> Peer:
        stream = await trio.open_tcp_stream("127.0.0.1", await site.port())
        peer = ComPortPeer(stream, com_port_client(Port()))
        await peer.learn()
        return peer

    return Place("rfc2217", listening(INET, rfc2217=True), join, takes_another=True, is_tcp=True)


def rfc2217_client(site: Site) -> Place:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    came: list[ComPortPeer] = []

    async def serve() -> None:
        """Answer whoever comes: an attempt waits for that, and may fail later."""
        with contextlib.suppress(trio.ClosedResourceError, OSError):
            while True:
                await trio.lowlevel.wait_readable(listener)
                accepted, _ = listener.accept()
                accepted.setblocking(False)
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
                peer = ComPortPeer(stream, com_port_server(Port(), b"soak"))
                came.append(peer)
                with trio.move_on_after(HANDSHAKE_TIME):
                    await peer.be_asked()

    async def join() -> Peer:
        return came[-1]

    def clean_up() -> None:
        trio.lowlevel.notify_closing(listener)
        listener.close()

    site.nursery.start_soon(serve)
    port = str(listener.getsockname()[1])
    address = {"type": "inet", "data": {"host": "127.0.0.1", "port": port}}
    client = backend("socket", addr=address, server=False, rfc2217=True)
    return Place("rfc2217 client", client, join, is_tcp=True, clean_up=clean_up)


class WebSocketPeer(Peer):
    """A client of trio-websocket's."""

    def __init__(
        self, connection: trio_websocket.WebSocketConnection, stream: trio.SocketStream
    ) -> None:
        super().__init__(stream)
        self._connection = connection

    async def receive(self) -> bytes:
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed:
            return b""
        assert isinstance(message, bytes)
        return message

    async def send(self, data: bytes) -> None:
        await self._connection.send_message(data)

    async def aclose(self) -> None:
        with trio.move_on_after(1):
            await self._connection.aclose()
        await super().aclose()  # it waits for a Close, which comes behind what nobody reads


async def join_websocket(nursery: trio.Nursery, port: int) -> WebSocketPeer:
    """Connect to a WebSocket server; a task in *nursery* reads from it."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    connection = await trio_websocket.wrap_client_stream(nursery, stream, "127.0.0.1", "/")
    return WebSocketPeer(connection, stream)


def websocket(site: Site) -> Place:
    async def join() -> Peer:
        return await join_websocket(site.nursery, await site.port())

    return Place("websocket", listening(INET, websocket=True), join)


def tls(site: Site) -> Place:
    async def join() -> Peer:
        tcp = await trio.open_tcp_stream("127.0.0.1", await site.port())
        stream = trio.SSLStream(tcp, site.tls, server_hostname="localhost")
        await stream.do_handshake()
        return Peer(stream)

    return Place("tls", listening(INET, **{"tls-creds": "tls"}), join)


class ListeningPeer(Peer):
    """Has shut down its side, and reads what still comes."""

    can_send = False


async def _say_no_more(site: Site, stream: trio.SocketStream) -> Peer:
    """Connect and be noticed, then shut down one side and have that noticed."""
    while (await site.filename()).startswith("disconnected:"):
        pass
    await stream.send_eof()
    while not (await site.filename()).startswith("disconnected:"):
        pass
    return ListeningPeer(stream)


def half_closed_unix(site: Site) -> Place:
    path = site.path()

    async def join() -> Peer:
        return await _say_no_more(site, await trio.open_unix_socket(str(path)))

    address = {"type": "unix", "data": {"path": str(path)}}
    options = listening(address, **LINGERS)
    return Place("half-closed unix", options, join, takes_another=True, sends_no_more=True)


# ---------------------------------------------------------------- descriptors


def pty(site: Site) -> Place:
    link = site.path()

    async def join() -> Peer:
        fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(fd, termios.TCSANOW)
        return Peer(FdStream(fd))

    return Place("pty", backend("pty", path=str(link)), join, takes_another=True)


def serial(site: Site) -> Place:
    """Use a PTY as the line: the service has its slave, the peer its master."""
    master, slave = os.openpty()
    tty.setraw(slave)
    device = os.ttyname(slave)
    stream = FdStream(master)
    held = contextlib.ExitStack()
    held.callback(os.close, slave)

    async def join() -> Peer:
        held.close()  # the service has it, and its hang-up has to be noticed
        return Peer(stream)

    def clean_up() -> None:
        held.close()
        stream.close()

    return Place("serial", backend("serial", device=device), join, clean_up=clean_up)


class PipePeer(Peer):
    """Reads and writes two FIFOs."""

    def __init__(self, source: FdStream, sink: FdStream) -> None:
        super().__init__(source)
        self._sink = sink

    async def send(self, data: bytes) -> None:
        await self._sink.send_all(data)

    async def aclose(self) -> None:
        await self._sink.aclose()
        await super().aclose()


def pipe(site: Site) -> Place:
    path = site.path()
    fifos = [Path(f"{path}.in"), Path(f"{path}.out")]
    for fifo in fifos:
        os.mkfifo(fifo)

    async def join() -> Peer:
        sink = os.open(fifos[0], os.O_WRONLY | os.O_NONBLOCK)
        source = os.open(fifos[1], os.O_RDONLY | os.O_NONBLOCK)
        return PipePeer(FdStream(source), FdStream(sink))

    def clean_up() -> None:
        for fifo in fifos:
            fifo.unlink()

    return Place("pipe", backend("pipe", device=str(path)), join, clean_up=clean_up)


# ---------------------------------------------------------------- what keeps its output


class FilePeer(Peer):
    """Reads the bytes by which a file has grown."""

    can_send = False

    def __init__(self, fd: int) -> None:
        self._fd = fd

    async def receive(self) -> bytes:
        while True:
            is_replaced = self.is_replaced  # looked at before the read, so that nothing follows
            if data := os.read(self._fd, CHUNK):
                await trio.lowlevel.checkpoint()
                return data
            if is_replaced:
                return b""
            await trio.sleep(LOOK_INTERVAL)

    async def aclose(self) -> None:
        os.close(self._fd)
        await trio.lowlevel.checkpoint()


def file(site: Site) -> Place:
    path = site.path()

    async def join() -> Peer:
        return FilePeer(os.open(path, os.O_RDONLY))

    def clean_up() -> None:
        path.unlink(missing_ok=True)

    return Place("file", backend("file", out=str(path)), join, clean_up=clean_up)


class RingPeer(Peer):
    """Uses ringbuf-read; bytes left in a replaced ring are gone."""

    can_send = False

    def __init__(self, site: Site) -> None:
        self._site = site

    async def receive(self) -> bytes:
        arguments = {"device": self._site.id, "size": CHUNK, "format": "base64"}
        while not self.is_replaced:
            try:
                text = await self._site.qmp.execute("ringbuf-read", arguments)
            except QmpError:  # it has just become another kind
                break
            if text:
                return base64.b64decode(text)
            await trio.sleep(LOOK_INTERVAL)
        return b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def ring(site: Site) -> Place:
    async def join() -> Peer:
        return RingPeer(site)

    return Place("ringbuf", backend("ringbuf", size=RING_SIZE), join, keeps=False)


PlaceMaker = Callable[[Site], Place]

PLACES: Final[tuple[PlaceMaker, ...]] = (
    *(unix_server, abstract_server, unix_client, tcp_server, telnet, rfc2217, rfc2217_client),
    *(websocket, tls),
    *(pty, serial, pipe, file, ring),
)
"""Places whose peers send as long as they are there."""

HALF_CLOSED: Final[tuple[PlaceMaker, ...]] = (half_closed_unix,)
