"""Clients that come to a server while it has one: they are logged, and wait or are refused."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, wrap_client_stream

import trio_chardev as tc
from tests.certificates import peer_context, server_credentials
from tests.links import until
from trio_chardev.backends.socket.addresses import InetAddress, UnixAddress
from trio_chardev.backends.socket.door import MAX_WAITING
from trio_chardev.backends.socket.socket import SocketBackend

LOOPBACK = InetAddress("127.0.0.1", "0")


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[tuple[tc.Registry, SocketBackend]]:
    options = {"addr": LOOPBACK, **options}
    with trio.fail_after(20):
        async with tc.open_registry() as registry:
            if credentials := options.pop("credentials", None):
                registry.objects["o"] = credentials
                options["tls_creds"] = "o"
            await registry.add("x", tc.SocketOptions(**options))
            backend = registry["x"].backend
            assert isinstance(backend, SocketBackend)
            yield registry, backend


async def come(backend: SocketBackend) -> trio.SocketStream:
    at = backend.address
    if isinstance(at, UnixAddress):
        return await trio.open_unix_socket(at.path)
    assert isinstance(at, InetAddress)
    return await trio.open_tcp_stream("127.0.0.1", int(at.port))


async def all_of(stream: trio.abc.ReceiveStream) -> bytes:
    got = bytearray()
    while data := await stream.receive_some():
        got += data
    return bytes(got)


def port_of(stream: trio.SocketStream) -> int:
    port: int = stream.socket.getsockname()[1]
    return port


async def test_one_who_waits_is_told_of_once_and_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with served() as (registry, backend), await come(backend) as first:
        await until(lambda: backend.is_open)
        assert registry.query()[0].waiting == 0
        async with await come(backend) as second:
            await second.send_all(b"2")
            await until(lambda: backend.peer.waiting == 1)
            assert registry.query()[0].waiting == 1
            await trio.testing.wait_all_tasks_blocked()
            assert [record.message for record in caplog.records] == [
                f"chardev 'x': 127.0.0.1:{port_of(second)} waits for "
                f"127.0.0.1:{port_of(first)} to leave"
            ]
            user = registry["x"].attach()
            await first.aclose()
            assert await user.receive_some() == b"2"
            await until(lambda: registry.query()[0].waiting == 0)


async def test_a_unix_peer_is_named_by_its_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    me = f"process {os.getpid()} of user {os.getuid()}"
    async with served(addr=UnixAddress(str(tmp_path / "s"))) as (_, backend):  # noqa: SIM117
        async with await come(backend), await come(backend):
            await until(lambda: backend.peer.waiting == 1)
            await until(lambda: bool(caplog.records))
            assert caplog.records[0].message == f"chardev 'x': {me} waits for {me} to leave"


async def test_many_wait_in_their_order_and_the_log_is_not_flooded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    count = MAX_WAITING + 1
    async with served() as (registry, backend):
        user = registry["x"].attach()
        clients = []
        for number in range(count):
            clients.append(await come(backend))
            await clients[-1].send_all(b"%d" % number)
            await until(lambda number=number: backend.peer.waiting == number)  # type: ignore[misc]
        assert len(caplog.records) < count - 1
        got = b""
        for client in clients:
            await client.aclose()
        while len(got) < count:
            got += await user.receive_some()
        assert got == b"".join(b"%d" % number for number in range(count))


async def test_one_who_was_shaking_hands_is_told_of_when_another_is_served(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    credentials = server_credentials(tmp_path / "c", verify_peer=False)
    async with (
        served(credentials=credentials) as (_, backend),
        await come(backend) as slow,
        await come(backend) as quick,
    ):
        context = peer_context(server=False)
        await trio.SSLStream(quick, context, server_hostname="localhost").do_handshake()
        await until(lambda: bool(caplog.records))
        assert caplog.records[0].message == (
            f"chardev 'x': 127.0.0.1:{port_of(slow)} waits for 127.0.0.1:{port_of(quick)} to leave"
        )


async def test_those_who_wait_are_served_by_the_next_server_at_the_same_address() -> None:
    async with served() as (registry, backend):
        user = registry["x"].attach(be_change=tc.stateless)
        async with await come(backend) as first, await come(backend) as second:
            await first.send_all(b"1")
            await second.send_all(b"2")
            assert await user.receive_some() == b"1"
            await until(lambda: backend.peer.waiting == 1)
            await registry.change("x", tc.SocketOptions(addr=backend.address))
            assert await user.receive_some() == b"2"


@pytest.mark.parametrize("protocol", ["plain", "telnet", "tls"])
async def test_who_is_refused_is_told_why(
    protocol: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    options: dict[str, Any] = {"telnet": protocol == "telnet"}
    if protocol == "tls":
        options["credentials"] = server_credentials(tmp_path / "c", verify_peer=False)

    def secured(stream: trio.SocketStream) -> trio.abc.Stream:
        if protocol != "tls":
            return stream
        context = peer_context(server=False)
        return trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)

    async with served(on_busy="refuse", **options) as (_, backend):
        first_socket = await come(backend)
        first = secured(first_socket)
        if isinstance(first, trio.SSLStream):
            await first.do_handshake()
        await until(lambda: backend.is_open)
        text = f"chardev 'x' is in use by 127.0.0.1:{port_of(first_socket)}\r\n".encode()
        for _ in range(2):
            second_socket = await come(backend)
            second = secured(second_socket)
            assert (await all_of(second)).endswith(text)
            await second_socket.aclose()
        await until(lambda: bool(caplog.records))
        assert "is refused: it is in use by" in caplog.records[0].message
        assert backend.peer.waiting == 0
        await first_socket.aclose()
        await until(lambda: not backend.is_open)
        third = await come(backend)  # now it is free
        if protocol == "tls":
            secure = secured(third)
            assert isinstance(secure, trio.SSLStream)
            await secure.do_handshake()
        await until(lambda: backend.is_open)
        await third.aclose()


async def test_a_websocket_that_is_refused_is_closed_with_1013() -> None:
    """Though it came before the other's handshake was over."""
    async with served(on_busy="refuse", websocket=True) as (_, backend):  # noqa: SIM117
        async with await come(backend) as one, await come(backend) as other:
            async with trio.open_nursery() as nursery:
                first = await wrap_client_stream(nursery, one, "localhost", "/")
                await first.ping()
                second = await wrap_client_stream(nursery, other, "localhost", "/")
                with pytest.raises(ConnectionClosed) as caught:
                    await second.get_message()
                nursery.cancel_scope.cancel()
            reason = caught.value.reason
            assert reason is not None
            assert reason.code == 1013
            assert reason.reason == f"chardev 'x' is in use by 127.0.0.1:{port_of(one)}"


async def test_a_client_can_refuse_nobody() -> None:
    with pytest.raises(tc.OptionsError, match="incompatible with socket in client connect mode"):
        async with served(on_busy="refuse", server=False):
            pass
