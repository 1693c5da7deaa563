"""The protocols on a connected socket: TLS, then WebSocket, then telnet."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING

from trio_chardev.access.objects import Authorizer
from trio_chardev.backends.socket.addresses import InetAddress
from trio_chardev.backends.socket.codec import Codec
from trio_chardev.backends.socket.connection import Connection
from trio_chardev.backends.socket.layer import Layer
from trio_chardev.backends.socket.link import Link
from trio_chardev.backends.socket.options import SocketOptions, check_options, find_credentials
from trio_chardev.backends.socket.unix_connection import UnixConnection
from trio_chardev.errors import OptionsError
from trio_chardev.events import BackendEvent
from trio_chardev.version import __version__

if TYPE_CHECKING:
    from trio_chardev.protocols.com_port import Port

SIGNATURE = f"trio-chardev {__version__}".encode()
"""What an RFC 2217 server answers to who asks for its signature."""


def _ignore(event: BackendEvent) -> None:
    """Do nothing."""


class Stack:
    """The protocols that a backend's options ask for."""

    def __init__(self, options: SocketOptions, objects: Mapping[str, object]) -> None:
        """*objects* has those that *options* name. Raises OptionsError and BackendError."""
        self._credentials = find_credentials(options, objects)
        check_options(options, self._credentials)
        self._options = options
        self._objects = objects
        for _ in self._codecs():
            pass  # what can't be made now never can be

    @cached_property
    def port(self) -> Port:
        """The line's state for RFC 2217, with one peer after the other."""
        from trio_chardev.protocols.com_port import Port

        return Port()

    @property
    def is_empty(self) -> bool:
        """Are there no protocols, so that bytes go as they are?"""
        options = self._options
        telnet = options.telnet or options.tn3270 or options.rfc2217
        return not (self._credentials or options.websocket or telnet)

    @property
    def proves_peers(self) -> bool:
        """Does TLS demand a certificate, or the knowledge of a key, of the peer?"""
        return self._credentials is not None and self._credentials.verify_peer

    def link_on(
        self,
        sock: socket.socket,
        name: str = "",
        on_event: Callable[[BackendEvent], None] = _ignore,
    ) -> Link:
        """Put the protocols on *sock*, a connection called *name*, and own it.

        Raises OSError, BackendError.
        """
        self._renew()
        if self.is_empty:
            return plain_link(sock, name)
        from trio_chardev.backends.socket.shared_connection import SharedConnection

        link: Link = SharedConnection(sock, name)
        for codec in self._codecs():
            link = Layer(link, codec, on_event)
        return link

    def refusal_of(self, link: Link) -> str | None:
        """Return why the peer on *link*, from this stack, would not be let in if it came now.

        It is checked against the current credentials, the authorization list, and the origins.
        """
        self._renew()
        if not isinstance(link, Layer):
            return None
        from trio_chardev.backends.socket.tls import TlsConnection
        from trio_chardev.protocols.websocket import WebSocketConnection

        while isinstance(link, Layer):
            why = None
            if isinstance(link.codec, TlsConnection) and self._credentials is not None:
                why = link.codec.refusal_by(self._credentials)
            elif isinstance(link.codec, WebSocketConnection):
                why = link.codec.refusal_by(self._options.origins)
            if why is not None:
                return why
            link = link.lower
        return None

    def name_of(self, link: Link) -> str | None:
        """Return the name that TLS has proved of the peer on *link*; None if it has proved none."""
        if not isinstance(link, Layer):
            return None
        from trio_chardev.backends.socket.tls import TlsConnection

        while isinstance(link, Layer):
            if isinstance(link.codec, TlsConnection):
                return link.codec.proved_name
            link = link.lower
        return None

    def _renew(self) -> None:
        """Use the credentials that are now under the id.

        Those from before stay while there are none, none that fit, or weaker ones.
        """
        before = self._credentials
        if before is None or self._objects.get(self._options.tls_creds or "") is before:
            return
        try:
            found = find_credentials(self._options, self._objects)
            check_options(self._options, found)
        except OptionsError:
            return
        if found is not None and (found.verify_peer or not before.verify_peer):
            self._credentials = found

    def _codecs(self) -> Iterator[Codec]:
        options = self._options
        if self._credentials is not None:
            from trio_chardev.backends.socket.tls import TlsConnection

            allows = None if options.tls_authz is None else partial(self._allows, options.tls_authz)
            yield TlsConnection(self._credentials, peer_name=_peer_name(options), allows=allows)
        if options.websocket:
            from trio_chardev.protocols.websocket import websocket_connection

            yield websocket_connection(
                is_server=options.server,
                binary_only=options.binary_only,
                host=_host_header(options),
                origins=options.origins,
                path=options.ws_path,
                names=_own_names(options),
            )
        if options.rfc2217:
            from trio_chardev.protocols.com_port_telnet import com_port_client, com_port_server

            yield (
                com_port_server(self.port, SIGNATURE)
                if options.server
                else com_port_client(self.port)
            )
        elif options.telnet or options.tn3270:
            from trio_chardev.protocols.telnet import telnet_connection

            yield telnet_connection(is_server=options.server, tn3270=options.tn3270)

    def _allows(self, id: str, name: str) -> bool:
        authorizer = self._objects.get(id)
        return isinstance(authorizer, Authorizer) and authorizer.allows(name)


def plain_link(sock: socket.socket, name: str) -> Link:
    """Make a link of *sock*, without protocols, and own it."""
    return (UnixConnection if sock.family == socket.AF_UNIX else Connection)(sock, name)


def _peer_name(options: SocketOptions) -> str | None:
    """Return the name for a server's certificate; None for a UNIX socket, which has no name."""
    if options.server or not isinstance(options.addr, InetAddress):
        return None
    return options.addr.host


def _own_names(options: SocketOptions) -> frozenset[str]:
    """Return the names that a web page may call this machine: its own, and that listened at."""
    name = socket.gethostname()
    names = {name, name.partition(".")[0]}
    if isinstance(options.addr, InetAddress):
        names.add(options.addr.host)
    return frozenset(name.lower() for name in names if name)


def _host_header(options: SocketOptions) -> str:
    address = options.addr
    if not isinstance(address, InetAddress):
        return "localhost"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"
