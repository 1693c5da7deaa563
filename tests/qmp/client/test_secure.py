"""A QMP client that speaks TLS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.certificates import peer_context, write_folder
from trio_chardev.access.tls_creds import TlsCredsX509
from trio_chardev.backends.socket.addresses import InetAddress
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.qmp.client.client import QmpConnectionError, open_qmp_client

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'

Serve = Callable[[trio.SocketStream], Awaitable[None]]


def credentials(folder: Path, **more: Any) -> TlsCredsX509:
    return TlsCredsX509(id="t", dir=write_folder(folder / "creds"), **more)


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[tuple[str, int]]:
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()[:2]
        nursery.cancel_scope.cancel()


async def greet(stream: trio.SocketStream) -> None:
    """Answer one command."""
    tls = trio.SSLStream(stream, peer_context(server=True), server_side=True)
    try:
        await tls.send_all(GREETING)
        await tls.receive_some()
        await tls.send_all(b'{"return": {}, "id": 1}\r\n')
        await trio.sleep_forever()
    except (trio.BrokenResourceError, ssl.SSLError):
        pass


async def be_silent(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def leave(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.aclose()


async def test_it_speaks_tls_with_a_server_that_has_the_name(tmp_path: Path) -> None:
    tls = credentials(tmp_path)
    async with listening(greet) as (host, port):
        for address in ((host, port), InetAddress(host, str(port))):
            async with open_qmp_client(address, tls=tls) as qmp:
                assert qmp.greeting["capabilities"] == []
        async with open_qmp_client((host, port), tls=tls, tls_hostname="localhost"):
            pass
        with pytest.raises(QmpConnectionError, match="TLS handshake failed: .*other.example"):
            async with open_qmp_client((host, port), tls=tls, tls_hostname="other.example"):
                pass
        unchecked = credentials(tmp_path, verify_peer=False)
        async with open_qmp_client((host, port), tls=unchecked, tls_hostname="other.example"):
            pass


async def test_a_server_that_is_silent_or_leaves_is_told(tmp_path: Path) -> None:
    tls = credentials(tmp_path)
    async with listening(be_silent) as address:
        with pytest.raises(QmpConnectionError, match="did not answer the TLS handshake within 0.1"):
            async with open_qmp_client(address, tls=tls, timeout=0.1):
                pass
    async with listening(leave) as address:
        with pytest.raises(QmpConnectionError, match="TLS handshake failed: "):
            async with open_qmp_client(address, tls=tls):
                pass


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        ({"endpoint": "server"}, OptionsError, "Expected TLS credentials for a client endpoint"),
        ({"passwordid": "s"}, OptionsError, "'passwordid' is for a service"),
        ({"dir": "/nowhere"}, BackendError, "Unable to access credentials /nowhere/ca-cert.pem"),
    ],
)
async def test_what_is_wrong_is_told_before_anything_is_connected(
    more: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        async with open_qmp_client(("127.0.0.1", 1), tls=TlsCredsX509(id="t", **more)):
            pass


async def test_a_unix_socket_has_no_name_for_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="TLS is for a server at a host and a port"):
        async with open_qmp_client(tmp_path / "q", tls=credentials(tmp_path)):
            pass
