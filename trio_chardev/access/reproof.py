"""Would TLS credentials still accept a peer, by the certificates that it has shown?

A peer proves who it is once, in its handshake. What can be checked later, without asking the peer,
is whether its certificates are still good: in date, signed by the authorities, not revoked, with
the right name. ssl checks that only in a handshake. So one is begun in memory, with TLS 1.2, where
certificates are not encrypted and are checked when they come; the proof that the peer has the key
would come after them, and is not waited for.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
import sys
from typing import Any, Final

from trio_chardev.access.credentials import TlsCredentials, text_of

RECORD_SIZE: Final = 1 << 14  # bytes
_HANDSHAKE: Final = b"\x16\x03\x03"  # a record's type, and TLS 1.2
_SERVER_HELLO: Final = 2
_CERTIFICATE: Final = 11
_TLS_1_3: Final = 0x13  # the first byte of TLS 1.3's cipher suites
_NO_CIPHER: Final = b"\x00\xff"  # a signal, not a cipher suite (RFC 5746, 3.3)
_SECURE_RENEGOTIATION: Final = b"\xff\x01\x00\x01\x00"  # the extension that OpenSSL requires


def chain_of(tls: ssl.SSLObject) -> list[bytes]:
    """The certificates that the peer of *tls* has shown, in DER, its own first; perhaps none."""
    if sys.version_info >= (3, 13):
        return tls.get_unverified_chain()
    inner: Any = getattr(tls, "_sslobj")  # noqa: B009 - public only since 3.13
    return [
        ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in inner.get_unverified_chain() or ()
    ]


def refusal_of_chain(
    credentials: TlsCredentials, chain: list[bytes], peer_name: str | None
) -> str | None:
    """Why *credentials* would refuse a peer of that *chain* and name; None if they would not."""
    if not credentials.verify_peer:
        return None
    if not chain:
        return "peer did not return a certificate"
    to_us, from_us = ssl.MemoryBIO(), ssl.MemoryBIO()
    us = credentials.start(to_us, from_us, peer_name)
    try:
        if credentials.endpoint == "server":
            to_us.write(_client_hello())
            _go_on(us)
        else:
            _go_on(us)
            to_us.write(_records(_server_hello(from_us.read())))
        to_us.write(_records(_certificates(chain)))
        us.do_handshake()
    except ssl.SSLWantReadError:
        return None
    except ssl.SSLError as exc:
        if exc.reason == "WRONG_CERTIFICATE_TYPE":  # does not suit the made-up cipher, but is good
            return None
        return text_of(exc)
    raise AssertionError("a handshake has ended without its end")


def _go_on(tls: ssl.SSLObject) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()


@functools.cache
def _client_hello() -> bytes:
    """Make a client's first record, without TLS 1.3."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    outgoing = ssl.MemoryBIO()
    _go_on(context.wrap_bio(ssl.MemoryBIO(), outgoing))
    return outgoing.read()


def _server_hello(client_hello: bytes) -> bytes:
    """Answer a client's first record (RFC 5246, 7.4.1), choosing one of its cipher suites."""
    at = 5 + 4 + 2 + 32  # skip the headers of record and message, the version, the random bytes
    at += 1 + client_hello[at]  # the session's id
    size = int.from_bytes(client_hello[at : at + 2], "big")
    ciphers = [client_hello[i : i + 2] for i in range(at + 2, at + 2 + size, 2)]
    cipher = next(one for one in ciphers if one[0] != _TLS_1_3 and one != _NO_CIPHER)
    extensions = len(_SECURE_RENEGOTIATION).to_bytes(2, "big") + _SECURE_RENEGOTIATION
    return _message(_SERVER_HELLO, b"\x03\x03" + bytes(33) + cipher + b"\x00" + extensions)


def _certificates(chain: list[bytes]) -> bytes:
    """Make the message with the certificates of *chain* (RFC 5246, 7.4.2)."""
    return _message(_CERTIFICATE, _sized(b"".join(map(_sized, chain))))


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(3, "big") + data


def _message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + _sized(body)


def _records(message: bytes) -> bytes:
    pieces = (message[at : at + RECORD_SIZE] for at in range(0, len(message), RECORD_SIZE))
    return b"".join(_HANDSHAKE + len(piece).to_bytes(2, "big") + piece for piece in pieces)
