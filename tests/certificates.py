"""Folders of certificates as QEMU expects them, made on the spot."""

from __future__ import annotations

import contextlib
import datetime
import functools
import ssl
from pathlib import Path
from typing import Any

import attrs
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trio_chardev.access.credentials import TlsCredentials
from trio_chardev.access.tls_creds import TlsCredsX509


@functools.cache
def authority(name: str = "Test CA") -> trustme.CA:
    return trustme.CA(organization_name=name)


@functools.cache
def server_certificate(*names: str) -> trustme.LeafCert:
    return authority().issue_cert(*(names or ("localhost", "127.0.0.1")))


@functools.cache
def client_certificate(common_name: str = "laptop") -> trustme.LeafCert:
    return authority().issue_cert(
        "laptop.example", common_name=common_name, organization_name="Acme, Inc."
    )


def unreadable_certificate(oid: str, value: bytes) -> trustme.LeafCert:
    """Make a client's certificate of the same authority, whose extension *oid* has any *value*."""
    ca = authority()
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes()).subject
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "laptop")]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False
        )
        .sign(
            serialization.load_pem_private_key(ca.private_key_pem.bytes(), None),  # type: ignore[arg-type]
            hashes.SHA256(),
        )
    )
    pem = serialization.Encoding.PEM
    return trustme.LeafCert(
        key.private_bytes(
            pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        ),
        certificate.public_bytes(pem),
        [],
    )


def write_folder(
    folder: Path,
    *,
    server: trustme.LeafCert | None = None,
    client: trustme.LeafCert | None = None,
    ca: trustme.CA | None = None,
) -> str:
    """Make a folder for `TlsCredsX509`, with the given certificates."""
    folder.mkdir(exist_ok=True)
    (ca or authority()).cert_pem.write_to_path(folder / "ca-cert.pem")
    for name, leaf in (("server", server), ("client", client)):
        if leaf is not None:
            leaf.private_key_pem.write_to_path(folder / f"{name}-key.pem")
            chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
            (folder / f"{name}-cert.pem").write_bytes(chain)
    return str(folder)


def server_credentials(folder: Path, **options: Any) -> TlsCredentials:
    path = write_folder(folder, server=server_certificate())
    return TlsCredsX509(id="o", dir=path, endpoint="server", **options).create({})


def client_credentials(
    folder: Path, client: trustme.LeafCert | None = None, **options: Any
) -> TlsCredentials:
    path = write_folder(folder, client=client)
    return TlsCredsX509(id="o", dir=path, endpoint="client", **options).create({})


def peer_context(*, server: bool, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """Return a context as another program would use it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    if server:
        server_certificate().configure_cert(context)
    elif certificate is not None:
        certificate.configure_cert(context)
    return context


@attrs.define(eq=False)
class MemoryPeer:
    """Python's own TLS, in memory: the other end of a codec."""

    context: ssl.SSLContext
    server: bool
    name: str | None = "localhost"
    incoming: ssl.MemoryBIO = attrs.Factory(ssl.MemoryBIO)
    outgoing: ssl.MemoryBIO = attrs.Factory(ssl.MemoryBIO)
    tls: ssl.SSLObject = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.tls = self.context.wrap_bio(
            self.incoming, self.outgoing, self.server, None if self.server else self.name
        )

    def shake_hands(self) -> None:
        """Go on with the handshake as far as possible; raises ssl.SSLError if it fails."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()

    def receive(self) -> bytes:
        """Receive what has come, or ``b""``; raises ssl.SSLError."""
        data = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while more := self.tls.read(1 << 16):
                data += more
        return data
