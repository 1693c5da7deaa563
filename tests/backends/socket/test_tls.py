"""TLS without sockets: handshakes, records, ends, names."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest

from tests.certificates import (
    MemoryPeer,
    authority,
    client_certificate,
    client_credentials,
    peer_context,
    server_credentials,
)
from trio_chardev.backends.socket import tls
from trio_chardev.backends.socket.tls import TlsConnection, distinguished_name
from trio_chardev.errors import BackendError


class Recording(TlsConnection):
    """Keeps what it has decoded."""

    received = b""

    def decode_more(self) -> list[bytes]:
        items = super().decode_more()
        self.received += b"".join(items)
        return items


def take_all(codec: Recording) -> bytes:
    data, codec.received = codec.received, b""
    return data


def exchange(codec: TlsConnection, peer: MemoryPeer, *, piece: int = 1 << 16) -> None:
    """Carry bytes both ways, *piece* at a time, until nothing moves; *peer* may raise."""
    while True:
        there = codec.data_to_send()
        if there:
            peer.incoming.write(there)
        peer.shake_hands()
        back = peer.outgoing.read()
        if not there and not back:
            return
        for start in range(0, len(back), piece):
            if codec.end is None:
                codec.receive_data(back[start : start + piece])


def server(tmp_path: Path, **options: bool) -> Recording:
    return Recording(server_credentials(tmp_path, **options))


def client(
    tmp_path: Path, name: str | None = "localhost", *, verify_peer: bool = True
) -> Recording:
    return Recording(client_credentials(tmp_path, verify_peer=verify_peer), peer_name=name)


def connected(tmp_path: Path) -> tuple[Recording, MemoryPeer]:
    codec = server(tmp_path, verify_peer=False)
    peer = MemoryPeer(peer_context(server=False), server=False)
    exchange(codec, peer)
    assert codec.is_established
    assert codec.end is None
    return codec, peer


# ---------------------------------------------------------------- handshakes


@pytest.mark.parametrize("piece", [1, 1 << 16])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("is_server", [False, True])
def test_bytes_go_both_ways_however_they_are_cut(
    tmp_path: Path, is_server: bool, version: ssl.TLSVersion, piece: int
) -> None:
    codec = server(tmp_path, verify_peer=False) if is_server else client(tmp_path)
    context = peer_context(server=not is_server)
    context.maximum_version = version
    peer = MemoryPeer(context, server=not is_server)
    exchange(codec, peer, piece=piece)
    assert codec.is_established
    assert peer.tls.version() == {2: "TLSv1.2", 3: "TLSv1.3"}[version - 0x301]
    peer.incoming.write(codec.encode(b"to the peer" * 1000))
    peer.tls.write(b"from the peer" * 1000)
    exchange(codec, peer, piece=piece)
    assert peer.receive() == b"to the peer" * 1000
    assert take_all(codec) == b"from the peer" * 1000
    assert codec.end is None


def test_a_full_record_stays_one(tmp_path: Path) -> None:
    codec, _ = connected(tmp_path)
    wire = codec.encode(bytes(1 << 14))
    assert int.from_bytes(wire[3:5], "big") == len(wire) - 5


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_below_1_2_is_refused(tmp_path: Path) -> None:
    codec = server(tmp_path, verify_peer=False)
    context = peer_context(server=False)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    peer = MemoryPeer(context, server=False)
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol version"):
        exchange(codec, peer)
    assert codec.end == "TLS handshake failed: unsupported protocol"
    assert not codec.is_established


def test_what_is_no_tls_ends_the_handshake(tmp_path: Path) -> None:
    codec = server(tmp_path)
    codec.receive_data(b"GET / HTTP/1.1\r\n\r\n")
    assert codec.end == "TLS handshake failed: http request"
    assert not codec.is_established
    codec.close()


def test_a_peer_that_leaves_in_the_handshake_ends_it(tmp_path: Path) -> None:
    codec = server(tmp_path)
    codec.receive_data(b"")
    assert codec.end == "TLS handshake failed: the peer has left"
    assert not codec.is_established


def test_a_server_demands_a_certificate(tmp_path: Path) -> None:
    codec = server(tmp_path)
    context = peer_context(server=False)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # later it would hear of it afterwards
    with pytest.raises(ssl.SSLError):
        exchange(codec, MemoryPeer(context, server=False))
    assert codec.end == "TLS handshake failed: peer did not return a certificate"


def test_a_server_refuses_a_certificate_of_another_authority(tmp_path: Path) -> None:
    codec = server(tmp_path)
    stranger = authority("Somebody else").issue_cert("laptop.example")
    context = peer_context(server=False, certificate=stranger)
    exchange(codec, peer := MemoryPeer(context, server=False))
    assert codec.end == "TLS handshake failed: unable to get local issuer certificate"
    with pytest.raises(ssl.SSLError, match=r"(?i)unknown ca"):
        peer.receive()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("elsewhere", "Hostname mismatch, certificate is not valid for 'elsewhere'."),
        ("127.0.0.2", "IP address mismatch, certificate is not valid for '127.0.0.2'."),
    ],
)
def test_a_client_checks_the_name(tmp_path: Path, name: str, error: str) -> None:
    codec = client(tmp_path, name)
    with pytest.raises(ssl.SSLError):
        exchange(codec, MemoryPeer(peer_context(server=True), server=True))
    assert codec.end == f"TLS handshake failed: {error}"


@pytest.mark.parametrize(
    ("name", "verify_peer"), [("127.0.0.1", True), (None, True), ("elsewhere", False)]
)
def test_a_client_that_knows_no_name_or_shall_not_check_checks_none(
    tmp_path: Path, name: str | None, verify_peer: bool
) -> None:
    codec = client(tmp_path, name, verify_peer=verify_peer)
    exchange(codec, MemoryPeer(peer_context(server=True), server=True))
    assert codec.is_established


def test_a_client_without_a_name_checks_the_authority(tmp_path: Path) -> None:
    codec = client(tmp_path, None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority("Somebody else").issue_cert("localhost").configure_cert(context)
    with pytest.raises(ssl.SSLError):
        exchange(codec, MemoryPeer(context, server=True))
    assert codec.end == "TLS handshake failed: unable to get local issuer certificate"


def test_what_can_be_no_name_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"^'\.a' can't be the name of a certificate: "):
        client(tmp_path, ".a")


# ---------------------------------------------------------------- who may


@pytest.mark.parametrize("may", [False, True])
def test_only_whom_the_authorizer_allows_is_served(tmp_path: Path, may: bool) -> None:
    names: list[str] = []

    def allows(name: str) -> bool:
        names.append(name)
        return may

    codec = Recording(server_credentials(tmp_path), allows=allows)
    context = peer_context(server=False, certificate=client_certificate())
    peer = MemoryPeer(context, server=False)
    peer.shake_hands()
    codec.receive_data(peer.outgoing.read())
    peer.incoming.write(codec.data_to_send())
    peer.shake_hands()
    peer.tls.write(b"eager")
    codec.receive_data(peer.outgoing.read())
    [name] = names
    assert name.startswith(r"O=Acme\, Inc.,OU=")
    assert name.endswith(",CN=laptop")
    assert codec.is_established is may
    assert take_all(codec) == (b"eager" if may else b"")
    assert codec.end == (None if may else f"TLS x509 authz check for {name} is denied")


def test_nobody_with_a_name_without_end_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No list is asked."""
    monkeypatch.setattr(tls, "MAX_NAME", 20)
    codec = Recording(server_credentials(tmp_path), allows=lambda name: True)
    context = peer_context(server=False, certificate=client_certificate())
    exchange(codec, MemoryPeer(context, server=False))
    assert codec.end is not None
    assert re.fullmatch(r"TLS x509 authz check for a name of \d+ characters is denied", codec.end)


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ([[("countryName", "GB")], [("commonName", "laptop")]], "C=GB,CN=laptop"),
        ([[("commonName", "a,O=Admin")]], r"CN=a\,O=Admin"),
        ([[("commonName", 'x;<y>\\z"q"+=')]], r"CN=x\;\<y\>\\z\"q\"\+="),
        ([[("commonName", " lead")], [("commonName", "trail ")]], r"CN=\ lead,CN=trail\ "),
        ([[("commonName", " ")], [("commonName", "  ")]], r"CN=\ ,CN=\ \ "),
        ([[("commonName", "#1")], [("commonName", "a#")]], r"CN=\#1,CN=a#"),
        ([[("organizationName", "A"), ("commonName", "b")]], "O=A+CN=b"),
        ([[("userId", "joe")], [("emailAddress", "a@b.c")]], "UID=joe,EMAIL=a@b.c"),
        ([[("surname", "S")], [("givenName", "G")]], "surName=S,givenName=G"),
        ([], ""),
    ],
)
def test_names_are_spelled_as_gnutls_does(subject: list[list[tuple[str, str]]], name: str) -> None:
    """As gnutls_x509_crt_get_dn of GnuTLS 3.7 spelled certificates with these subjects."""
    assert distinguished_name({"subject": subject}) == name


# ---------------------------------------------------------------- the end


def test_goodbye_is_answered_with_an_end(tmp_path: Path) -> None:
    codec, peer = connected(tmp_path)
    peer.tls.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    codec.receive_data(peer.outgoing.read())
    assert take_all(codec) == b"last"
    assert codec.end == ""
    codec.close()
    peer.incoming.write(codec.data_to_send())
    peer.tls.unwrap()


def test_all_at_once_is_still_established_and_read(tmp_path: Path) -> None:
    """A client sends the end of the handshake, bytes and goodbye in one piece."""
    codec = server(tmp_path, verify_peer=False)
    peer = MemoryPeer(peer_context(server=False), server=False)
    peer.shake_hands()
    codec.receive_data(peer.outgoing.read())
    peer.incoming.write(codec.data_to_send())
    peer.shake_hands()
    peer.tls.write(b"x")
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    codec.receive_data(peer.outgoing.read())
    assert codec.is_established
    assert codec.end == ""
    assert take_all(codec) == b"x"


def test_an_end_without_goodbye_is_an_end(tmp_path: Path) -> None:
    codec, peer = connected(tmp_path)
    peer.tls.write(b"whole")
    peer.tls.write(b"cut off")
    codec.receive_data(peer.outgoing.read()[:-1])
    codec.receive_data(b"")
    assert take_all(codec) == b"whole"
    assert codec.end == ""


def test_a_record_that_was_tampered_with_is_an_end(tmp_path: Path) -> None:
    codec, peer = connected(tmp_path)
    peer.tls.write(b"good")
    good = peer.outgoing.read()
    peer.tls.write(b"bad")
    bad = bytearray(peer.outgoing.read())
    bad[-1] ^= 1
    codec.receive_data(good + bad)
    assert take_all(codec) == b"good"
    assert codec.end == "TLS failed: decryption failed or bad record mac"


def test_input_can_be_read_after_goodbye(tmp_path: Path) -> None:
    """Also a record of which a part had come: chr_disconnect keeps what has come."""
    codec, peer = connected(tmp_path)
    peer.tls.write(b"first")
    peer.tls.write(b"second")
    wire = peer.outgoing.read()
    codec.receive_data(wire[:-3])
    codec.close()
    codec.close()
    codec.receive_data(wire[-3:])
    assert take_all(codec) == b"firstsecond"
    assert codec.end is None
    codec.receive_data(b"")
    assert codec.end == ""


def test_goodbye_before_the_handshake_is_nothing(tmp_path: Path) -> None:
    codec = client(tmp_path)
    hello = codec.data_to_send()
    codec.close()
    assert hello
    assert codec.data_to_send() == b""
