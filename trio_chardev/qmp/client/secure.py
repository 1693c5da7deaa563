"""TLS of a client: on a connection to a monitor, or to what else its service listens at."""

from __future__ import annotations

import socket
import ssl

import trio

from trio_chardev.access.credentials import TlsCredentials, text_of
from trio_chardev.access.tls_creds import TlsCredsX509
from trio_chardev.backends.socket.plain_connect import is_timeout
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.workers import run_in_worker

TlsStream = trio.SSLStream[trio.SocketStream]


async def load(options: TlsCredsX509) -> TlsCredentials:
    """Load the files of a client's credentials. Raises OptionsError, BackendError."""
    return await run_in_worker(load_now, options)


def load_now(options: TlsCredsX509) -> TlsCredentials:
    """Do as `load`, without an event loop."""
    if options.endpoint != "client":
        raise OptionsError("Expected TLS credentials for a client endpoint")
    if options.passwordid is not None:
        raise OptionsError("'passwordid' is for a service: here is no object with that id")
    return options.create({})


async def start_tls(
    stream: trio.SocketStream, credentials: TlsCredentials, peer_name: str
) -> TlsStream:
    """Speak TLS on *stream*, with a server whose certificate must have *peer_name*.

    Raises BackendError if the handshake fails; *stream* is then closed, as when cancelled.
    """
    checked = _context_of(credentials)
    try:
        # A peer that leaves without a word (close_notify) has left.
        tls = trio.SSLStream(stream, checked, server_hostname=peer_name, https_compatible=True)
    except ValueError as exc:
        await trio.aclose_forcefully(stream)
        raise _no_name(peer_name, exc) from exc
    try:
        await tls.do_handshake()
    except trio.BrokenResourceError as exc:
        await trio.aclose_forcefully(stream)
        raise _failed_handshake(exc.__cause__) from exc
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return tls


def start_tls_now(
    sock: socket.socket, credentials: TlsCredentials, peer_name: str
) -> ssl.SSLSocket:
    """Do as `start_tls`, without an event loop. Raises TimeoutError, too, when that of *sock* is over."""
    try:
        return _context_of(credentials).wrap_socket(sock, server_hostname=peer_name)
    except OSError as exc:  # some of which are ValueErrors, too
        sock.close()
        if is_timeout(exc):
            raise
        raise _failed_handshake(exc) from exc
    except ValueError as exc:
        sock.close()
        raise _no_name(peer_name, exc) from exc


def _context_of(credentials: TlsCredentials) -> ssl.SSLContext:
    return credentials.naming_context if credentials.verify_peer else credentials.context


def _no_name(peer_name: str, error: ValueError) -> BackendError:
    return BackendError(f"'{peer_name}' can't be the name of a certificate: {error}")


def _failed_handshake(cause: BaseException | None) -> BackendError:
    return BackendError(f"TLS handshake failed: {reason_of_end(cause)}")


def reason_of_end(cause: BaseException | None) -> str:
    """Say why a connection with TLS has broken, because of *cause*."""
    if isinstance(cause, ssl.SSLEOFError) or not isinstance(cause, OSError):
        return "the peer has left"
    return text_of(cause)
