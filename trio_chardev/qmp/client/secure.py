"""TLS of a client: on a connection to a monitor, or to what else its service listens at."""

from __future__ import annotations

import ssl

import trio

from trio_chardev.access.credentials import TlsCredentials, text_of
from trio_chardev.access.tls_creds import TlsCredsX509
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.workers import run_in_worker

TlsStream = trio.SSLStream[trio.SocketStream]


async def load(options: TlsCredsX509) -> TlsCredentials:
    """Load the files of a client's credentials. Raises OptionsError, BackendError."""
    if options.endpoint != "client":
        raise OptionsError("Expected TLS credentials for a client endpoint")
    if options.passwordid is not None:
        raise OptionsError("'passwordid' is for a service: here is no object with that id")
    return await run_in_worker(lambda: options.create({}))


async def start_tls(
    stream: trio.SocketStream, credentials: TlsCredentials, peer_name: str
) -> TlsStream:
    """Speak TLS on *stream*, with a server whose certificate must have *peer_name*.

    Raises BackendError if the handshake fails; *stream* is then closed, as when cancelled.
    """
    checked = credentials.naming_context if credentials.verify_peer else credentials.context
    try:
        # A peer that leaves without a word (close_notify) has left.
        tls = trio.SSLStream(stream, checked, server_hostname=peer_name, https_compatible=True)
    except ValueError as exc:
        await trio.aclose_forcefully(stream)
        raise BackendError(f"'{peer_name}' can't be the name of a certificate: {exc}") from exc
    try:
        await tls.do_handshake()
    except trio.BrokenResourceError as exc:
        await trio.aclose_forcefully(stream)
        raise BackendError(f"TLS handshake failed: {reason_of_end(exc)}") from exc
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return tls


def reason_of_end(error: BaseException | None) -> str:
    """Say why a connection with TLS has broken."""
    cause = None if error is None else error.__cause__
    if isinstance(cause, ssl.SSLEOFError) or not isinstance(cause, OSError):
        return "the peer has left"
    return text_of(cause)
