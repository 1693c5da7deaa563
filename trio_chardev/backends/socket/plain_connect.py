"""Connecting without an event loop, for programs that need nothing else of one."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from trio_chardev.backends.socket.addresses import (
    Endpoint,
    InetAddress,
    SocketAddress,
    fixed_endpoint,
)
from trio_chardev.plain_errors import BackendError

QUEUE_PAUSE = 0.01  # seconds between attempts while a UNIX server's queue is full


def connect(address: SocketAddress, deadline: float) -> socket.socket:
    """Connect to the first endpoint of *address* that answers.

    Raises BackendError, with the last endpoint's error, or TimeoutError at the *deadline* of
    time.monotonic.
    """
    error = OSError("there is no endpoint")
    for endpoint in _endpoints(address, deadline):
        try:
            return _connect_to(endpoint, deadline)
        except OSError as exc:
            if is_timeout(exc):
                raise
            error = exc
    raise BackendError.from_os_error(f"Failed to connect to '{address}'", error) from error


def is_timeout(error: OSError) -> bool:
    """Is it the deadline, and not an ETIMEDOUT of the kernel's?"""
    return isinstance(error, TimeoutError) and error.errno is None


def remaining(deadline: float) -> float:
    """The seconds until *deadline*. Raises TimeoutError if it is over."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("timed out")
    return seconds


def _endpoints(address: SocketAddress, deadline: float) -> list[Endpoint]:
    """Raises BackendError, TimeoutError."""
    if not isinstance(address, InetAddress):
        return [fixed_endpoint(address)]
    from trio_chardev.backends.socket.lookup import (  # most services are of this machine
        endpoints_in,
        look_up_numbers,
        lookup_errors,
        query_of,
    )

    query = query_of(address, passive=False)
    with lookup_errors(address):
        found = look_up_numbers(query)
        if found is None:
            found = _in_thread(query, deadline)
    if found is None:
        raise TimeoutError("timed out")
    return endpoints_in(found, address)


def _in_thread(query: Sequence[Any], deadline: float) -> Sequence[Any] | None:
    """Call getaddrinfo(3), which a signal does not interrupt; None at the *deadline*.

    Raises OSError, ValueError.
    """
    results: list[Sequence[Any] | Exception] = []

    def run() -> None:
        try:
            results.append(socket.getaddrinfo(*query))
        except Exception as exc:
            results.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if not results:
        return None
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def _connect_to(endpoint: Endpoint, deadline: float) -> socket.socket:
    """Raises OSError."""
    while True:
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM, endpoint.protocol)
        try:
            sock.settimeout(remaining(deadline))
            with endpoint.for_connect() as where:
                code = sock.connect_ex(where)
            if code == 0:
                return sock
            remaining(deadline)  # connect_ex(2) says EAGAIN when the time is over, too
            if code != errno.EAGAIN or endpoint.family != socket.AF_UNIX:
                raise OSError(code, os.strerror(code))
        except BaseException:
            sock.close()
            raise
        sock.close()
        time.sleep(QUEUE_PAUSE)
