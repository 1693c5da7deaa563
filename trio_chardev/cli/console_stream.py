"""The bytes of a console for a command whose service is not of this machine: by a listener."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeAlias

import trio

from trio_chardev.backends.socket.addresses import InetAddress
from trio_chardev.cli.asking import ANSWER_TIMEOUT
from trio_chardev.cli.client import Service
from trio_chardev.cli.names import Board
from trio_chardev.cli.tls_address import TlsAddress
from trio_chardev.errors import ChardevError

PLAIN: Final = "tcp:"  # how query-devices shows the address of a listener without a protocol
ATTEMPTS: Final = 40
INTERVAL: Final = 0.05  # seconds between two of them

Stream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"


class AttachError(ChardevError):
    """They: the console let us go. You: it can't be had in this way."""


async def dial(service: Service, board: Board, role: str) -> tuple[Stream, int]:
    """Become a client by a listener of the console without a protocol, at the host of the monitor.

    Where the monitor speaks TLS only a listener that does so is used, with the same credentials, so
    that nobody in between reads what the monitor's TLS would have hidden. Return the connection and
    our number. Raises AttachError if there is no such listener.
    """
    address = service.address
    assert isinstance(address, InetAddress)
    is_secure = isinstance(address, TlsAddress)
    for port in _ports(await service.ask("query-devices"), board, role, is_secure):
        try:
            with trio.move_on_after(ANSWER_TIMEOUT):
                plain = await trio.open_tcp_stream(address.host or "localhost", port)
                break
        except OSError:
            continue
    else:
        raise AttachError(
            f"descriptors can't be passed over TCP, and console '{board.console_side}' has no "
            f"listener {'with TLS and no other' if is_secure else 'without TLS or a'} protocol at "
            f"{address.host}: add one with device_add driver=listener, or use the service's UNIX "
            f"socket, by ssh for one"
        )
    with closed_on_error(plain.socket):
        stream = await _secured(plain, address) if isinstance(address, TlsAddress) else plain
        client = await _number_of(service, board, plain.socket)
    return stream, client


def _ports(
    devices: Iterable[Mapping[str, Any]], board: Board, role: str, is_secure: bool
) -> list[int]:
    """The ports of listeners that may do, those for *role* first."""
    rows = [
        row
        for row in devices
        if row["driver"] == "listener"
        and row["console"] == board.console_side
        and row["address"].startswith(PLAIN)
        and row.get("tls", False) == is_secure
    ]
    rows.sort(key=lambda row: row["role"] != role)
    ports = [row["address"].partition(",")[0].rpartition(":")[2] for row in rows]
    return [int(port) for port in ports if port.isdecimal()]


async def _secured(plain: trio.SocketStream, address: TlsAddress) -> Stream:
    """Speak TLS, as with the monitor. Raises ChardevError."""
    from trio_chardev.qmp.client.secure import load, start_tls

    with trio.move_on_after(ANSWER_TIMEOUT):
        return await start_tls(plain, await load(address.credentials), address.peer_name)
    raise AttachError(f"the listener of the console at {address.host} does not answer in TLS")


async def _number_of(service: Service, board: Board, sock: trio.socket.SocketType) -> int:
    """Find the number of our client: it is at our address. Raises AttachError."""
    host, port = sock.getsockname()[:2]
    mine = {f"{host}:{port}", f"[{host}]:{port}"}
    for _ in range(ATTEMPTS):
        for row in await service.ask("query-clients", {"id": board.console_side}):
            if row.get("address", row["who"]) in mine:
                return int(row["client"])
        await trio.sleep(INTERVAL)
    raise AttachError(f"console '{board.console_side}' does not let us in at its listener")


@contextmanager
def closed_on_error(sock: trio.socket.SocketType) -> Iterator[None]:
    """Close *sock* if the block raises."""
    try:
        yield
    except BaseException:
        sock.close()
        raise


@contextmanager
def closed_at_end(stream: Stream) -> Iterator[None]:
    """Close the socket of *stream* at the end, without a word."""
    with (stream if isinstance(stream, trio.SocketStream) else stream.transport_stream).socket:
        yield


async def send_some(stream: Stream, data: bytes) -> int:
    """Send some of *data*; return how many bytes. Raises OSError or trio.BrokenResourceError."""
    if isinstance(stream, trio.SocketStream):
        return await stream.socket.send(data)
    await stream.send_all(data)
    return len(data)
