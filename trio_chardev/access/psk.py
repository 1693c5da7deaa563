"""TLS by pre-shared keys: who knows the key that belongs to a name is that one, on both sides.

The keys are those of QEMU and GnuTLS's psktool: a file keys.psk of lines ``NAME:KEY``, with the key
in hexadecimal; a NAME that begins with ``#`` is in hexadecimal too. TLS 1.2 and 1.3, without
certificates, tickets and renegotiation. Python's ssl knows of such keys since 3.13.
"""

from __future__ import annotations

import hmac
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from trio_chardev.access.credentials import Endpoint
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.errors import BackendError
from trio_chardev.files import read_file

FILE: Final = "keys.psk"
MAX_FILE: Final = 1 << 20  # bytes
DEFAULT_NAME: Final = "qemu"
MAX_KEY: Final = 256  # bytes; OpenSSL's
MAX_NAME: Final = 128  # bytes; OpenSSL's
IS_HAD: Final = bool(getattr(ssl, "HAS_PSK", False))

# Of TLS 1.2 those that are no certificate's: ECDHE-PSK first, for what was recorded stays secret
# when the key becomes known. Of TLS 1.3 all are for such keys too.
CIPHERS: Final = "kECDHEPSK:kPSK:!eNULL:!CAMELLIA:!ARIA"


def parse_keys(content: bytes, path: str) -> dict[str, bytes]:
    """Name -> key, of a file's *content*; of two lines for a name the first counts.

    Raises BackendError.
    """
    keys: dict[str, bytes] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            name, key = _parse_line(line)
        except ValueError as exc:
            raise BackendError(f"PSK file {path}: line {number}: {exc}") from None
        keys.setdefault(name, key)
    return keys


def _parse_line(line: bytes) -> tuple[str, bytes]:
    """Raises ValueError; a key is not repeated in it."""
    name, colon, digits = line.rpartition(b":")
    if not colon:
        raise ValueError("it is not of the form NAME:KEY")
    try:
        decoded = (bytes.fromhex(name[1:].decode()) if name[:1] == b"#" else name).decode()
    except ValueError:
        raise ValueError("the name is no text in UTF-8") from None
    try:
        key = bytes.fromhex(digits.decode())
    except ValueError:
        raise ValueError("the key is not in hexadecimal") from None
    if not 0 < len(decoded.encode()) <= MAX_NAME or "\0" in decoded:
        raise ValueError(f"a name has 1 to {MAX_NAME} bytes, and no NUL")
    if not 0 < len(key) <= MAX_KEY:
        raise ValueError(f"a key has 1 to {MAX_KEY} bytes")
    return decoded, key


class PskObject(ssl.SSLObject):
    """A connection by a pre-shared key."""

    name: str = ""
    """Of the key that was used last; that of the peer, once the handshake is over."""

    key: bytes = b""
    """That key."""


@attrs.frozen(kw_only=True)
class PskCredentials:
    """What one side of TLS connections needs, for any number of them."""

    endpoint: Endpoint
    keys: Mapping[str, bytes] = attrs.field(repr=False)
    """A client has one."""

    verify_peer: bool = attrs.field(default=True, init=False)
    """Who does not know the key is found out, without a certificate."""

    @classmethod
    def load(
        cls, folder: str, endpoint: Endpoint, name: str | None, sandbox: Sandbox = EVERYWHERE
    ) -> PskCredentials:
        """Read the keys in *folder*; a client uses that of *name*. Raises BackendError."""
        check_is_had()
        path = str(Path(folder, FILE))
        keys = parse_keys(_read(path, sandbox), path)
        if endpoint == "client":
            name = DEFAULT_NAME if name is None else name
            if name not in keys:
                raise BackendError(f"Username {name} not found in PSK file {path}")
            keys = {name: keys[name]}
        return cls(endpoint=endpoint, keys=keys)

    def start(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, peer_name: str | None
    ) -> ssl.SSLObject:
        """A connection. It has a context of its own, for ssl does not say whose key it asks for."""
        is_server = self.endpoint == "server"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        context.check_hostname = False
        # A peer that answers with a certificate instead is refused: there is no authority.
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_ciphers(CIPHERS)
        context.sslobject_class = PskObject
        tls: PskObject
        [(first, _)] = [*self.keys.items()][:1] or [("", b"")]

        def key_of(name: str | None) -> bytes:
            tls.name = name or ""
            tls.key = self.keys.get(tls.name, b"")
            return tls.key

        if sys.version_info >= (3, 13):
            if is_server:
                context.num_tickets = 0
                context.set_psk_server_callback(key_of)
            else:
                context.set_psk_client_callback(lambda hint: (first, key_of(first)))
        made = context.wrap_bio(incoming, outgoing, is_server)
        assert isinstance(made, PskObject)
        tls = made
        return tls


def refusal_of_key(credentials: PskCredentials, tls: PskObject) -> str | None:
    """Why *credentials* would refuse the peer of *tls*, by the key that it knows."""
    if tls.key and hmac.compare_digest(credentials.keys.get(tls.name, b""), tls.key):
        return None
    return f"the pre-shared key of '{tls.name}' is another by now, or gone"


def check_is_had() -> None:
    """Raise BackendError where ssl can't do it."""
    if not IS_HAD:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise BackendError(
            f"tls-creds-psk needs Python 3.13 or later, with pre-shared keys in its OpenSSL; "
            f"this is Python {here}"
        )


def _read(path: str, sandbox: Sandbox) -> bytes:
    failed = f"Unable to access credentials {path}"
    try:
        return read_file(path, MAX_FILE, sandbox.open)
    except (OSError, ValueError) as exc:
        raise BackendError.from_os_error(failed, exc) from exc
