"""The kinds of backend that can carry a sequence of bytes, each with a peer, for the matrix.

A `Lane` is one of them in a registry: its options, the chardevs that it stands on, its peer.
What its peer receives and sends is numbered, so that a missing or additional byte shows where
it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from tests.certificates import server_credentials
from tests.links import CodecPeer, come_by_tls, come_to
from tests.places import RingReader, at_once, come_by_descriptor, connect_to, place_for
from trio_chardev.backends.console.options import ConsoleOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked.hub import HubOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.core.backend import Backend
from trio_chardev.core.frontend import Frontend
from trio_chardev.devices.listener import ListenerOptions
from trio_chardev.errors import BackendDisconnectedError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.com_port import Port
from trio_chardev.protocols.com_port_telnet import com_port_client
from trio_chardev.protocols.telnet import telnet_connection
from trio_chardev.protocols.websocket import websocket_connection
from trio_chardev.registry import Registry

PIECE = 4000  # bytes
BREATH = 0.001  # seconds between looks at what does not report its changes
PACED_FROM = 600_000  # bytes, after which a sender that is not stuck slows down
SLOW_SIZE = 4000  # bytes that a slow reader takes at a time
STREAM = b"".join(b"%07d\n" % i for i in range(400_000))
OTHER_STREAM = b"".join(b"%07x~" % i for i in range(10_000))

HISTORY = ConsoleOptions(history=1 << 22)
"""All that is printed is there for who comes late, or is slow."""

SPEEDS = ("fast", "slow", "none")
"""How the old backend's peer receives, or the frontend reads; none: not before the change."""


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until *condition* holds, which nothing reports."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(BREATH)


Come = Callable[[Backend], Awaitable[trio.abc.AsyncResource]]


@attrs.frozen(kw_only=True)
class Lane:
    """One kind of backend, with its peer."""

    kind: str
    options: BackendOptions
    come: Come
    bases: Mapping[str, BackendOptions] = attrs.field(factory=dict)
    """The chardevs that it stands on; the peer comes to the first."""

    keeps: bool = True
    """Can the peer receive later what it has not received when the backend is closed?"""

    is_polled: bool = False
    """Does the peer have to poll, as nothing reports that there is more?"""

    answers: bool = False
    """Does the peer learn that it is left, and does what it has sent until then arrive?"""

    async def prepare(self, registry: Registry) -> None:
        """Add what it stands on."""
        for id, options in self.bases.items():
            await registry.add(id, options)

    async def meet(self, registry: Registry) -> trio.abc.AsyncResource:
        """Let the peer come; the backend is in place."""
        chardev = registry[next(iter(self.bases), "c")]
        with trio.fail_after(5):
            peer = await self.come(chardev.backend)
            await eventually(lambda: registry["c"].is_open)
        return peer


Make = Callable[[Path, Registry], Iterator[Lane]]


class RingPeer(RingReader):
    """A client of ringbuf-read, which ends with the change."""

    def __init__(self, registry: Registry) -> None:
        backend = registry["c"].backend
        super().__init__(backend)
        self._registry = registry

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._registry["c"].backend is not self._backend:
            raise trio.ClosedResourceError
        return self._backend.read(max_bytes or self._backend.count)


def _at(name: str, *, keeps: bool = True, is_polled: bool = False, answers: bool = False) -> Make:
    """Make a lane of a kind that `tests.places` has."""

    def make(folder: Path, registry: Registry) -> Iterator[Lane]:
        with place_for(name, folder) as place:
            assert place.join is not None
            yield Lane(
                kind=name,
                options=place.options,
                come=place.join,
                keeps=keeps,
                is_polled=is_polled,
                answers=answers,
            )

    return make


def _speaking(come: Come, **options: object) -> Make:
    """Make a lane of a protocol on a UNIX socket."""

    def make(folder: Path, registry: Registry) -> Iterator[Lane]:
        address = UnixAddress(str(folder / "socket"))
        yield Lane(
            kind="socket",
            options=SocketOptions(addr=address, **options),  # type: ignore[arg-type]
            come=come,
            answers=True,
        )

    return make


def _ringbuf(folder: Path, registry: Registry) -> Iterator[Lane]:
    async def come(backend: Backend) -> trio.abc.AsyncResource:
        await trio.lowlevel.checkpoint()
        return RingPeer(registry)

    options = RingbufOptions(size=1 << 22)
    yield Lane(kind="ringbuf", options=options, come=come, is_polled=True)


async def _connect(backend: Backend) -> trio.abc.AsyncResource:
    await trio.lowlevel.checkpoint()
    return connect_to(backend)


def _mux(folder: Path, registry: Registry) -> Iterator[Lane]:
    id = folder.name
    base = SocketOptions(addr=UnixAddress(str(folder / "base")))
    yield Lane(kind="mux", options=MuxOptions(chardev=id), come=_connect, bases={id: base})


def _hub(folder: Path, registry: Registry) -> Iterator[Lane]:
    """Make a hub with another member, to which nobody comes."""
    ids = folder.name, f"{folder.name}-2"
    bases = {id: SocketOptions(addr=UnixAddress(str(folder / id))) for id in ids}
    yield Lane(kind="hub", options=HubOptions(chardevs=ids), come=_connect, bases=bases)


def _console(**options: object) -> Make:
    """Make a lane of a console with a listener, by which the peer comes."""

    def make(folder: Path, registry: Registry) -> Iterator[Lane]:
        path = str(folder / "socket")
        listener = ListenerOptions(id="l", console="c", path=path, **options)  # type: ignore[arg-type]

        async def come(backend: Backend) -> trio.abc.AsyncResource:
            if "l" not in registry.devices:
                await registry.devices.open(listener)
            stream = await trio.open_unix_socket(path)
            if not options:
                return stream
            peer = CodecPeer(stream, telnet_connection(is_server=False, tn3270=False))
            await peer.begin()
            return peer

        yield Lane(kind="console", options=HISTORY, come=come, keeps=False, answers=True)

    return make


def _console_by_descriptor(folder: Path, registry: Registry) -> Iterator[Lane]:
    """Make a lane of a console whose client is a socket that was given to it."""
    come = at_once(come_by_descriptor)
    yield Lane(kind="console", options=HISTORY, come=come, keeps=False, answers=True)


async def _come_by_telnet(backend: Backend) -> trio.abc.AsyncResource:
    return await come_to(backend, telnet_connection(is_server=False, tn3270=False))


async def _come_by_rfc2217(backend: Backend) -> trio.abc.AsyncResource:
    return await come_to(backend, com_port_client(Port()))


async def _come_by_websocket(backend: Backend) -> trio.abc.AsyncResource:
    return await come_to(
        backend, websocket_connection(is_server=False, host="h", binary_only=False)
    )


KINDS: dict[str, Make] = {
    "unix": _at("socket-unix", answers=True),
    "tcp": _at("socket-tcp", answers=True),
    "telnet": _speaking(_come_by_telnet, telnet=True),
    "rfc2217": _speaking(_come_by_rfc2217, rfc2217=True),
    "websocket": _speaking(_come_by_websocket, websocket=True),
    "tls": _speaking(come_by_tls, tls_creds="server"),
    "pty": _at("pty", keeps=False),
    "pipe": _at("pipe"),
    "file": _at("file-with-fifo", is_polled=True),
    "ringbuf": _ringbuf,
    "serial": _at("serial"),
    "mux": _mux,
    "hub": _hub,
    "console": _console(),
    "console-telnet": _console(telnet=True, in_band=False),
    "console-fd": _console_by_descriptor,
}


@contextmanager
def lane_for(kind: str, folder: Path, registry: Registry) -> Iterator[Lane]:
    """Make a lane in *folder*, which is made; the registry gets the credentials for TLS."""
    folder.mkdir()
    if kind == "tls" and "server" not in registry.objects:
        registry.objects["server"] = server_credentials(folder / "credentials")
    yield from KINDS[kind](folder, registry)


# ---------------------------------------------------------------- writers and readers


@attrs.define
class Source:
    """Sends pieces of *stream* until it is told to stop, or has no more."""

    stream: bytes
    sent: int = 0
    is_over: bool = False
    has_ended: bool = False

    async def write(self, frontend: Frontend) -> None:
        """Write as the chardev's user, whether somebody is there or not."""
        while not self.is_over:
            if self.sent > PACED_FROM:
                await trio.sleep(BREATH)
            rest = memoryview(self._next(PIECE))
            assert rest, "the stream is too short"
            while rest:
                try:
                    count = await frontend.send_some(rest)
                except BackendDisconnectedError:
                    await trio.sleep(BREATH)
                    continue
                self.sent += count
                rest = rest[count:]
        self.has_ended = True

    async def feed(self, peer: trio.abc.AsyncResource, *, leaves: bool = False) -> None:
        """Send as a peer, until it is disconnected; with *leaves* it leaves at the end."""
        if not isinstance(peer, trio.abc.SendStream):
            return
        try:
            while not self.is_over and (piece := self._next(PIECE // 4)):
                await peer.send_all(piece)
                self.sent += len(piece)
                await trio.lowlevel.checkpoint()
            if leaves:
                await peer.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def _next(self, size: int) -> bytes:
        return self.stream[self.sent : self.sent + size]

    async def get_going(self, size: int) -> None:
        """Wait until it has sent *size* bytes, or is stuck."""
        with trio.fail_after(5):
            before = -1
            while before != self.sent < size:
                before = self.sent
                await trio.sleep(2 * BREATH)


async def collect(
    peer: trio.abc.AsyncResource,
    got: bytearray,
    lane: Lane,
    *,
    is_slow: Callable[[], bool] = lambda: False,
) -> None:
    """Receive what comes, until the other end disconnects."""
    assert isinstance(peer, trio.abc.ReceiveStream)
    try:
        while True:
            data = await peer.receive_some(SLOW_SIZE if is_slow() else None)
            got += data
            if not (data or lane.is_polled):
                return
            if is_slow() or not data:
                await trio.sleep(BREATH)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
