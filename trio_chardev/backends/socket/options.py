"""The options of a socket backend, and which of them exclude each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

import attrs

from trio_chardev.backends.socket.addresses import FdAddress, SocketAddress, VsockAddress
from trio_chardev.errors import OptionsError
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.origin import can_be_allowed, is_path

if TYPE_CHECKING:
    from trio_chardev.backends.socket.tls import AnyCredentials

OnBusy = Literal["wait", "refuse"]


@attrs.frozen(kw_only=True)
class SocketOptions(BackendOptions):
    """Listens for one client at a time, or connects to a server."""

    addr: SocketAddress
    """Address to listen at or to connect to."""

    tls_creds: str | None = None
    """Id of the TLS credentials; without them it is not encrypted.

    New ones made under the id apply to peers that come then, see chardev-recheck-peers."""

    tls_authz: str | None = None
    """Id of the list of the peers that may come, by the distinguished name of their certificate, or
    by that of their pre-shared key.

    It is looked up for each connection; as long as there is none, nobody may."""

    server: bool = True
    """Listen, instead of connecting."""

    wait: bool | None = None
    """Opening waits for the first client; only for a server."""

    nodelay: bool = False
    """Send small pieces at once (TCP_NODELAY)."""

    telnet: bool = False
    """Speak telnet (RFC 854)."""

    tn3270: bool = False
    """Speak telnet as IBM 3270 terminals do (RFC 1576)."""

    rfc2217: bool = False
    """Speak telnet with the Com Port Control Option (RFC 2217): a server's client can set the line
    of the device that a bridge leads to; a client sets the server's as a serial line of its own."""

    websocket: bool = False
    """Speak WebSocket (RFC 6455)."""

    reconnect: int | None = None
    """Seconds between a client's attempts to connect again. 0 is never."""

    reconnect_ms: int | None = None
    """The same in milliseconds."""

    reconnect_max_ms: int | None = None
    """Milliseconds up to which the delay doubles, with jitter. By default it stays the same while
    connecting fails, and doubles up to 32 times while the server accepts and closes within 5 s."""

    linger_ms: int = 2000
    """Milliseconds that a peer which sends no more (half-close) is still sent to, from its end or
    from the last byte; 0: it is closed at once, as QEMU does. The next client ends it, too."""

    on_busy: OnBusy = "wait"
    """What a server does with clients that come while it has one: make them wait, or refuse them,
    and say why, as the protocol does that."""

    http_guard: bool = False
    """Let a server's peer go at once if it begins with a method of HTTP, or with TLS where none is
    spoken: it is a web browser, and what it sends is a page's. A monitor always does so."""

    binary_only: bool = False
    """Refuse WebSocket's text messages, as QEMU does."""

    origins: tuple[str, ...] = ()
    """Web pages that may connect by WebSocket, as ``https://console.example``; ``*`` is any.

    With ``:*`` after the host any port may. The default is pages of the same host, if they call it
    by an address, localhost, this machine's name or the host in the options: where other names lead
    here, such as a proxy's, list them. A page from a file is ``null``. Clients that are no browsers
    name no origin, and always may."""

    ws_path: str | None = None
    """Path that a WebSocket's client asks for, by default ``/``; a server then takes no other.

    The default of a server is any. A client's may have a query, which a server ignores."""

    def when_restored(self) -> Self:
        return attrs.evolve(self, wait=False) if self.wait else self

    @property
    def again(self) -> Self | None:
        """Without waiting for the first client; not with a descriptor, which was given away."""
        if isinstance(self.addr, FdAddress):
            return None
        options = super().again
        return options.when_restored() if options is not None else None

    @property
    def open_timeout(self) -> float:
        """Seconds that opening may take, when the caller does not say."""
        return math.inf if self.server and self.wait else super().open_timeout

    @property
    def reconnect_delay(self) -> float:
        """Seconds before the first retry; 0 if there is none."""
        return float(self.reconnect or 0) + (self.reconnect_ms or 0) / 1000

    @property
    def longest_reconnect_delay(self) -> float | None:
        """Seconds up to which the delay grows; None if it does not."""
        return None if self.reconnect_max_ms is None else self.reconnect_max_ms / 1000

    @property
    def linger(self) -> float:
        """`linger_ms` in seconds."""
        return self.linger_ms / 1000

    @property
    def protocols(self) -> tuple[object, ...]:
        """The options that can't be changed for a connected peer."""
        return (
            *(self.tls_creds, self.tls_authz, self.websocket, self.binary_only, self.ws_path),
            *(self.telnet, self.tn3270, self.rfc2217, self.server),
        )

    def named(self, name: str) -> str:
        """Return the *name* of an address or a connection as query-chardev shows it."""
        address = name.removeprefix("tcp:")
        spoken = [word for word in ("rfc2217", "telnet", "websocket") if getattr(self, word)]
        return f"{spoken[0]}:{address}" if spoken and address != name else name


def find_credentials(
    options: SocketOptions, objects: Mapping[str, object]
) -> AnyCredentials | None:
    """Find the TLS credentials that *options* name. Raises OptionsError with QEMU's texts."""
    id = options.tls_creds
    if id is None:
        return None
    if id not in objects:
        raise OptionsError(f"No TLS credentials with id '{id}'")
    from trio_chardev.backends.socket.tls import AnyCredentials

    credentials = objects[id]
    if not isinstance(credentials, AnyCredentials):
        raise OptionsError(f"Object with id '{id}' is not TLS credentials")
    endpoint = "server" if options.server else "client"
    if credentials.endpoint != endpoint:
        raise OptionsError(f"Expected TLS credentials for a {endpoint} endpoint")
    return credentials


def check_options(options: SocketOptions, credentials: AnyCredentials | None) -> None:
    """Raise OptionsError, with QEMU's texts in its order, for options that exclude each other."""
    reconnect = None
    if options.reconnect_ms is not None:
        reconnect = "reconnect-ms"
    if options.reconnect is not None:
        reconnect = "reconnect"
    if reconnect and isinstance(options.addr, FdAddress):
        raise OptionsError(f"'{reconnect}' option is incompatible with 'fd' address type")
    _check_tls(options, credentials)
    if reconnect and options.server:
        raise OptionsError(
            f"'{reconnect}' option is incompatible with socket in server listen mode"
        )
    if options.wait is not None and not options.server:
        raise OptionsError("'wait' option is incompatible with socket in client connect mode")
    if options.reconnect is not None and options.reconnect_ms is not None:
        raise OptionsError("'reconnect' and 'reconnect-ms' are mutually exclusive")
    if reconnect and options.reconnect_delay < 0:
        raise OptionsError(f"'{reconnect}' must not be negative")
    if (longest := options.longest_reconnect_delay) is not None:
        if options.reconnect_delay <= 0:
            raise OptionsError("'reconnect-max-ms' option requires 'reconnect' or 'reconnect-ms'")
        if longest < options.reconnect_delay:
            raise OptionsError(f"'reconnect-max-ms' must not be less than '{reconnect}'")
    if options.on_busy == "refuse" and not options.server:
        raise OptionsError("'on-busy' option is incompatible with socket in client connect mode")
    if options.http_guard and not options.server:
        raise OptionsError("'http-guard' option is incompatible with socket in client connect mode")
    if options.http_guard and options.websocket:
        raise OptionsError("'http-guard' option is incompatible with 'websocket': see 'origins'")
    if options.rfc2217 and options.tn3270:
        raise OptionsError("'rfc2217' option is incompatible with 'tn3270'")
    if options.linger_ms < 0:
        raise OptionsError("'linger-ms' must not be negative")
    if options.binary_only and not options.websocket:
        raise OptionsError("'binary-only' option requires 'websocket' option")
    if options.origins and not (options.websocket and options.server):
        raise OptionsError("'origins' option requires 'websocket' option of a server")
    if options.ws_path is not None:
        if not options.websocket:
            raise OptionsError("'ws-path' option requires 'websocket' option")
        if not is_path(options.ws_path, with_query=not options.server):
            what = "a path" if options.server else "a path, perhaps with a query,"
            raise OptionsError(f"'ws-path' must be {what} such as '/websockify'")
    for origin in options.origins:
        if not can_be_allowed(origin):
            raise OptionsError(f"'origins': '{origin}' is none, such as 'https://console.example'")


def _check_tls(options: SocketOptions, credentials: AnyCredentials | None) -> None:
    if credentials is None:
        if options.tls_authz is not None:
            raise OptionsError("'tls_authz' option requires 'tls_creds' option")
        return
    if isinstance(options.addr, FdAddress) and not options.server:
        raise OptionsError("'tls_creds' option is incompatible with 'fd' address type as client")
    if isinstance(options.addr, VsockAddress):
        raise OptionsError("'tls_creds' option is incompatible with 'vsock' address type")
    if options.tls_authz is not None and not credentials.verify_peer:
        raise OptionsError("'tls_authz' option requires 'tls_creds' with 'verify-peer'")
    from trio_chardev.access.psk import PskCredentials

    has_names = options.server or not isinstance(credentials, PskCredentials)
    if options.tls_authz is not None and not has_names:
        raise OptionsError("'tls_authz' option of a client requires certificates")
