"""TLS credentials, as objects: certificates or keys, in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from trio_chardev.access.credentials import TlsCredentials, open_tls_files
from trio_chardev.access.objects import ObjectOptions
from trio_chardev.access.psk import PskCredentials
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.access.secret import password_of
from trio_chardev.errors import OptionsError
from trio_chardev.options.values import path_text_or_none
from trio_chardev.systemd import made_by_systemd


@attrs.frozen(kw_only=True)
class TlsCredsX509(ObjectOptions):
    """X.509 certificates for TLS, in files with fixed names in one folder.

    The folder must have ``ca-cert.pem``, and for a server ``server-cert.pem`` and
    ``server-key.pem``. It may have ``client-cert.pem`` with ``client-key.pem``, for a client, and
    ``ca-crl.pem``, the revocation lists: one of each authority, concatenated.
    """

    verify_peer: bool = True
    """A server demands a certificate; a client checks the server's certificate and name."""

    dir: str | None = attrs.field(default=None, converter=path_text_or_none)
    """Folder with the files. Required, but for $CREDENTIALS_DIRECTORY of systemd."""

    endpoint: Literal["client", "server"] = "client"
    """Side of the connection that they are for."""

    priority: str | None = None
    """GnuTLS's choice of ciphers, in QEMU; GnuTLS is not used here, so only "" is allowed."""

    sanity_check: bool = True
    """Check that peers will accept our own certificate."""

    passwordid: str | None = None
    """Id of the secret that decrypts the key."""

    @property
    def reads_files(self) -> bool:
        return True

    def create(
        self, objects: Mapping[str, object], sandbox: Sandbox = EVERYWHERE
    ) -> TlsCredentials:
        """Load the files. Raises OptionsError, BackendError about a file."""
        folder = _checked_dir(self.dir, self.priority)
        password = password_of(self.passwordid, objects)
        with open_tls_files(folder, self.endpoint, sandbox) as files:
            return TlsCredentials.load(
                files,
                verify_peer=self.verify_peer,
                password=password,
                sanity_check=self.sanity_check,
            )


@attrs.frozen(kw_only=True)
class TlsCredsPsk(ObjectOptions):
    """Pre-shared keys for TLS, in a file; needs Python 3.13.

    The file is ``keys.psk``, with lines ``NAME:KEY``, the key in hexadecimal, as psktool makes it.
    """

    verify_peer: bool = True
    """Must be on: a peer that does not know the key is refused."""

    dir: str | None = attrs.field(default=None, converter=path_text_or_none)
    """Folder with the file. Required, but for $CREDENTIALS_DIRECTORY of systemd."""

    endpoint: Literal["client", "server"] = "client"
    """Side of the connection that they are for."""

    priority: str | None = None
    """GnuTLS's choice of ciphers, in QEMU; GnuTLS is not used here, so only "" is allowed."""

    username: str | None = None
    """Name of a client's key; the default is qemu."""

    @property
    def reads_files(self) -> bool:
        return True

    def create(
        self, objects: Mapping[str, object], sandbox: Sandbox = EVERYWHERE
    ) -> PskCredentials:
        """Load the keys. Raises OptionsError, BackendError about the file or Python's version."""
        folder = _checked_dir(self.dir, self.priority)
        if not self.verify_peer:
            raise OptionsError("'verify-peer' can't be off with pre-shared keys")
        if self.username is not None and self.endpoint == "server":
            raise OptionsError("username should not be set when endpoint=server")
        return PskCredentials.load(folder, self.endpoint, self.username, sandbox)


def _checked_dir(folder: str | None, priority: str | None) -> str:
    """Check the options that both kinds of credentials have. Raises OptionsError."""
    if folder is None and (made := made_by_systemd("CREDENTIALS")) is not None:
        folder = str(made)
    if folder is None:
        raise OptionsError("Missing 'dir' property value")
    if priority:
        raise OptionsError("'priority' is of GnuTLS, which is not used: TLS 1.2 and 1.3 only")
    return folder
