"""A place for each kind of backend: options with which it opens, and a peer at the other end.

All use real descriptors. A place is made in a folder of its own and is gone with its block.
"""

from __future__ import annotations

import os
import secrets
import socket
import termios
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from pathlib import Path

import attrs
import trio
import trio.testing
from trio.lowlevel import FdStream

from trio_chardev.backends.console.client import Newcomer
from trio_chardev.backends.console.console import ConsoleBackend
from trio_chardev.backends.console.options import ConsoleOptions, Manner
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pipe import PipeOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.replay import ReplayOptions
from trio_chardev.backends.ringbuf.ringbuf import MemoryOptions, RingbufBackend, RingbufOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.socket.addresses import (
    FdAddress,
    InetAddress,
    SocketAddress,
    UnixAddress,
)
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.backends.socket.stack import plain_link
from trio_chardev.backends.stacked.bases import BackendOnBases
from trio_chardev.backends.stacked.hub import HubOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.backends.stdio import StdioOptions, open_stdio
from trio_chardev.backends.table import opener_of
from trio_chardev.backends.udp import UdpBackend, UdpOptions
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.environment import Files, number_as_fd
from trio_chardev.core.users import Users
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.asciicast import header
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import Join
from trio_chardev.testing.pair import receive_some

OFLAG = 1  # the index in what tcgetattr() gives
SMALL_BUFFER = 4096  # bytes, so that a sender is soon stuck


@attrs.frozen(kw_only=True)
class Place:
    options: BackendOptions
    folder: str = ""
    """The folder of its files."""

    join: Join | None = None
    blocks: bool = False
    closes: bool = False
    keeps: bool = True
    fds: tuple[int, int] = (0, 1)
    """Standard input and output, for a stdio backend."""

    take_fd: Callable[[str], int] = number_as_fd
    bases: Mapping[str, BackendOptions] = attrs.Factory(dict)
    """The chardevs that it stands on, by id; to be added first."""

    def open(self, request: OpenRequest) -> AbstractAsyncContextManager[Backend]:
        """Open the backend; this also adds the bases, and removes them."""
        if self.bases:
            return self._open_on_bases(request)
        if isinstance(self.options, StdioOptions):
            return open_stdio(self.options, request, self.fds)
        return opener_of(self.options)(attrs.evolve(request, files=Files(take_fd=self.take_fd)))

    @asynccontextmanager
    async def _open_on_bases(self, request: OpenRequest) -> AsyncIterator[Backend]:
        async with open_registry_with(opener_of) as registry:
            await self.add_bases(registry)
            more = attrs.evolve(request, environment=registry.environment, users=Users())
            async with opener_of(self.options)(more) as backend:
                yield backend

    async def add_bases(self, registry: Registry) -> None:
        """Add what it stands on."""
        for id, options in self.bases.items():
            await registry.add(id, options)


# ---------------------------------------------------------------- peers


class Sender(trio.abc.SendStream):
    """A descriptor that is only written to."""

    def __init__(self, fd: int) -> None:
        self._stream = FdStream(fd)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Receiver(trio.abc.ReceiveStream):
    """A descriptor that is only read from."""

    def __init__(self, fd: int) -> None:
        self._stream = FdStream(fd)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Follower(Receiver):
    """A regular file, read as by ``tail -f``, as a thread writes it a little later."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with trio.fail_after(5):
            while not (data := await super().receive_some(max_bytes)):  # noqa: ASYNC110
                await trio.sleep(0.001)
        return data


class Listening(trio.abc.ReceiveStream):
    """A socket that is only read from."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._stream.aclose()


class RingReader(trio.abc.ReceiveStream):
    """A client of ringbuf-read."""

    def __init__(self, backend: Backend) -> None:
        assert isinstance(backend, RingbufBackend)
        self._backend = backend

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._backend.read(max_bytes or self._backend.count)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class UdpPeer(trio.abc.Stream):
    """Sends to one address, and receives from all."""

    def __init__(self, sock: socket.socket, there: tuple[str, int]) -> None:
        sock.setblocking(False)
        self._sock = trio.socket.from_stdlib_socket(sock)
        self._there = there

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._sock.sendto(data, self._there)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self._sock.recv(max_bytes or 1 << 16)

    async def aclose(self) -> None:
        self._sock.close()
        await trio.lowlevel.checkpoint()


def socket_stream(sock: socket.socket) -> trio.SocketStream:
    sock.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def connect_to(backend: Backend) -> trio.SocketStream:
    """Connect to a socket server."""
    assert isinstance(backend, SocketBackend)
    return socket_stream(dial(backend.address))


def dial(address: SocketAddress) -> socket.socket:
    """Return a client of the server at *address*, which may wait in its queue."""
    family = socket.AF_INET if isinstance(address, InetAddress) else socket.AF_UNIX
    client = socket.socket(family)
    client.settimeout(5)
    # Before connecting, as that is when TCP tells the other side.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    try:
        if isinstance(address, InetAddress):
            client.connect((address.host, int(address.port)))
        else:
            assert isinstance(address, UnixAddress)
            client.connect(f"\0{address.path}" if address.abstract else address.path)
    except BaseException:
        client.close()
        raise
    return client


def at_once(make_peer: Callable[[Backend], trio.abc.AsyncResource]) -> Join:
    """Make a `Join` for a peer that can come without waiting."""

    async def join(backend: Backend) -> trio.abc.AsyncResource:
        await trio.lowlevel.checkpoint()
        return make_peer(backend)

    return join


@contextmanager
def closing_fds(*fds: int) -> Iterator[None]:
    try:
        yield
    finally:
        for fd in fds:
            os.close(fd)


# ---------------------------------------------------------------- places


@contextmanager
def null(folder: Path) -> Iterator[Place]:
    yield Place(options=NullOptions())


@contextmanager
def ringbuf(folder: Path) -> Iterator[Place]:
    yield Place(options=RingbufOptions(size=1 << 20), join=at_once(RingReader))


@contextmanager
def memory(folder: Path) -> Iterator[Place]:
    yield Place(options=MemoryOptions(), join=at_once(RingReader))


PROGRAM = Manner(is_terminal=False)


def come_by_descriptor(backend: Backend, manner: Manner = PROGRAM) -> trio.SocketStream:
    """Become a client of a console, as chardev-attach makes one."""
    assert isinstance(backend, ConsoleBackend)
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    link = plain_link(theirs, "fd:x")
    backend.admit(Newcomer(link=link, who="somebody", manner=manner))
    return socket_stream(ours)


@contextmanager
def console(folder: Path) -> Iterator[Place]:
    yield Place(options=ConsoleOptions(history=1 << 22), join=at_once(come_by_descriptor))


@contextmanager
def replay(folder: Path) -> Iterator[Place]:
    """Replay a recording whose first bytes come after thirty years."""
    path = folder / "recording"
    path.write_bytes(header("", 0) + b'[1e9, "o", "late"]\n')
    yield Place(options=ReplayOptions(path=str(path)))


@contextmanager
def file(folder: Path) -> Iterator[Place]:
    out = folder / "out"
    out.touch()  # a file that opening has made stays when a change fails, as others may use it

    def read_it(backend: Backend) -> Receiver:
        return Follower(os.open(out, os.O_RDONLY))

    yield Place(options=FileOptions(out=str(out)), join=at_once(read_it))


@contextmanager
def file_with_input(folder: Path) -> Iterator[Place]:
    """A file whose input has ended before anybody comes."""
    (folder / "in").touch()
    with file(folder) as place:
        assert isinstance(place.options, FileOptions)
        yield attrs.evolve(place, options=attrs.evolve(place.options, in_=str(folder / "in")))


@contextmanager
def file_with_fifo(folder: Path) -> Iterator[Place]:
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    with file(folder) as place:
        assert isinstance(place.options, FileOptions)

        def join(backend: Backend) -> trio.abc.AsyncResource:
            sender = Sender(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
            return trio.StapledStream(sender, Follower(os.open(folder / "out", os.O_RDONLY)))

        yield attrs.evolve(
            place, options=attrs.evolve(place.options, in_=str(fifo)), join=at_once(join)
        )


@contextmanager
def pipe(folder: Path) -> Iterator[Place]:
    device = folder / "p"
    os.mkfifo(f"{device}.in")
    os.mkfifo(f"{device}.out")

    def join(backend: Backend) -> trio.abc.AsyncResource:
        sender = Sender(os.open(f"{device}.in", os.O_WRONLY | os.O_NONBLOCK))
        receiver = Receiver(os.open(f"{device}.out", os.O_RDONLY | os.O_NONBLOCK))
        return trio.StapledStream(sender, receiver)

    yield Place(options=PipeOptions(device=str(device)), join=at_once(join), blocks=True)


@contextmanager
def pty(folder: Path) -> Iterator[Place]:
    def join(backend: Backend) -> FdStream:
        assert backend.pty is not None
        return FdStream(os.open(backend.pty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))

    options = PtyOptions(path=str(folder / "link"))
    yield Place(options=options, join=at_once(join), blocks=True, closes=True)


@contextmanager
def serial(folder: Path) -> Iterator[Place]:
    """A line whose other end is a PTY's master."""
    master, line = os.openpty()
    options = SerialOptions(path=os.ttyname(line))
    with closing_fds(line):
        yield from _with_master(master, Place(options=options))


@contextmanager
def stdio_terminal(folder: Path) -> Iterator[Place]:
    master, terminal = os.openpty()
    modes = termios.tcgetattr(terminal)
    modes[OFLAG] = 0  # else the terminal makes CR LF of LF
    termios.tcsetattr(terminal, termios.TCSANOW, modes)
    options = StdioOptions(signal=False)  # else ^C is no byte like others
    with closing_fds(terminal):
        yield from _with_master(master, Place(options=options, fds=(terminal, terminal)))


@contextmanager
def stdio_pipes(folder: Path) -> Iterator[Place]:
    stdin, feed = os.pipe()
    show, stdout = os.pipe()
    with closing_fds(stdin, stdout):
        sender, receiver = Sender(feed), Receiver(show)
        peer = trio.StapledStream(sender, receiver)
        place = Place(options=StdioOptions(), blocks=True, closes=True, fds=(stdin, stdout))
        try:
            yield attrs.evolve(place, join=at_once(lambda _: peer))
        finally:
            sender.close()
            receiver.close()


def _with_master(master: int, place: Place) -> Iterator[Place]:
    """Give *place* with a peer on a PTY's master, whose closing hangs the line up."""
    peer = FdStream(master)
    try:
        yield attrs.evolve(
            place, join=at_once(lambda _: peer), blocks=True, closes=True, keeps=False
        )
    finally:
        peer.close()


@contextmanager
def udp(folder: Path) -> Iterator[Place]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))

        def join(backend: Backend) -> UdpPeer:
            assert isinstance(backend, UdpBackend)
            return UdpPeer(sock.dup(), backend._sock.getsockname())

        host, port = sock.getsockname()
        yield Place(options=UdpOptions(remote=InetAddress(host, str(port))), join=at_once(join))


@contextmanager
def mux(folder: Path) -> Iterator[Place]:
    """A mux on a socket server. Its input does not come by receive_some, so the peer sends none."""
    id = new_id()
    yield Place(
        options=MuxOptions(chardev=id),
        bases={id: SocketOptions(addr=UnixAddress(str(folder / "base")))},
        join=at_once(lambda backend: Listening(connect_to_base(backend))),
        blocks=True,
        closes=True,
    )


@contextmanager
def hub(folder: Path) -> Iterator[Place]:
    """A hub on a socket server, and on another one that nobody comes to."""
    ids = new_id(), new_id()
    yield Place(
        options=HubOptions(chardevs=ids),
        bases={id: SocketOptions(addr=UnixAddress(str(folder / id))) for id in ids},
        join=come_to_base,
        blocks=True,
        closes=True,
    )


@contextmanager
def hub_with_ringbuf(folder: Path) -> Iterator[Place]:
    """A hub with a ring, which is always open and never slow."""
    with hub(folder) as place:
        id = list(place.bases)[1]
        bases = {**place.bases, id: RingbufOptions(size=1 << 20)}
        yield attrs.evolve(place, bases=bases, closes=False)


def new_id() -> str:
    return f"base-{secrets.token_hex(4)}"


def connect_to_base(backend: Backend) -> trio.SocketStream:
    """Connect to the socket server that is *backend*'s first base."""
    assert isinstance(backend, BackendOnBases)
    return connect_to(backend.on_bases[0].chardev.backend)


async def come_to_base(backend: Backend) -> trio.SocketStream:
    """Do `connect_to_base`, and be noticed: a backend on several may have been open before."""
    assert isinstance(backend, BackendOnBases)
    peer = connect_to_base(backend)
    with trio.fail_after(5):
        while not backend.on_bases[0].is_open:  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.001)
    return peer


def _server(options: SocketOptions) -> Place:
    return Place(options=options, join=at_once(connect_to), blocks=True, closes=True)


@contextmanager
def unix(folder: Path) -> Iterator[Place]:
    yield _server(SocketOptions(addr=UnixAddress(str(folder / "socket"))))


@contextmanager
def tcp(folder: Path) -> Iterator[Place]:
    yield _server(SocketOptions(addr=InetAddress("127.0.0.1", "0")))


@contextmanager
def abstract(folder: Path) -> Iterator[Place]:
    name = f"trio-chardev-{secrets.token_hex(8)}"
    yield _server(SocketOptions(addr=UnixAddress(name, abstract=True)))


@contextmanager
def passed_server(folder: Path) -> Iterator[Place]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "passed"))
        sock.listen()
        place = _server(SocketOptions(addr=FdAddress("passed")))
        yield attrs.evolve(place, take_fd=lambda name: os.dup(sock.fileno()))


@contextmanager
def passed_client(folder: Path) -> Iterator[Place]:
    ours, theirs = socket.socketpair()
    with theirs, ours:
        yield Place(
            options=SocketOptions(addr=FdAddress("passed"), server=False),
            join=at_once(lambda _: socket_stream(theirs)),
            blocks=True,
            closes=True,
            take_fd=lambda name: os.dup(ours.fileno()),
        )


def _client(family: int, folder: Path, reconnect_ms: int | None) -> Iterator[Place]:
    with socket.socket(family) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        address: SocketAddress
        if family == socket.AF_UNIX:
            server.bind(path := str(folder / "server"))
            address = UnixAddress(path)
        else:
            server.bind(("127.0.0.1", 0))
            address = InetAddress("127.0.0.1", str(server.getsockname()[1]))
        server.listen()
        server.setblocking(False)

        async def join(backend: Backend) -> trio.SocketStream:
            assert isinstance(backend, SocketBackend)
            if not backend.is_open:  # the reader connects
                async with trio.open_nursery() as nursery:
                    if backend._users is None:  # no chardev reads it
                        nursery.start_soon(receive_some, backend, 1)
                    await trio.lowlevel.wait_readable(server)
                    nursery.cancel_scope.cancel()
            return socket_stream(server.accept()[0])

        options = SocketOptions(addr=address, server=False, reconnect_ms=reconnect_ms)
        yield Place(options=options, join=join, blocks=True, closes=True)


@contextmanager
def unix_client(folder: Path) -> Iterator[Place]:
    yield from _client(socket.AF_UNIX, folder, None)


@contextmanager
def tcp_client(folder: Path) -> Iterator[Place]:
    yield from _client(socket.AF_INET, folder, None)


@contextmanager
def redialing_client(folder: Path) -> Iterator[Place]:
    yield from _client(socket.AF_UNIX, folder, 60_000)


MAKERS: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "mux": mux,
    "hub": hub,
    "hub-with-ringbuf": hub_with_ringbuf,
    "null": null,
    "ringbuf": ringbuf,
    "memory": memory,
    "console": console,
    "replay": replay,
    "file": file,
    "file-with-input": file_with_input,
    "file-with-fifo": file_with_fifo,
    "pipe": pipe,
    "pty": pty,
    "serial": serial,
    "stdio-terminal": stdio_terminal,
    "stdio-pipes": stdio_pipes,
    "udp": udp,
    "socket-unix": unix,
    "socket-tcp": tcp,
    "socket-abstract": abstract,
    "socket-fd": passed_server,
    "socket-fd-client": passed_client,
    "socket-unix-client": unix_client,
    "socket-tcp-client": tcp_client,
    "socket-redialing": redialing_client,
}
"""The makers by name; a name begins with the kind's."""


@contextmanager
def place_for(name: str, folder: Path) -> Iterator[Place]:
    """Make the place *name*, in a folder of its own within *folder*."""
    own = folder / secrets.token_hex(3)  # short, as a UNIX socket's path in it has 107 bytes
    own.mkdir()
    with MAKERS[name](own) as place:
        yield attrs.evolve(place, folder=str(own))
