"""TLS by pre-shared keys: a peer proves its name by knowing the key, in both directions.

The keys are those of QEMU and GnuTLS's psktool: a file keys.psk of lines ``NAME:KEY``, with the key
in hexadecimal; a NAME that begins with ``#`` is in hexadecimal too. TLS 1.2 and 1.3, without
certificates, tickets and renegotiation. Python's ssl supports such keys since 3.13.
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
from trio_chardev.errors import BackendError, backend_errors
from trio_chardev.files import read_file

FILE: Final = "keys.psk"
MAX_FILE: Final = 1 << 20  # bytes
DEFAULT_NAME: Final = "qemu"
MAX_KEY: Final = 256  # bytes; OpenSSL's limit
MAX_NAME: Final = 128  # bytes; OpenSSL's limit
IS_HAD: Final = bool(getattr(ssl, "HAS_PSK", False))

# For TLS 1.2 those without certificates, and ECDHE-PSK first: what was recorded then stays secret
# if the key becomes known. All ciphers of TLS 1.3 work with such keys.
CIPHERS: Final = "kECDHEPSK:kPSK:!eNULL:!CAMELLIA:!ARIA"


def parse_keys(content: bytes, path: str) -> dict[str, bytes]:
    """Parse a file's *content* to name -> key; if a name is repeated its first line counts.

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
    """Parse *line* to name and key. Raises ValueError, whose text never has the key."""
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
    """A TLS connection by a pre-shared key."""

    name: str = ""
    """The name of the key that was used last; after the handshake it is the peer's."""

    key: bytes = b""
    """The key of that name."""


@attrs.frozen(kw_only=True)
class PskCredentials:
    """The credentials for one side of any number of TLS connections."""

    endpoint: Endpoint
    keys: Mapping[str, bytes] = attrs.field(repr=False)
    """Name -> key; a client has one."""

    verify_peer: bool = attrs.field(default=True, init=False)
    """Always true: a peer that does not know the key is refused, even without a certificate."""

    @classmethod
    def load(
        cls, folder: str, endpoint: Endpoint, name: str | None, sandbox: Sandbox = EVERYWHERE
    ) -> PskCredentials:
        """Load the keys in *folder*; a client uses that of *name*. Raises BackendError."""
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
        """Begin a connection, in its own context, as ssl does not tell whose key it asks for."""
        is_server = self.endpoint == "server"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
        context.check_hostname = False
        # A peer that uses a certificate instead is refused, as there is no authority.
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
    """Why *credentials* would refuse the peer of *tls* and its key now; None if they would not."""
    if tls.key and hmac.compare_digest(credentials.keys.get(tls.name, b""), tls.key):
        return None
    return f"the pre-shared key of '{tls.name}' is another by now, or gone"


def check_is_had() -> None:
    """Raise BackendError if ssl does not support pre-shared keys."""
    if not IS_HAD:
        here = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise BackendError(
            f"tls-creds-psk needs Python 3.13 or later, with pre-shared keys in its OpenSSL; "
            f"this is Python {here}"
        )


def _read(path: str, sandbox: Sandbox) -> bytes:
    with backend_errors(f"Unable to access credentials {path}"):
        return read_file(path, MAX_FILE, sandbox.open)
