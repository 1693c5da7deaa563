"""Objects, which have ids like chardevs: TLS credentials, secrets, access lists, monitors.

The options classes are QAPI's, for ``object-add`` and ``--object``. `create` makes the object that
is kept under the id, and is looked up when a backend opens or, for an `Authorizer`, when it is
used. Errors in files and keys are found by `create`, not when the first client comes. A
`MonitorQmp` is kept as a device, which the registry makes.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

import attrs

from trio_chardev.access.credentials import TlsCredentials, open_tls_files
from trio_chardev.access.psk import PskCredentials
from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.errors import OptionsError, backend_errors
from trio_chardev.files import made_by_systemd, read_file
from trio_chardev.options.documented import Documented
from trio_chardev.options.members import TaggedUnion
from trio_chardev.options.values import path_text_or_none

MAX_SECRET = 1 << 20  # bytes of a secret's file

Policy = Literal["deny", "allow"]


@attrs.frozen(kw_only=True)
class ObjectOptions(Documented):
    """The options that every object has."""

    id: str
    """Name of the object, for its users."""

    @property
    def reads_files(self) -> bool:
        """Does `create` read files, so that it has to run in a thread?"""
        return False

    def create(self, objects: Mapping[str, object], sandbox: Sandbox = EVERYWHERE) -> object:
        """Make the object to be kept under the id; *objects* are those that exist.

        *sandbox* limits which files may be read. Raises OptionsError, BackendError.
        """
        return self


@runtime_checkable
class Authorizer(Protocol):
    """Decides which peers may connect."""

    def allows(self, identity: str) -> bool:
        """May this peer connect? *identity* is its certificate's distinguished name or key name."""


@attrs.frozen
class SecretValue:
    """The value of a `Secret`."""

    data: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class AuthzListRule:
    """Decides about the peers that match."""

    match: str
    """Identity of a peer, such as ``O=Example,CN=laptop``."""

    policy: Policy
    """Whether matching peers may connect."""

    format: Literal["exact", "glob"] = "exact"
    """In a glob ``*`` is any text and ``?`` any character."""

    def matches(self, identity: str) -> bool:
        """Does *identity* match?"""
        if self.format == "exact":
            return self.match == identity
        return matches_glob(self.match, identity)


def matches_glob(pattern: str, text: str) -> bool:
    """Does all of *text* match *pattern*, in which ``*`` is any text and ``?`` any character?

    As GLib's g_pattern_match. It takes one step for each character, whatever they are: the set of
    places in the pattern that the text so far may lead to is kept as the bits of a number.
    """
    wanted = pattern.replace("*", "")  # *loops* has the places in it that had a "*" before them
    if len(wanted) > len(text):
        return False
    loops, at, places = 0, 0, dict.fromkeys(wanted, 0)
    for char in re.sub(r"\*+", "*", pattern):
        if char == "*":
            loops |= 1 << at
        else:
            places[char] |= 1 << at
            at += 1
    any_char = places.get("?", 0)
    reached = 1
    for char in text:
        fits = places.get(char, 0) | any_char
        reached = ((reached & fits) << 1) | (reached & loops)
    return bool(reached >> at & 1)


@attrs.frozen(kw_only=True)
class AuthzList(ObjectOptions):
    """A list of rules about which peers may connect; the first that matches decides."""

    policy: Policy = "deny"
    """Whether peers that no rule matches may connect."""

    rules: tuple[AuthzListRule, ...] = ()
    """The rules, in order."""

    def create(self, objects: Mapping[str, object], sandbox: Sandbox = EVERYWHERE) -> AuthzList:
        """Return this object itself."""
        return self

    def allows(self, identity: str) -> bool:
        """See `Authorizer`."""
        for rule in self.rules:
            if rule.matches(identity):
                return rule.policy == "allow"
        return self.policy == "allow"


@attrs.frozen(kw_only=True)
class AuthzSimple(ObjectOptions):
    """Lets only one peer connect."""

    identity: str
    """Identity of that peer, such as ``O=Example,CN=laptop``."""

    def create(self, objects: Mapping[str, object], sandbox: Sandbox = EVERYWHERE) -> AuthzSimple:
        """Return this object itself."""
        return self

    def allows(self, identity: str) -> bool:
        """See `Authorizer`."""
        return identity == self.identity


@attrs.frozen(kw_only=True)
class Secret(ObjectOptions):
    """A password, given here or in a file."""

    format: Literal["raw", "base64"] = "raw"
    """Encoding of the secret."""

    data: str | None = attrs.field(default=None, repr=False)
    """The secret itself; others may see it in the list of processes or in logs."""

    file: str | None = attrs.field(default=None, converter=path_text_or_none)
    """File that contains the secret, and nothing else, not even an end of line."""

    @property
    def reads_files(self) -> bool:
        return self.file is not None

    def create(self, objects: Mapping[str, object], sandbox: Sandbox = EVERYWHERE) -> SecretValue:
        """Read the secret. Raises OptionsError, BackendError if the file can't be read."""
        if self.data is not None and self.file is not None:
            raise OptionsError("'file' and 'data' are mutually exclusive")
        if self.file is not None:
            failed = f"Unable to read {self.file}: Failed to open file \u201c{self.file}\u201d"
            with backend_errors(failed):
                content = read_file(self.file, MAX_SECRET, sandbox.open)
        elif self.data is not None:
            content = _encoded(self.data)
        else:
            raise OptionsError("Either 'file' or 'data' must be provided")
        return SecretValue(_decode_base64(content) if self.format == "base64" else content)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # gives the command line's exact bytes
    except UnicodeEncodeError as exc:
        raise OptionsError("'data' is no text") from exc


def _decode_base64(text: bytes) -> bytes:
    if re.search(rb"[^A-Za-z0-9+/=\n]", text):
        raise OptionsError("Base64 data contains invalid characters")
    digits = re.sub(rb"[=\n]", b"", text)
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4))
    except ValueError as exc:
        raise OptionsError("Base64 data is truncated") from exc


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
        password = _password(self.passwordid, objects)
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


@attrs.frozen(kw_only=True)
class MonitorQmp(ObjectOptions):
    """A QMP monitor on a chardev, for one client at a time; ``-mon`` before QEMU 11.1."""

    chardev: str
    """Id of the chardev to use."""

    pretty: bool = False
    """Indent the output."""

    close_action: Literal["none", "delete"] = "none"
    """What to do when the client leaves; with delete, remove the monitor and its chardev."""

    insecure: bool = False
    """Accept any client, not only those of our own user."""


def _password(id: str | None, objects: Mapping[str, object]) -> bytes:
    if id is None:
        return b""
    secret = objects.get(id)
    if secret is None:
        raise OptionsError(f"No secret with id '{id}'")
    if not isinstance(secret, SecretValue):
        raise OptionsError(f"Object with id '{id}' is not a secret")
    return secret.data


OBJECTS: dict[str, type[ObjectOptions]] = {
    "authz-list": AuthzList,
    "authz-simple": AuthzSimple,
    "monitor-qmp": MonitorQmp,
    "secret": Secret,
    "tls-creds-psk": TlsCredsPsk,
    "tls-creds-x509": TlsCredsX509,
}
"""``qom-type`` -> options class."""

OBJECT = TaggedUnion(
    "ObjectOptions",
    OBJECTS,
    tag="qom-type",
    is_flat=True,
    absent={"monitor-hmp": "only QMP is spoken here (monitor-qmp)"},
)
"""``{"qom-type": TYPE, "id": ID, ...}``, for structuring."""
