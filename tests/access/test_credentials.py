"""TLS credentials: each handshake is a full one, and a revoked peer, at any level, is refused."""

from __future__ import annotations

import contextlib
import datetime
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.certificates import (
    MemoryPeer,
    authority,
    client_certificate,
    peer_context,
    server_certificate,
    server_credentials,
    write_folder,
)
from tests.peers import need
from tests.services import TIMEOUT
from trio_chardev.access.credentials import TlsCredentials
from trio_chardev.access.tls_creds import TlsCredsX509
from trio_chardev.backends.socket.addresses import InetAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.socket.tls import TlsConnection
from trio_chardev.errors import BackendError
from trio_chardev.registry import open_registry
from trio_chardev.service import open_service

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def exchange(codec: TlsConnection, peer: MemoryPeer) -> None:
    """Carry bytes both ways until nothing moves; *peer*'s errors are its own."""
    for _ in range(8):
        peer.incoming.write(codec.data_to_send())
        with contextlib.suppress(ssl.SSLError):
            peer.shake_hands()
            peer.receive()
        if (wire := peer.outgoing.read()) and codec.end is None:
            codec.receive_data(wire)


# ---------------------------------------------------------------- each handshake is a full one


@pytest.mark.parametrize("version", VERSIONS)
def test_no_session_is_resumed(version: ssl.TLSVersion, tmp_path: Path) -> None:
    """Though the connection it is of is still there, and its client asks for it."""
    credentials = server_credentials(tmp_path)
    context = peer_context(server=False, certificate=client_certificate())
    context.maximum_version = version
    first = MemoryPeer(context, server=False)
    codec = TlsConnection(credentials)
    exchange(codec, first)
    assert codec.is_established
    again = MemoryPeer(context, server=False)
    again.tls.session = first.tls.session
    another = TlsConnection(credentials)
    exchange(another, again)
    assert another.is_established
    assert not again.tls.session_reused
    assert codec.is_established  # which kept the session


@contextlib.contextmanager
def s_client(port: int, folder: Path, *options: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    certificate = ("-cert", folder / "client-cert.pem", "-key", folder / "client-key.pem")
    with subprocess.Popen(
        [
            *(need("openssl"), "s_client", "-connect", f"127.0.0.1:{port}"),
            *(*certificate, "-CAfile", folder / "ca-cert.pem", *options),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("options", [{}, {"websocket": True}], ids=["tls", "websocket"])
async def test_openssl_resumes_none(version: str, options: Any, tmp_path: Path) -> None:
    """It connects, takes its session along, and comes again with that while it is kept."""
    folder = tmp_path / "tls"
    write_folder(folder, server=server_certificate(), client=client_certificate())
    session = tmp_path / "session"
    async with open_registry() as registry:
        registry.objects["s"] = server_credentials(folder)
        addr = InetAddress("127.0.0.1", "0")
        await registry.add("c", SocketOptions(addr=addr, tls_creds="s", wait=False, **options))
        port = int(registry["c"].backend.filename.rsplit(":", 1)[1].split(",")[0])

        def come(*more: str | Path) -> str:
            with s_client(port, folder, version, *more) as process:
                said, _ = process.communicate(b"Q\n", timeout=TIMEOUT)
            return said.decode(errors="replace")

        assert "\nNew, TLS" in await trio.to_thread.run_sync(come, "-sess_out", session)
        if session.exists():  # TLS 1.3 has given none
            said = await trio.to_thread.run_sync(come, "-sess_in", session)
            assert "\nNew, TLS" in said
            assert "\nReused, TLS" not in said


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl_resumes_none_with_a_qmp_listener(version: str, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    write_folder(folder, server=server_certificate(), client=client_certificate())
    async with open_service() as service:
        service.registry.objects["s"] = server_credentials(folder)
        addr = InetAddress("127.0.0.1", "0")
        filename = await service.listen_qmp(SocketOptions(addr=addr, tls_creds="s"))
        port = int(filename.rsplit(":", 1)[1].split(",")[0])

        def come() -> str:
            with s_client(port, folder, version, "-reconnect") as process:
                said, _ = process.communicate(b"Q\n", timeout=TIMEOUT)
            return said.decode(errors="replace")

        said = await trio.to_thread.run_sync(come)
    assert said.count("New, TLS") > 1
    assert "Reused, TLS" not in said


# ---------------------------------------------------------------- what was revoked


def revocations(of: trustme.CA, *revoked: trustme.LeafCert | trustme.CA) -> bytes:
    """The list of *of*, in PEM."""
    now = datetime.datetime.now(datetime.UTC)
    [issuer] = x509.load_pem_x509_certificates(of.cert_pem.bytes())
    builder = x509.CertificateRevocationListBuilder(
        issuer.subject, now - datetime.timedelta(1), now + datetime.timedelta(1)
    )
    for one in revoked:
        pem = one.cert_pem if isinstance(one, trustme.CA) else one.cert_chain_pems[0]
        number = x509.load_pem_x509_certificate(pem.bytes()).serial_number
        entry = x509.RevokedCertificateBuilder(number, now - datetime.timedelta(1)).build()
        builder = builder.add_revoked_certificate(entry)
    key = serialization.load_pem_private_key(of.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Chain:
    """A root, an authority below it, and a client whose certificate is that one's."""

    def __init__(self) -> None:
        self.root = trustme.CA(organization_name="Root")
        self.middle = self.root.create_child_ca()
        self.client = self.middle.issue_cert("laptop.example", common_name="laptop")
        self.server = self.root.issue_cert("localhost", "127.0.0.1")

    def folder(self, folder: Path, lists: Sequence[bytes]) -> Path:
        write_folder(folder, server=self.server, client=self.client, ca=self.root)
        if lists:
            (folder / "ca-crl.pem").write_bytes(b"".join(lists))
        return folder

    def credentials(self, folder: Path, *lists: bytes, **options: Any) -> TlsCredentials:
        path = str(self.folder(folder, lists))
        return TlsCredsX509(id="o", dir=path, endpoint="server", **options).create({})

    def end_of_client(self, credentials: TlsCredentials) -> str | None:
        """Why the server lets the client not in."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.root.configure_trust(context)
        self.client.configure_cert(context)
        codec = TlsConnection(credentials)
        exchange(codec, MemoryPeer(context, server=False))
        assert codec.is_established is (codec.end is None)
        return codec.end


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain()


def test_a_client_of_a_revoked_intermediate_authority_is_refused(
    chain: Chain, tmp_path: Path
) -> None:
    root, middle = chain.root, chain.middle
    credentials = chain.credentials(tmp_path, revocations(root, middle), revocations(middle))
    assert chain.end_of_client(credentials) == "TLS handshake failed: certificate revoked"


def test_a_client_that_was_revoked_by_an_intermediate_authority_is_refused(
    chain: Chain, tmp_path: Path
) -> None:
    root, middle = chain.root, chain.middle
    credentials = chain.credentials(tmp_path, revocations(root), revocations(middle, chain.client))
    assert chain.end_of_client(credentials) == "TLS handshake failed: certificate revoked"


def test_with_the_lists_of_all_its_authorities_a_client_is_let_in(
    chain: Chain, tmp_path: Path
) -> None:
    credentials = chain.credentials(tmp_path, revocations(chain.middle), revocations(chain.root))
    assert chain.end_of_client(credentials) is None
    assert chain.end_of_client(chain.credentials(tmp_path / "none")) is None  # no file, no check


@pytest.mark.parametrize("lacking", ["middle", "root"])
def test_where_there_are_lists_an_authority_without_one_is_refused(
    chain: Chain, lacking: str, tmp_path: Path
) -> None:
    """Who has been revoked can't be known then."""
    there = chain.root if lacking == "middle" else chain.middle
    credentials = chain.credentials(tmp_path, revocations(there), sanity_check=False)
    end = chain.end_of_client(credentials)
    assert end == "TLS handshake failed: unable to get certificate CRL"


def test_that_a_list_is_lacking_for_our_own_certificate_is_told_at_once(
    chain: Chain, tmp_path: Path
) -> None:
    with pytest.raises(BackendError) as raised:
        chain.credentials(tmp_path, revocations(chain.middle))
    assert str(raised.value) == (
        f"Our own certificate {tmp_path}/server-cert.pem failed validation against "
        f"{tmp_path}/ca-cert.pem: unable to get certificate CRL "
        f"({tmp_path}/ca-crl.pem must have one of each CA of a chain, the root's included)"
    )


def test_a_file_of_lists_has_nothing_else(chain: Chain, tmp_path: Path) -> None:
    """A certificate in it would be an authority that is trusted."""
    stranger = authority("Somebody else").cert_pem.bytes()
    for content in (stranger, revocations(chain.root) + stranger):
        with pytest.raises(BackendError) as raised:
            chain.credentials(tmp_path, content)
        assert str(raised.value) == (
            f"Unable to import CA CRL list {tmp_path}/ca-crl.pem: "
            "it must have CRLs, and no certificates"
        )


def test_a_client_checks_the_authorities_of_its_server(chain: Chain, tmp_path: Path) -> None:
    folder = chain.folder(tmp_path, [revocations(chain.root, chain.server)])
    credentials = TlsCredsX509(id="o", dir=str(folder), sanity_check=False).create({})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain.server.configure_cert(context)
    codec = TlsConnection(credentials, peer_name="localhost")
    exchange(codec, MemoryPeer(context, server=True))
    assert codec.end == "TLS handshake failed: certificate revoked"
