"""The window's size at a telnet socket: who tells it, to whom, and how long it is known."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio

from tests.links import Served, serving, until
from trio_chardev.backends.socket.addresses import FdAddress, InetAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.core.handlers import stateless
from trio_chardev.core.line import Line
from trio_chardev.events import UNKNOWN_SIZE, Event, WindowSize
from trio_chardev.protocols.telnet import TelnetConnection
from trio_chardev.protocols.telnet_roles import DO, IAC, SB, SE, SERVER, WILL, WINDOW_SIZE
from trio_chardev.registry import open_registry

SMALL, WIDE = WindowSize(80, 24), WindowSize(132, 43)
ANY = InetAddress("127.0.0.1", "0")
TELLS = bytes([IAC, WILL, WINDOW_SIZE])
ASKS = bytes([IAC, DO, WINDOW_SIZE])
PROTOCOLS: list[dict[str, Any]] = [
    {"telnet": True},
    {"rfc2217": True},
    {"telnet": True, "websocket": True},
]


def told(size: WindowSize) -> bytes:
    return TelnetConnection(SERVER).encode_subnegotiation(
        WINDOW_SIZE, size.cols.to_bytes(2, "big") + size.rows.to_bytes(2, "big")
    )


def sizes(served: Served) -> list[object]:
    return [event for event in served.events if isinstance(event, Event | WindowSize)]


@pytest.mark.parametrize("protocols", PROTOCOLS, ids=["telnet", "RFC 2217", "in a WebSocket"])
async def test_our_client_tells_our_server_at_once_and_when_it_changes(
    protocols: dict[str, Any],
) -> None:
    async with (
        serving(SocketOptions(addr=ANY, **protocols)) as server,
        serving(SocketOptions(addr=server.backend.address, server=False, **protocols)) as client,
    ):
        await client.backend.line.set_window_size(WIDE)
        await until(lambda: WIDE in server.events)
        for size in (SMALL, SMALL, WindowSize(65535, 255), WIDE):
            await client.backend.line.set_window_size(size)
        await client.send(b"x")
        await server.until_received(b"x")
        told_sizes = [event for event in server.events if isinstance(event, WindowSize)]
        assert told_sizes == [WIDE, SMALL, WindowSize(65535, 255), WIDE]
        assert bytes(server.received + client.received) == b"x"


async def test_a_size_that_was_told_is_forgotten_with_its_peer() -> None:
    async with serving(SocketOptions(addr=ANY, telnet=True)) as server:
        for wire in (TELLS + told(WIDE) + b"a", b"b"):
            async with await trio.open_tcp_stream("127.0.0.1", server.port) as client:
                await client.send_all(wire)
                await server.until_received(wire[-1:])
            await until(lambda: not server.backend.is_open)
            server.received.clear()
    assert sizes(server) == [
        *(Event.OPENED, WIDE, Event.CLOSED, UNKNOWN_SIZE),
        *(Event.OPENED, Event.CLOSED),
    ]


async def test_each_server_that_a_client_comes_to_is_told() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    trio_listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    address = InetAddress("127.0.0.1", str(listener.getsockname()[1]))
    options = SocketOptions(addr=address, server=False, telnet=True, reconnect_ms=1)
    async with trio_listener, serving(options) as client:
        await client.backend.line.set_window_size(SMALL)  # while nobody is there
        await client.backend.line.set_window_size(WIDE)
        for _ in range(2):
            with trio.fail_after(5):
                async with await trio_listener.accept() as stream:
                    got = b""
                    await stream.send_all(ASKS)
                    while told(WIDE) not in got:
                        got += await stream.receive_some()
                    assert got == TELLS + told(WIDE)


async def test_a_server_that_reads_nothing_costs_little_and_gets_the_last_size() -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    theirs.send(ASKS)
    options = SocketOptions(addr=FdAddress("f"), server=False, telnet=True)
    async with open_registry() as registry:
        chardev = await registry.add("x", options, take_fd=lambda name: ours.detach())
        frontend = chardev.attach(be_change=stateless)
        while frontend.try_send(b"x" * 65536):
            pass
        line = chardev.backend.line
        for cols in range(1, 5000):
            await line.set_window_size(WindowSize(cols, 24))
        layer = chardev.backend.layer  # type: ignore[attr-defined]
        assert len(layer._unsent) < 1 << 18
        got = b""
        while told(WindowSize(4999, 24)) not in got:
            got += await trio.to_thread.run_sync(theirs.recv, 1 << 20)
        assert got.count(bytes([IAC, SB, WINDOW_SIZE])) < 2000, "those that the kernel had room for"
        assert got.endswith(bytes([IAC, SE]))
    theirs.close()


@pytest.mark.parametrize("options", [SocketOptions(addr=ANY), SocketOptions(addr=ANY, tn3270=True)])
async def test_without_telnet_there_is_no_window(options: SocketOptions) -> None:
    async with serving(options) as server:
        assert type(server.backend.line).set_window_size is Line.set_window_size
        assert "window" in server.backend.line.missing


async def test_a_peer_that_is_kept_has_the_window_that_it_had() -> None:
    options = SocketOptions(addr=ANY, telnet=True)
    async with open_registry() as registry:
        chardev = await registry.add("x", options)
        frontend = chardev.attach(be_change=stateless)
        async with await trio.open_tcp_stream("127.0.0.1", chardev.port or 0) as client:
            await client.send_all(TELLS + told(WIDE))
            await until(lambda: frontend.window_size == WIDE)
            same = SocketOptions(addr=InetAddress("127.0.0.1", str(chardev.port)), telnet=True)
            await registry.change("x", same, keep_peer=True)
            assert frontend.window_size == WIDE
            await registry.change("x", same)
            assert frontend.window_size == UNKNOWN_SIZE


async def test_a_server_that_is_kept_is_told_what_was_set_last() -> None:
    async with serving(SocketOptions(addr=ANY, telnet=True)) as server, open_registry() as registry:
        options = SocketOptions(addr=server.backend.address, server=False, telnet=True)
        chardev = await registry.add("x", options)
        frontend = chardev.attach(be_change=stateless)
        await frontend.line.set_window_size(WIDE)
        await registry.change("x", options, keep_peer=True)
        await until(lambda: WIDE in server.events)
        await frontend.line.set_window_size(SMALL)
        await until(lambda: SMALL in server.events)
    assert sizes(server)[:3] == [Event.OPENED, WIDE, SMALL]
