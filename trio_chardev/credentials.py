"""TLS credentials: QEMU's folder of PEM files made into contexts of Python's ssl.

TLS 1.2 and later, without renegotiation, compression and session tickets: each handshake is a
full one, so that what was checked of a peer was checked now. Nothing here talks to a socket.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from trio_chardev.errors import BackendError

Endpoint = Literal["client", "server"]

UNSUPPORTED_PURPOSE = 26
"""X509_V_ERR_INVALID_PURPOSE: "not for servers", which is right for a client's."""


@attrs.frozen(kw_only=True)
class TlsFiles:
    """The paths of the files of a folder."""

    endpoint: Endpoint
    ca: Path
    revoked: Path | None
    cert: Path | None
    key: Path | None

    @classmethod
    def find(cls, folder: str, endpoint: Endpoint) -> TlsFiles:
        """Those of *folder*. Raises BackendError if a file that must be there can't be read."""
        where = Path(folder)
        ca = _readable(where / "ca-cert.pem")
        revoked = where / "ca-crl.pem"
        cert, key = where / f"{endpoint}-cert.pem", where / f"{endpoint}-key.pem"
        has_cert = endpoint == "server" or (cert.exists() and key.exists())
        return cls(
            endpoint=endpoint,
            ca=ca,
            revoked=_readable(revoked) if revoked.exists() else None,
            cert=_readable(cert) if has_cert else None,
            key=_readable(key) if has_cert else None,
        )


def _readable(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as exc:
        raise BackendError.from_os_error(f"Unable to access credentials {path}", exc) from exc
    return path


@attrs.frozen(kw_only=True)
class TlsCredentials:
    """What one side of TLS connections needs, for any number of them."""

    endpoint: Endpoint
    verify_peer: bool
    context: ssl.SSLContext
    naming_context: ssl.SSLContext
    """Checks the peer's name too; ssl knows no other way to say that for one connection."""

    @classmethod
    def load(cls, files: TlsFiles, *, verify_peer: bool, password: bytes) -> TlsCredentials:
        """Read *files*. Raises BackendError."""
        context = _load_context(files, verify_peer, password)
        naming_context = context
        if files.endpoint == "client" and verify_peer:
            naming_context = _load_context(files, verify_peer, password)
            naming_context.check_hostname = True
        return cls(
            endpoint=files.endpoint,
            verify_peer=verify_peer,
            context=context,
            naming_context=naming_context,
        )

    def start(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, peer_name: str | None
    ) -> ssl.SSLObject:
        """A connection, to *peer_name* if it is a client that knows it. Raises BackendError."""
        context = self.context if peer_name is None else self.naming_context
        is_server = self.endpoint == "server"
        try:
            return context.wrap_bio(incoming, outgoing, is_server, peer_name)
        except ValueError as exc:  # it can't be a host name
            raise BackendError(f"'{peer_name}' can't be a certificate's name: {exc}") from exc

    def check_own_certificate(self, files: TlsFiles) -> None:
        """Raise BackendError if a peer with the same CA would refuse our certificate.

        What that peer would say is found out by being it, in memory.
        """
        if files.cert is None:
            return
        ours = attrs.evolve(files, endpoint="server")
        context = _load_context(ours, False, self._password)
        fault = find_fault(context, _peer_context(files.ca))
        if fault is None or (fault.verify_code == UNSUPPORTED_PURPOSE and files.endpoint == "client"):
            return
        raise BackendError(
            f"Our own certificate {files.cert} failed validation against {files.ca}: "
            f"{fault.verify_message}"
        )
