"""What is sent to each kind of chardev: units that cost work and give little or nothing."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import attrs

from tests.certificates import server_certificate, write_folder
from tests.hostile.peers import (
    Answering,
    Caller,
    Datagrams,
    Opener,
    Peer,
    Records,
    Rights,
    Stream,
    Talker,
    Writer,
    accept_websocket,
    dial,
    dial_by_tls,
    open_websocket,
)
from tests.protocols.websocket_wire import BINARY, CONTINUATION, PING, PONG, TEXT, frame
from trio_chardev.access.tls_creds import TlsCredsX509
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.replay import ReplayOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.socket.addresses import InetAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.stacked.hub import HubOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.backends.udp import UdpOptions
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.asciicast import header

Come = Callable[[], Peer]
LINES: Final = 100_000  # of a recording
QMP_SOCKET: Final = "qmp.sock"  # the name at which the service listens

TELNET: Final = {
    "NOP": b"\xff\xf1",
    "break": b"\xff\xf3",
    "are you there": b"\xff\xf6",
    "WILL": b"\xff\xfb\x1f",
    "DO": b"\xff\xfd\x00\xff\xfe\x00",
    "subnegotiation": b"\xff\xfa\x18\xff\xf0",
    "windows": b"\xff\xfb\x1f\xff\xfa\x1f\0P\0\x18\xff\xf0\xff\xfa\x1f\0\x84\0+\xff\xf0",
    "escaped": b"\xff\xff",
    "bytes between": b"x\xff\xf1",
    "breaks between": b"x\xff\xf3",
}
WEBSOCKET: Final = {
    "empty message": [(BINARY, b"")],
    "empty text": [(TEXT, b"")],
    "ping": [(PING, b"")],
    "pong": [(PONG, b"")],
    "large ping": [(PING, bytes(125))],
    "byte": [(BINARY, b"x")],
}
MUX: Final = {
    "help": b"\x01h",
    "switch": b"\x01c",
    "break": b"\x01b",
    "escape": b"\x01\x01",
    "time stamps": b"\x01t",
    "save": b"\x01s",
    "quit": b"\x01x",
}
QMP: Final = {
    "blank": b" ",
    "lines": b"\r\n",
    "brace": b"}",
    "bracket": b"]",
    "open": b"[",
    "object": b"{}",
    "array": b"[]",
    "number": b"1 ",
    "list": b"1,",
    "string": b'""',
    "FF": b"\xff",
    "no UTF-8": b"\xc3",
    "command": b'{"execute":"query-version"}',
    "unknown": b'{"execute":"x"}\n',
    "slow": b'{"execute":"chardev-remove","arguments":{"id":"x"}}',
    "slow, then arrays": b'{"execute":"chardev-remove","arguments":{"id":"x"}}' + b"[]" * 500,
    "slow, then objects": b'{"execute":"chardev-remove","arguments":{"id":"x"}}' + b"{}" * 500,
    "array without end": b"1," * 500 + b"[" + b"1," * 500 + b"\xff",
    "long and escaped": b"'" + rb"\n" * 8_000 + b"'",
    "long and wrong": b'"' + b"\x80" * 16_000 + b"\x01",
    "accents": b'{"id":"' + "é".encode() * 8_000 + b'"}',
    "long id": b'{"execute":"query-version","id":[' + b"1.5," * 20_000 + b"1]}",
    "long name": b'{"execute":"' + "é".encode() * 500_000 + b'"}',
    "long host": b'{"execute":"chardev-add","arguments":{"id":"x","backend":{"type":"socket","data":'
    b'{"server":false,"addr":{"type":"inet","data":{"port":"1","host":"%b"}}}}}}'
    % ("é".encode() * 500_000),
    "long list": b'{"execute":"query-version","arguments":{"x":[' + b"[]," * 20_000 + b"1]}}",
    "many members": b"{%b}" % b",".join(b'"%d":0' % n for n in range(12_000)),
    "too long": b'{"execute":"' + b"x" * (1 << 20) + b'"}',
    "much to tell": b'{"execute":"query-qmp-schema"}',
    "oob": b'{"exec-oob":"query-yank"}',
}
NEGOTIATE: Final = b'{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}'


@attrs.frozen(kw_only=True)
class Place:
    """A chardev that is to be flooded, and how."""

    options: BackendOptions
    come: Come
    """Makes the peer; called in a thread, when the chardev is there, or is about to be."""

    bases: Mapping[str, BackendOptions] = attrs.field(factory=dict)
    """Chardevs to be added first."""

    creds: TlsCredsX509 | None = None
    is_open: bool = True
    """Does it open when the peer has come?"""


Make = Callable[[Path], Place]


def _server(
    folder: Path, come: Callable[[Path], Peer], *, is_open: bool = True, **options: Any
) -> Place:
    path = folder / "flooded"
    address = UnixAddress(str(path))
    return Place(
        options=SocketOptions(addr=address, server=True, wait=False, **options),
        come=partial(come, path),
        is_open=is_open,
    )


def _telnet(unit: bytes) -> Make:
    return partial(_server, come=lambda path: Stream(dial(path), unit), telnet=True)


def _websocket(unit: bytes, first: bytes = b"") -> Make:
    def come(path: Path) -> Peer:
        return Stream(open_websocket(dial(path)), unit, first)

    return partial(_server, come=come, websocket=True)


def _client(come: Callable[[socket.socket], Peer], **options: Any) -> Make:
    """Make a chardev that is a client."""

    def make(folder: Path) -> Place:
        path = folder / "server"
        answering = Answering(path)
        address = UnixAddress(str(path))
        return Place(
            options=SocketOptions(addr=address, server=False, **options),
            come=lambda: come(answering.accept()),
        )

    return make


def _tls(come: Callable[[Path], Peer], **options: bool) -> Make:
    def make(folder: Path) -> Place:
        creds = TlsCredsX509(
            id="creds",
            dir=write_folder(folder / "pki", server=server_certificate()),
            endpoint="server",
            verify_peer=False,
        )
        return attrs.evolve(_server(folder, come, tls_creds="creds", **options), creds=creds)

    return make


def _udp(unit: bytes) -> Make:
    def make(folder: Path) -> Place:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def come() -> Peer:
            sock.connect(("127.0.0.1", port))
            return Datagrams(sock, unit)

        return Place(
            options=UdpOptions(
                remote=InetAddress("127.0.0.1", str(sock.getsockname()[1])),
                local=InetAddress("127.0.0.1", str(port)),
            ),
            come=come,
        )

    return make


def _pty(come: Callable[[str], Peer], *, is_open: bool = True) -> Make:
    def make(folder: Path) -> Place:
        path = str(folder / "pty")
        return Place(options=PtyOptions(path=path), come=partial(come, path), is_open=is_open)

    return make


def _serial(unit: bytes) -> Make:
    """Make a serial line that is a PTY."""

    def make(folder: Path) -> Place:
        master, slave = os.openpty()
        device = os.ttyname(slave)

        def come() -> Peer:
            os.close(slave)
            return Writer(master, unit)

        return Place(options=SerialOptions(path=device), come=come)

    return make


def _mux(unit: bytes) -> Make:
    def make(folder: Path) -> Place:
        base = _server(folder, lambda path: Stream(dial(path), unit))
        return Place(
            options=MuxOptions(chardev="base"), bases={"base": base.options}, come=base.come
        )

    return make


def _qmp(unit: bytes) -> Make:
    """Make a client of the QMP listener; the chardev is not used."""

    def make(folder: Path) -> Place:
        return Place(
            options=NullOptions(),
            come=lambda: Talker(dial(folder / QMP_SOCKET), unit, NEGOTIATE),
        )

    return make


def _hub(unit: bytes) -> Make:
    def make(folder: Path) -> Place:
        base = _telnet(unit)(folder)
        return Place(
            options=HubOptions(chardevs=("base",)), bases={"base": base.options}, come=base.come
        )

    return make


class _Recording(Peer):
    """A recording, which has everything from the beginning."""

    def fileno(self) -> int:
        return -1

    def send(self) -> int:
        raise BlockingIOError

    def close(self) -> None:
        pass


def _replay(line: list[object]) -> Make:
    def make(folder: Path) -> Place:
        path = folder / "recording"
        path.write_bytes(header("flood", 0) + (json.dumps(line) + "\n").encode() * LINES)
        options = ReplayOptions(path=str(path), speed="max", loop=True)
        return Place(options=options, come=_Recording)

    return make


def _frames(frames: list[tuple[int, bytes]], mask: bytes = b"mask") -> bytes:
    return b"".join(frame(opcode, payload, mask=mask) for opcode, payload in frames)


QMP_FLOODS: Final[Mapping[str, Make]] = {f"qmp: {name}": _qmp(unit) for name, unit in QMP.items()}
FLOODS: Final[Mapping[str, Make]] = {
    **{f"telnet: {name}": _telnet(unit) for name, unit in TELNET.items()},
    **{
        f"telnet client: {name}": _client(lambda sock, unit=unit: Stream(sock, unit), telnet=True)  # type: ignore[misc]
        for name, unit in TELNET.items()
    },
    **{f"websocket: {name}": _websocket(_frames(unit)) for name, unit in WEBSOCKET.items()},
    "websocket: empty fragment": _websocket(frame(CONTINUATION, fin=0), first=frame(BINARY, fin=0)),
    **{
        f"websocket client: {name}": _client(
            lambda sock, unit=unit: Stream(accept_websocket(sock), _frames(unit, mask=b"")),  # type: ignore[misc]
            websocket=True,
        )
        for name, unit in WEBSOCKET.items()
    },
    "tls: byte": _tls(lambda path: Records(dial_by_tls(path), b"x")),
    "tls: telnet NOP": _tls(lambda path: Stream(dial_by_tls(path), b"\xff\xf1"), telnet=True),
    "tls: websocket ping": _tls(
        lambda path: Records(
            cast("ssl.SSLSocket", open_websocket(dial_by_tls(path))),
            frame(PING),
        ),
        websocket=True,
    ),
    "unix: bytes": partial(_server, come=lambda path: Stream(dial(path), b"x")),
    "unix: descriptors": partial(_server, come=lambda path: Rights(dial(path))),
    "unix: callers": partial(_server, come=Caller, is_open=False),
    "udp: empty": _udp(b""),
    "udp: byte": _udp(b"x"),
    "pty: bytes": _pty(
        lambda path: Writer(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK), b"x")
    ),
    "pty: opens": _pty(Opener, is_open=False),
    "serial: bytes": _serial(b"x"),
    "serial: marks": _serial(b"\xff"),
    "serial: NUL": _serial(b"\0"),
    **{f"mux: {name}": _mux(unit) for name, unit in MUX.items()},
    "hub: break": _hub(TELNET["break"]),
    "hub: NOP": _hub(TELNET["NOP"]),
    "hub: windows": _hub(TELNET["windows"]),
    "hub: breaks between": _hub(TELNET["breaks between"]),
    "replay: input": _replay([0, "i", "x"]),
    "replay: nothing": _replay([0, "o", ""]),
    "replay: breaks": _replay([0, "m", "BREAK"]),
    "replay: marks": _replay([0, "m", "x"]),
    "replay: bytes": _replay([0, "o", "x"]),
}
"""The floods by name; the kind of chardev comes first. Those of QMP are among them."""
