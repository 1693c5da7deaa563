"""TLS credentials: QEMU's folder of PEM files, loaded into contexts of Python's ssl.

TLS 1.2 and later, without renegotiation, compression, session tickets or resumption by session id:
every handshake is a full one, so a peer is checked each time it connects. With revocation lists,
each certificate of a chain is looked up, those of authorities too, so each authority must have a
list. Nothing here talks to a socket.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import attrs

from trio_chardev.access.sandbox import EVERYWHERE, Sandbox
from trio_chardev.errors import BackendError, backend_errors
from trio_chardev.files import open_regular

MAX_PEM = 1 << 24  # bytes of a file; revocation lists are long

Endpoint = Literal["client", "server"]

CRL_IS_LACKING = 3
"""X509_V_ERR_UNABLE_TO_GET_CRL."""

UNSUPPORTED_PURPOSE = 26
"""X509_V_ERR_INVALID_PURPOSE: "not for servers", as a client's certificate should be."""


@attrs.frozen
class PemFile:
    """An open PEM file."""

    path: Path
    fd: int

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """A path for ssl, which takes no descriptor; it leads to exactly this open file."""
        return f"/proc/self/fd/{self.fd}"


@attrs.frozen(kw_only=True)
class TlsFiles:
    """The files of a credentials folder."""

    endpoint: Endpoint
    ca: PemFile
    revoked: PemFile | None
    cert: PemFile | None
    key: PemFile | None


@contextmanager
def open_tls_files(
    folder: str, endpoint: Endpoint, sandbox: Sandbox = EVERYWHERE
) -> Iterator[TlsFiles]:
    """Open the files of *folder*. Raises BackendError if a required one can't be opened."""
    where = Path(folder)
    with ExitStack() as stack:

        def opened(name: str) -> PemFile:
            file = _open_pem(where / name, sandbox)
            stack.callback(os.close, file.fd)
            return file

        def if_there(name: str) -> PemFile | None:
            try:
                return opened(name)
            except BackendError as exc:
                if isinstance(exc.__cause__, FileNotFoundError):
                    return None
                raise

        ca = opened("ca-cert.pem")
        names = f"{endpoint}-cert.pem", f"{endpoint}-key.pem"
        cert, key = map(opened if endpoint == "server" else if_there, names)
        if cert is None or key is None:
            cert = key = None
        revoked = if_there("ca-crl.pem")
        yield TlsFiles(endpoint=endpoint, ca=ca, revoked=revoked, cert=cert, key=key)


def _open_pem(path: Path, sandbox: Sandbox) -> PemFile:
    with backend_errors(f"Unable to access credentials {path}"):
        return PemFile(path, open_regular(str(path), MAX_PEM, sandbox.open))


@attrs.frozen(kw_only=True)
class TlsCredentials:
    """The credentials for one side of any number of TLS connections."""

    endpoint: Endpoint
    verify_peer: bool
    context: ssl.SSLContext
    naming_context: ssl.SSLContext
    """Checks the peer's name as well; ssl can't be told that for a single connection."""

    @classmethod
    def load(
        cls, files: TlsFiles, *, verify_peer: bool, password: bytes, sanity_check: bool
    ) -> TlsCredentials:
        """Load *files*; *password* is for an encrypted key. Raises BackendError."""
        context = _load_context(files, verify_peer, password)
        naming_context = context
        if files.endpoint == "client" and verify_peer:
            naming_context = _load_context(files, verify_peer, password)
            naming_context.check_hostname = True
        if sanity_check and files.cert is not None:
            _check_own_certificate(files, password)
        return cls(
            endpoint=files.endpoint,
            verify_peer=verify_peer,
            context=context,
            naming_context=naming_context,
        )

    def start(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, peer_name: str | None
    ) -> ssl.SSLObject:
        """Begin a connection; a client may give the server's *peer_name*. Raises BackendError."""
        if self.endpoint == "server":
            made = _without_sessions(self.context).wrap_bio(incoming, outgoing, server_side=True)
            made.context = self.context
            return made
        context = self.context if peer_name is None else self.naming_context
        try:
            return context.wrap_bio(incoming, outgoing, server_hostname=peer_name)
        except ValueError as exc:
            raise BackendError(f"'{peer_name}' can't be the name of a certificate: {exc}") from exc


def _load_context(files: TlsFiles, verify_peer: bool, password: bytes) -> ssl.SSLContext:
    verify_mode = ssl.CERT_REQUIRED if verify_peer else ssl.CERT_NONE
    context = _new_context(files.endpoint, verify_mode)
    _load_authorities(context, files.ca, "CA certificate list")
    if files.revoked is not None:
        _load_revocations(context, files.revoked)
    if files.cert is not None and (key := files.key) is not None:
        try:
            # Without a password function OpenSSL would ask at the terminal.
            context.load_cert_chain(files.cert.name, key.name, lambda: password)
        except OSError as exc:
            raise BackendError(
                f"Cannot load certificate '{files.cert}' & key '{key}': {text_of(exc)}"
            ) from exc
    return context


def _new_context(endpoint: Endpoint, verify_mode: ssl.VerifyMode) -> ssl.SSLContext:
    is_server = endpoint == "server"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if is_server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    if is_server:
        context.num_tickets = 0
    context.check_hostname = False
    context.verify_mode = verify_mode
    return context


def _without_sessions(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make a server's context without certificates and sessions, otherwise like *context*.

    With TLS 1.2 OpenSSL keeps sessions for two hours in the context that a connection was created
    with, and ssl can't switch that off. Everything else comes from the context that the connection
    is given later (SSL_set_SSL_CTX), but for settings that are copied when it is created.
    """
    fresh = _new_context("server", context.verify_mode)
    fresh.verify_flags = context.verify_flags
    return fresh


def _load_revocations(context: ssl.SSLContext, file: PemFile) -> None:
    """Load *file* and check each certificate of a chain against it. Raises BackendError.

    A certificate in *file* is an error, as OpenSSL would trust it.
    """
    before = context.cert_store_stats()
    _load_authorities(context, file, "CA CRL list")
    after = context.cert_store_stats()
    if after["crl"] == before["crl"] or after["x509"] != before["x509"]:
        raise BackendError(
            f"Unable to import CA CRL list {file}: it must have CRLs, and no certificates"
        )
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _load_authorities(context: ssl.SSLContext, file: PemFile, what: str) -> None:
    try:
        context.load_verify_locations(file.name)
    except OSError as exc:
        raise BackendError(f"Unable to import {what} {file}: {text_of(exc)}") from exc


def text_of(error: OSError) -> str:
    """The text of one of ssl's errors, for the user."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return re.sub(r"^\[.*?\] | \(_ssl\.c:\d+\)$", "", error.strerror or str(error))


def _check_own_certificate(files: TlsFiles, password: bytes) -> None:
    """Raise BackendError if a peer with the same CA would refuse our certificate.

    This is found out by a handshake with such a peer, in memory.
    """
    ours = _load_context(attrs.evolve(files, endpoint="server"), False, password)
    theirs = _load_context(attrs.evolve(files, endpoint="client", cert=None), True, password)
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    us, them = ours.wrap_bio(to_us, to_them, True), theirs.wrap_bio(to_them, to_us)
    try:
        for party in (them, us, them):
            with contextlib.suppress(ssl.SSLWantReadError):
                party.do_handshake()
    except ssl.SSLCertVerificationError as exc:
        if files.endpoint == "client" and exc.verify_code == UNSUPPORTED_PURPOSE:
            return
        hint = ""
        if exc.verify_code == CRL_IS_LACKING:
            hint = f" ({files.revoked} must have one of each CA of a chain, the root's included)"
        raise BackendError(
            f"Our own certificate {files.cert} failed validation against {files.ca}: "
            f"{text_of(exc)}{hint}"
        ) from exc
