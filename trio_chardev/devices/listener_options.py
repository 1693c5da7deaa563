"""The options of a listener, which are flat, as those of all devices."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs

from trio_chardev.backends.console.options import Manner, parse_replay
from trio_chardev.backends.socket.addresses import (
    FdAddress,
    InetAddress,
    SocketAddress,
    UnixAddress,
    VsockAddress,
)
from trio_chardev.backends.socket.options import SocketOptions
from trio_chardev.devices.base import DeviceOptions
from trio_chardev.errors import OptionsError


@attrs.frozen(kw_only=True)
class ListenerOptions(DeviceOptions):
    """Lets clients in to a console, at one address."""

    uses: ClassVar = ("console",)

    console: str
    """Id of the console."""

    path: str | None = None
    """Path of a UNIX socket to listen at."""

    abstract: bool = False
    """The path is a name in the abstract name space, which needs no file."""

    host: str | None = None
    """Host name or address to listen at; empty means all addresses."""

    port: str | None = None
    """Port number or service name; 0 lets the system choose."""

    to: int | None = None
    """Last port of the range in which a free one is looked for."""

    ipv4: bool | None = None
    """Use IPv4; the default is to use both."""

    ipv6: bool | None = None
    """Use IPv6; the default is to use both."""

    vsock: str | None = None
    """Context id and port to listen at, as 3:5000."""

    fd: str | None = None
    """Name or number of a descriptor that is a socket, which listens."""

    tls_creds: str | None = None
    """Id of the TLS credentials; without them it is not encrypted."""

    tls_authz: str | None = None
    """Id of the list of those who may come, by the name of their certificate or key."""

    telnet: bool = False
    """Speak telnet (RFC 854)."""

    tn3270: bool = False
    """Speak telnet as IBM 3270 terminals do (RFC 1576)."""

    rfc2217: bool = False
    """Speak telnet with the Com Port Control Option (RFC 2217), so that clients who may type can set
    the line of the device."""

    websocket: bool = False
    """Speak WebSocket (RFC 6455)."""

    binary_only: bool = False
    """Refuse WebSocket's text messages, as QEMU does."""

    origins: tuple[str, ...] = ()
    """Web pages that may connect by WebSocket, as a socket's."""

    ws_path: str | None = None
    """Path that a WebSocket's client has to ask for; the default is any."""

    http_guard: bool = False
    """Let a client go at once if it is a web browser and no WebSocket is spoken."""

    read_only: bool = False
    """Its clients can only watch."""

    replay: str | None = None
    """What of the history its clients get first, as the console's. By default what the console says,
    and nothing if they are programs (rfc2217, binary-only)."""

    terminal: bool | None = None
    """Are its clients terminals, which answer queries? Then old queries are not shown again, and of
    several only one answers. The default is on, but for rfc2217 and binary-only."""

    in_band: bool | None = None
    """Are its clients people, who are told in lines of text why they are let go, and the like? The
    default is on with telnet or a WebSocket, but for rfc2217 and binary-only."""

    @property
    def is_for_programs(self) -> bool:
        """Do its protocols carry binary data?"""
        return self.rfc2217 or self.binary_only or self.tn3270

    @property
    def manner(self) -> Manner:
        """How its clients are treated."""
        programs = self.is_for_programs
        in_band = (self.telnet or self.websocket) and not programs
        return Manner(
            role="read-only" if self.read_only else "write",
            replay="off" if self.replay is None and programs else self.replay,
            is_terminal=not programs if self.terminal is None else self.terminal,
            is_told=in_band if self.in_band is None else self.in_band,
        )

    @property
    def address(self) -> SocketAddress:
        """Where to listen. Raises OptionsError unless there is one address."""
        given = [
            name for name in ("path", "host", "vsock", "fd") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise OptionsError("listener: one of 'path', 'host', 'vsock' or 'fd' is required")
        for name, wanted in _OF_ADDRESS.items():
            if getattr(self, name) not in (None, False) and wanted not in given:
                raise OptionsError(f"listener: '{name}' needs '{wanted}'")
        if self.path is not None:
            return UnixAddress(self.path, abstract=self.abstract)
        if self.fd is not None:
            return FdAddress(self.fd)
        if self.vsock is not None:
            cid, _, port = self.vsock.partition(":")
            return VsockAddress(cid, port)
        if self.port is None:
            raise OptionsError("listener: 'host' needs 'port'")
        assert self.host is not None
        return InetAddress(
            self.host, self.port, to=self.to, ipv4=self.ipv4, ipv6=self.ipv6, keep_alive=True
        )

    @property
    def socket_options(self) -> SocketOptions:
        """The same for a socket that listens. Raises OptionsError."""
        same: dict[str, Any] = {name: getattr(self, name) for name in _SAME}
        return SocketOptions(addr=self.address, server=True, nodelay=True, **same)

    def check(self) -> None:
        _ = self.address
        if self.replay is not None:
            parse_replay(self.replay)


_OF_ADDRESS = {
    "abstract": "path",
    **dict.fromkeys(("port", "to", "ipv4", "ipv6"), "host"),
}
_SAME = (
    *("tls_creds", "tls_authz", "telnet", "tn3270", "rfc2217", "websocket", "binary_only"),
    *("origins", "ws_path", "http_guard"),
)
