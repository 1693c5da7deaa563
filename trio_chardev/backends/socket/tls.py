"""TLS as a codec, on ssl.MemoryBIO instead of trio.SSLStream.

A backend sends and receives without waiting, and must know at once how much was sent; a stream that
does its own I/O can do neither. Here TLS is a function of bytes: see `Codec`.

The peer is authenticated before the handshake counts as over: its certificate or key by ssl, its
name by an `Authorizer`. That is looked up then, so that it can be replaced while the server runs;
while there is none, all peers are refused.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Any

from trio_chardev.access.credentials import TlsCredentials, text_of
from trio_chardev.access.psk import PskCredentials, PskObject, refusal_of_key
from trio_chardev.access.reproof import chain_of, refusal_of_chain

Allows = Callable[[str], bool]
"""Is a peer of that name authorized?"""

AnyCredentials = TlsCredentials | PskCredentials

READ_SIZE = 1 << 14  # bytes, the most of a record
MAX_NAME = 1 << 12  # characters; no peer with a longer name is authorized
HEADER_SIZE = 5  # bytes of a record, the last two its length (RFC 8446, 5.1)
RECORDS_AT_ONCE = 64
"""A record that changes the key, and does nothing else, takes 16 us, and 27 bytes."""


class TlsConnection:
    """One side of a TLS connection; see `Codec`."""

    is_closing = False
    """The peer's close_notify need not be waited for (RFC 8446, 6.1)."""

    def __init__(
        self,
        credentials: AnyCredentials,
        *,
        peer_name: str | None = None,
        allows: Allows | None = None,
    ) -> None:
        """*peer_name* is what a client has dialled. Raises BackendError if it can't be a name."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._credentials = credentials
        self._peer_name = peer_name
        self._tls = credentials.start(self._incoming, self._outgoing, peer_name)
        self._allows = allows
        self.is_established = False
        self.end: str | None = None
        self._is_cut_off = False  # the peer's end came without its close_notify
        self._undecoded = b""  # what is_behind refers to; else an incomplete header
        self._missing = 0  # bytes of the record that was decoded last
        self._advance()  # a client speaks first

    @property
    def is_behind(self) -> bool:
        """See `Codec.is_behind`."""
        return len(self._undecoded) >= HEADER_SIZE and self.end is None

    def receive_data(self, data: bytes) -> list[bytes]:
        """See `Codec.receive_data`."""
        if data:
            self._undecoded += data
            return self.decode_more()
        self._incoming.write_eof()
        return self._advance()

    def decode_more(self) -> list[bytes]:
        """See `Codec.decode_more`."""
        wire, end = self._undecoded, self._missing
        for _ in range(RECORDS_AT_ONCE):
            if end + HEADER_SIZE > len(wire):
                break
            end += HEADER_SIZE + int.from_bytes(wire[end + 3 : end + HEADER_SIZE], "big")
        self._missing = max(0, end - len(wire))
        self._undecoded = wire[end:]
        self._incoming.write(wire[:end])
        return self._advance()

    def _advance(self) -> list[bytes]:
        """Go on with the handshake, then read; returns what has come for the user."""
        received = []
        try:
            if not self.is_established:
                self._tls.do_handshake()
                self._authorize()
            while self.end is None and (data := self._tls.read(READ_SIZE)):
                received.append(data)
            self.end = self.end or ""  # the peer's close_notify has come
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # the same, when this side has sent its own, too
            self.end = ""
        except ssl.SSLEOFError:  # the peer has left without one; plain sockets have none either
            self.end = "" if self.is_established else "TLS handshake failed: the peer has left"
            self._is_cut_off = True
        except ssl.SSLError as exc:
            what = "TLS failed" if self.is_established else "TLS handshake failed"
            self.end = f"{what}: {text_of(exc)}"
            self._is_cut_off = True
        except ValueError as exc:  # such as a name in the certificate that is not text
            self.end = f"TLS failed: what the peer has sent can't be read: {exc}"
            self._is_cut_off = True
        return received

    @property
    def ends_one_way(self) -> bool:
        """See `Codec.ends_one_way`.

        This is possible since TLS 1.3 (RFC 8446, 6.1); before, close_notify has to be answered by
        closing at once.
        """
        return self._tls.version() == "TLSv1.3" and not self._is_cut_off

    def _authorize(self) -> None:
        if self._allows is not None:
            self.end = refusal_by(self._allows, self._tls)
            if self.end is not None:
                return
        self.is_established = True

    @property
    def proved_name(self) -> str | None:
        """The name in the peer's certificate, or of its key; None if it has shown none."""
        return _who_is_there(self._tls)[1] or None

    def refusal_by(self, credentials: AnyCredentials) -> str | None:
        """Return why the peer would be refused now, by *credentials* or the authorizer, or None."""
        if not self.is_established:
            return (
                None if credentials is self._credentials else "the TLS credentials are others now"
            )
        if (why := self._refusal_of_proof(credentials)) is not None:
            return f"TLS: {why}"
        return None if self._allows is None else refusal_by(self._allows, self._tls)

    def _refusal_of_proof(self, credentials: AnyCredentials) -> str | None:
        if isinstance(credentials, TlsCredentials):
            if isinstance(self._tls, PskObject):
                return "it has a pre-shared key, and no certificate"
            return refusal_of_chain(credentials, chain_of(self._tls), self._peer_name)
        if not isinstance(self._tls, PskObject):
            return "it has no pre-shared key"
        return refusal_of_key(credentials, self._tls)

    def encode(self, data: bytes) -> bytes:
        """See `Codec.encode`."""
        self._tls.write(data)
        return self._outgoing.read()

    def data_to_send(self) -> bytes:
        """See `Codec.data_to_send`."""
        return self._outgoing.read()

    def close(self) -> None:
        """See `Codec.close`: send close_notify."""
        with contextlib.suppress(ssl.SSLError):  # it would wait for the peer's, or has not begun
            self._tls.unwrap()


# ---------------------------------------------------------------- names


def refusal_by(allows: Allows, tls: ssl.SSLObject) -> str | None:
    """Return why *allows* refuses the peer of *tls*, or None."""
    kind, name = _who_is_there(tls)
    if len(name) > MAX_NAME:
        return f"TLS {kind} authz check for a name of {len(name)} characters is denied"
    return None if allows(name) else f"TLS {kind} authz check for {name} is denied"


def _who_is_there(tls: ssl.SSLObject) -> tuple[str, str]:
    """Return how the peer was authenticated, and its name."""
    if isinstance(tls, PskObject):
        return "PSK", tls.name
    return "x509", distinguished_name(tls.getpeercert() or {})


_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "emailAddress": "EMAIL",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "street",
    "surname": "surName",
    "userId": "UID",
}
"""OpenSSL's name -> GnuTLS's, where they differ."""


def distinguished_name(certificate: dict[str, Any]) -> str:
    """Spell the subject of what `ssl.SSLObject.getpeercert` gives as GnuTLS does for QEMU.

    This is RFC 4514 but in the order of the certificate: ``C=GB,O=Example\\, Inc.,CN=laptop``.
    """
    return ",".join(
        "+".join(f"{_SHORT.get(name, name)}={_escape(value)}" for name, value in attributes)
        for attributes in certificate.get("subject", ())
    )


def _escape(value: str) -> str:
    escaped = "".join(f"\\{char}" if char in ',+"\\<>;' else char for char in value)
    if escaped.endswith(" "):
        escaped = f"{escaped[:-1]}\\ "
    return f"\\{escaped}" if value[:1] in (" ", "#") and value != " " else escaped
