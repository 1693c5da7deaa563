"""What to ask getaddrinfo(3) for an address, and what its answer means; whoever calls it."""

from __future__ import annotations

import encodings.idna  # noqa: F401 - else at the first name, when it may be too late for it
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from trio_chardev.backends.socket.addresses import MAX_PORT, Endpoint, InetAddress
from trio_chardev.plain_errors import BackendError

MAX_HOST = 1024  # characters, netdb.h's NI_MAXHOST without its NUL
NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Query(NamedTuple):
    """What getaddrinfo(3) is asked."""

    host: str | None
    port: str
    family: int
    kind: int
    protocol: int
    flags: int


def query_of(
    address: InetAddress,
    *,
    passive: bool,
    kind: int = socket.SOCK_STREAM,
    family: int = socket.AF_UNSPEC,
) -> Query:
    """Return what to ask for *address*. Raises BackendError."""
    if address.mptcp and kind != socket.SOCK_STREAM:
        raise BackendError("mptcp is for stream sockets only")
    if _is_port_too_big(address.port):  # the C library would take it modulo 65536
        raise BackendError(f"{_failed(address)}: a port is at most {MAX_PORT}")
    flags = socket.AI_PASSIVE if passive else 0
    if address.numeric:
        flags |= NUMERIC
    host = address.host or (None if passive else "")
    return Query(host, address.port, family or _family(address), kind, 0, flags)


@contextmanager
def lookup_errors(address: InetAddress) -> Iterator[None]:
    """Make the errors of getaddrinfo(3) in the block BackendErrors, with QEMU's texts."""
    try:
        yield
    except socket.gaierror as exc:
        error = BackendError(f"{_failed(address)}: {exc.strerror}")
        if exc.errno == socket.EAI_SERVICE:
            error.add_note(f"A port is a number, 0 to {MAX_PORT}, or the name of a service.")
        raise error from exc
    except OSError as exc:
        raise BackendError.from_os_error(_failed(address), exc) from exc
    except ValueError as exc:  # not encodable as a name
        raise BackendError(f"{_failed(address)}: Name or service not known") from exc


def look_up_numbers(query: Query) -> Sequence[Any] | None:
    """Return the answer if it needs no resolver, else None. Raises OSError, ValueError."""
    if len(query.host or "") > MAX_HOST:  # Python encodes it first, which would take its time
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    try:
        return socket.getaddrinfo(*query[:-1], query.flags | NUMERIC)
    except (OSError, ValueError):
        if query.flags & NUMERIC:
            raise
        return None


def endpoints_in(found: Sequence[Any], address: InetAddress) -> list[Endpoint]:
    """Return the endpoints in an answer, each once."""
    protocol = socket.IPPROTO_MPTCP if address.mptcp else 0
    return list(dict.fromkeys(Endpoint(info[0], info[4], protocol) for info in found))


def _failed(address: InetAddress) -> str:
    return f"address resolution failed for {address}"


def _family(address: InetAddress) -> int:
    """Read the two optional flags as QEMU does: one that is on excludes the other family."""
    if address.ipv4 is False and address.ipv6 is False:
        raise BackendError("Cannot disable IPv4 and IPv6 at same time")
    if address.ipv4 is address.ipv6:
        return socket.AF_UNSPEC
    if address.ipv6 or address.ipv4 is False:
        return socket.AF_INET6
    return socket.AF_INET


def _is_port_too_big(port: str) -> bool:
    digits = port.strip().lstrip("+").lstrip("0")
    is_number = digits.isascii() and digits.isdigit()
    return is_number and (len(digits) > len(str(MAX_PORT)) or int(digits) > MAX_PORT)
