"""The address of a QMP server that speaks TLS: ``tls:HOST:PORT,dir=DIR``.

The options are those of the object tls-creds-x509, as a command has no objects whose ids it could name,
and QEMU's tls-hostname.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from trio_chardev.backends.socket.addresses import InetAddress
from trio_chardev.cli.output import warn
from trio_chardev.options.values import path_text
from trio_chardev.plain_errors import OptionsError

if TYPE_CHECKING:  # few need them
    from trio_chardev.access.tls_creds import TlsCredsX509


@attrs.frozen(kw_only=True)
class TlsOptions:
    """How to speak TLS with a server."""

    dir: str = attrs.field(converter=path_text)
    """Folder with ca-cert.pem and, for a server that demands them, client-cert.pem and
    client-key.pem."""

    verify_peer: bool = True
    """Check the server's certificate and its name."""

    tls_hostname: str | None = None
    """The name in the server's certificate; the default is that of the host."""


@attrs.frozen
class TlsAddress(InetAddress):
    """A TCP address with a server that speaks TLS."""

    options: TlsOptions = attrs.field(kw_only=True)

    @property
    def name(self) -> str:
        """The address as it is written."""
        return f"tls:{self}"

    @property
    def credentials(self) -> TlsCredsX509:
        """What is known of the server, and shown to it."""
        from trio_chardev.access.tls_creds import TlsCredsX509

        about = self.options
        return TlsCredsX509(id="client", dir=about.dir, verify_peer=about.verify_peer)

    @property
    def peer_name(self) -> str:
        """The name that the server's certificate must have."""
        return self.options.tls_hostname or self.host


def parse_tls(host: str, port: str, text: str) -> TlsAddress:
    """Make an address with the options *text*. Raises OptionsError."""
    from trio_chardev.options.keyval import HelpRequested, structure_text

    if not host:
        raise OptionsError("TLS needs the name of a host, which is in its certificate")
    try:
        options = structure_text(TlsOptions, text, None, warn)
    except HelpRequested:
        raise OptionsError(
            "the options are dir=DIR, verify-peer=on|off, tls-hostname=NAME"
        ) from None
    return TlsAddress(host, port, options=options)
