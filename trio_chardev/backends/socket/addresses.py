"""Where sockets listen and connect: QAPI's address classes, their endpoints, and naming them.

An address is what the user wrote. `resolving` turns it into *endpoints*, which the kernel
understands; a host can have several. Commands that need no event loop use this without Trio, which
takes most of the time in which they start. The kernel takes a path in the file system as a name of at
most 107 bytes, so a longer one is reached through /proc (`path_for_kernel`).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Annotated, Any

import attrs

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.options.members import IntRange, TaggedUnion
from trio_chardev.options.values import path_text, port_text
from trio_chardev.plain_errors import BackendError

SUN_PATH_SIZE = 108  # bytes, unix(7); the kernel wants a NUL within, unless it is abstract
MAX_PORT = 65535
VMADDR_MAX = 0xFFFFFFFF  # vsock(7); also the "any" of both numbers


@attrs.frozen
class InetAddress:
    """A TCP or UDP address. Its names are looked up when it is used."""

    host: str
    """Host name or address; empty means all addresses, for a server."""

    port: str = attrs.field(converter=port_text)
    """Port number or service name; 0 lets the system choose, for a server."""

    numeric: bool = attrs.field(default=False, kw_only=True)
    """Look no names up: host and port are numbers."""

    to: Annotated[int, IntRange("uint16_t", 0, MAX_PORT)] | None = attrs.field(
        default=None, kw_only=True
    )
    """Last port of the range in which a server looks for a free one."""

    ipv4: bool | None = attrs.field(default=None, kw_only=True)
    """Use IPv4; the default is to use both."""

    ipv6: bool | None = attrs.field(default=None, kw_only=True)
    """Use IPv6; the default is to use both."""

    keep_alive: bool = attrs.field(default=False, kw_only=True)
    """Probe an idle connection, so that a dead peer is noticed (SO_KEEPALIVE)."""

    mptcp: bool = attrs.field(default=False, kw_only=True)
    """Use Multipath TCP (RFC 8684); what the other side does not have falls back to TCP."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """The address as query-chardev shows it."""
        return f"tcp:{self}"


@attrs.frozen
class UnixAddress:
    """A socket file, or a name in Linux's abstract name space."""

    path: str = attrs.field(converter=path_text)
    """Path of the socket; empty makes a server choose one."""

    abstract: bool = attrs.field(default=False, kw_only=True)
    """The path is a name in the abstract name space, which needs no file."""

    tight: bool = attrs.field(default=True, kw_only=True)
    """An abstract name ends where it ends, instead of being padded with NULs."""

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """The address as query-chardev shows it."""
        if not self.abstract:
            return f"unix:{self.path}"
        return f"unix:{self.path},abstract=on{',tight=on' if self.tight else ''}"


@attrs.frozen
class VsockAddress:
    """An address between a virtual machine and its host (vsock(7))."""

    cid: str
    """Context id, a number."""

    port: str
    """Port, a number."""

    def __str__(self) -> str:
        return f"{self.cid}:{self.port}"

    @property
    def name(self) -> str:
        """The address as query-chardev shows it."""
        return f"vsock:{self}"


@attrs.frozen
class FdAddress:
    """A socket that is open already: it listens for a server, is connected for a client."""

    str_: str
    """Name of a descriptor given with getfd or by systemd, or its number. Empty for a server that gets
    its clients by add_client."""

    def __str__(self) -> str:
        return self.str_

    @property
    def name(self) -> str:
        """The address as query-chardev shows it."""
        return f"fd:{self.str_}"


SocketAddress = Annotated[
    InetAddress | UnixAddress | VsockAddress | FdAddress,
    TaggedUnion(
        "SocketAddressLegacy",
        {"inet": InetAddress, "unix": UnixAddress, "vsock": VsockAddress, "fd": FdAddress},
    ),
]


# ---------------------------------------------------------------- for the kernel


@attrs.frozen
class Endpoint:
    """An address for bind(2) and connect(2), in Python's form."""

    family: int
    address: Any  # bytes for AF_UNIX, a tuple for the others
    protocol: int = 0

    def socket(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Make a non-blocking socket of that family. Raises OSError."""
        return socket.socket(self.family, kind | socket.SOCK_NONBLOCK, self.protocol)

    @property
    def is_path(self) -> bool:
        """Does the kernel look it up in folders, which may be on a disk that hangs?"""
        return self.family == socket.AF_UNIX and self.address[:1] != b"\0"

    @contextlib.contextmanager
    def for_connect(self, sandbox: Sandbox = EVERYWHERE) -> Iterator[Any]:
        """Give the address for connect(2). Raises OSError, BackendError if not in *sandbox*."""
        if not self.is_path:
            yield self.address
        else:
            with path_for_kernel(self.address, sandbox) as path:
                yield path


def fixed_endpoint(address: UnixAddress | VsockAddress | FdAddress) -> Endpoint:
    """Return the endpoint of an address without host names. Raises BackendError."""
    if isinstance(address, UnixAddress):
        return Endpoint(socket.AF_UNIX, _sun_path(address))
    if isinstance(address, FdAddress):
        raise BackendError(f"File descriptor '{address.str_}' has no address to connect to")
    cid = _vsock_number("cid", address.cid)
    return Endpoint(socket.AF_VSOCK, (cid, _vsock_number("port", address.port)))


def path_of(address: SocketAddress) -> str | None:
    """The path in the file system that *address* is, if it is one."""
    if isinstance(address, UnixAddress) and not address.abstract:
        return address.path or None
    return None


def _vsock_number(what: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= VMADDR_MAX:
        return int(text)
    raise BackendError(f"Failed to parse {what} '{text}'")


def _sun_path(address: UnixAddress) -> bytes:
    try:
        path = os.fsencode(address.path)
    except UnicodeError as exc:
        raise BackendError(f"UNIX socket path {address.path!r} can't be encoded: {exc}") from exc
    if len(path) > SUN_PATH_SIZE - address.abstract:
        raise BackendError(f"UNIX socket path '{address.path}' is too long")
    if address.abstract:
        name = b"\0" + path
        return name if address.tight else name.ljust(SUN_PATH_SIZE, b"\0")
    if b"\0" in path:
        raise BackendError(f"UNIX socket path {address.path!r} has a NUL in it")
    return path or b"\0" * SUN_PATH_SIZE  # as QEMU gives it to connect(2): nobody has that name


@contextlib.contextmanager
def path_for_kernel(path: bytes, sandbox: Sandbox = EVERYWHERE) -> Iterator[bytes]:
    """Give a name of the existing file *path* for connect(2), short enough and in *sandbox*.

    Raises OSError, BackendError.
    """
    if len(path) < SUN_PATH_SIZE and not sandbox.is_limited:
        yield path
        return
    fd = sandbox.open(os.fsdecode(path), os.O_PATH | os.O_CLOEXEC)
    try:
        yield path_of_open(fd)
    finally:
        os.close(fd)


def path_of_open(fd: int) -> bytes:
    """A name for connect(2) of the open file *fd*."""
    return b"/proc/self/fd/%d" % fd


# ---------------------------------------------------------------- from the kernel


def listening_address(address: SocketAddress, sock: socket.socket) -> SocketAddress:
    """Return *address* with what the kernel chose: the port for 0, the host for an empty one."""
    found = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        options = address if isinstance(address, InetAddress) else InetAddress("", "")
        return attrs.evolve(options, host=found[0], port=str(found[1]))
    if isinstance(address, FdAddress) and sock.family == socket.AF_UNIX:
        is_abstract = isinstance(found, bytes)
        return UnixAddress(os.fsdecode(found).lstrip("\0"), abstract=is_abstract)
    if isinstance(address, FdAddress) and sock.family == socket.AF_VSOCK:
        return VsockAddress(str(found[0]), str(found[1]))
    return address


def connection_name(address: SocketAddress, sock: socket.socket, *, is_server: bool) -> str:
    """Return what query-chardev shows while *sock* is connected. Raises OSError if it is not."""
    local, remote = sock.getsockname(), sock.getpeername()
    server = ",server=on" if is_server else ""
    if sock.family != socket.AF_UNIX:
        kind = "vsock" if sock.family == socket.AF_VSOCK else "tcp"
        return f"{kind}:{_host_port(local)}{server} <-> {_host_port(remote)}"
    if isinstance(address, UnixAddress):
        return f"{address.name}{server}"
    path = os.fsdecode(local if is_server else remote)
    return f"unix:{path.lstrip(chr(0))}{server}"


def _host_port(address: Any) -> str:
    host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
    return f"{host}:{address[1]}"
