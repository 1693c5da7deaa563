"""Options classes for tests without backends: QEMU 7.2's schema, and newer parts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from trio_chardev.options.members import IntRange, TaggedUnion

UInt16 = Annotated[int, IntRange("uint16_t", 0, 65535)]


@attrs.frozen(kw_only=True)
class Common:
    """Nothing but what all have.

    A second paragraph.
    """

    logfile: str | None = None
    """Where output is copied."""

    logappend: bool = False


@attrs.frozen(kw_only=True)
class File(Common):
    """A file."""

    in_: str | None = None
    """Where input
    comes from."""

    out: str
    append: bool = False


@attrs.frozen(kw_only=True)
class Hostdev(Common):
    device: str


@attrs.frozen
class Inet:
    host: str
    port: str
    numeric: bool = attrs.field(default=False, kw_only=True)
    to: UInt16 | None = attrs.field(default=None, kw_only=True)
    ipv4: bool | None = attrs.field(default=None, kw_only=True)
    ipv6: bool | None = attrs.field(default=None, kw_only=True)
    keep_alive: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen
class Unix:
    path: str
    abstract: bool = attrs.field(default=False, kw_only=True)
    tight: bool = attrs.field(default=True, kw_only=True)


@attrs.frozen
class Vsock:
    cid: str
    port: str


@attrs.frozen
class Fd:
    str_: str


Address = Annotated[
    Inet | Unix | Vsock | Fd,
    TaggedUnion("SocketAddressLegacy", {"inet": Inet, "unix": Unix, "vsock": Vsock, "fd": Fd}),
]


@attrs.frozen(kw_only=True)
class Socket(Common):
    addr: Address
    tls_creds: str | None = None
    tls_authz: str | None = None
    server: bool = True
    """Listen."""

    wait: bool | None = None
    nodelay: bool = False
    """Send at once."""

    telnet: bool = False
    tn3270: bool = False
    websocket: bool = False
    reconnect: int | None = None


@attrs.frozen(kw_only=True)
class Udp(Common):
    remote: Address
    local: Address | None = None


@attrs.frozen(kw_only=True)
class Mux(Common):
    chardev: str


@attrs.frozen(kw_only=True)
class Stdio(Common):
    signal: bool = True


@attrs.frozen(kw_only=True)
class Ringbuf(Common):
    size: int = 65536


@attrs.frozen(kw_only=True)
class Hub(Common):
    chardevs: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Pty(Common):
    path: str | None = None


@attrs.frozen(kw_only=True)
class Line(Hostdev):
    """Things that QEMU does not have: enums, numbers."""

    data_bits: Literal[5, 6, 7, 8] = 8
    parity: Literal["N", "E", "O"] = "N"
    gain: float = 1.0


QEMU_KINDS: dict[str, Any] = {
    "file": File,
    "serial": Hostdev,
    "parallel": Hostdev,
    "pipe": Hostdev,
    "socket": Socket,
    "udp": Udp,
    "pty": Common,
    "null": Common,
    "mux": Mux,
    "stdio": Stdio,
    "ringbuf": Ringbuf,
    "memory": Ringbuf,
}
KINDS: dict[str, Any] = {**QEMU_KINDS, "pty": Pty, "hub": Hub, "serial": Line}

ChardevBackend = TaggedUnion("ChardevBackend", QEMU_KINDS)


@attrs.frozen
class ChardevChange:
    """The arguments of chardev-change."""

    id: str
    backend: Annotated[Common, ChardevBackend]
