"""ser2net, the serial port server of Debian, at both ends of our telnet."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.peers import LOOPBACK, free_port, ser2net
from trio_chardev import (
    Frontend,
    InetAddress,
    PtyOptions,
    Registry,
    SocketOptions,
    open_registry,
)
from trio_chardev.backends.socket.socket import SocketBackend

EVERY_BYTE = bytes(range(256))


async def add_client(registry: Registry, port: str, *, telnet: bool) -> None:
    """The chardev "far", which comes to *port* as soon as somebody listens there."""
    addr = InetAddress(LOOPBACK, port)
    options = SocketOptions(addr=addr, server=False, telnet=telnet, reconnect_ms=20)
    await registry.add("far", options)


async def check_both_ways(one: Frontend, other: Frontend) -> None:
    """What one sends the other receives, whichever byte it is."""
    while not (one.is_open and other.is_open):  # noqa: ASYNC110 - either may be the later one
        await trio.sleep(0.001)
    for sender, receiver in [(one, other), (other, one)]:
        await sender.send_all(EVERY_BYTE)
        got = b""
        while len(got) < len(EVERY_BYTE):
            got += await receiver.receive_some()
        assert got == EVERY_BYTE


async def test_a_telnet_client_reaches_the_line_that_ser2net_serves(tmp_path: Path) -> None:
    """And ser2net takes a PTY of ours for the line."""
    port = free_port()
    async with open_registry() as registry:
        line = (await registry.add("line", PtyOptions())).pty
        accepter, connector = f"telnet,tcp,{LOOPBACK},{port}", f"serialdev,{line},9600n81,local"
        async with ser2net(accepter, connector, tmp_path):
            await add_client(registry, port, telnet=True)
            async with registry["line"].attach() as near, registry["far"].attach() as far:
                await check_both_ways(near, far)
                await far.line.send_break()
                await check_both_ways(near, far)


async def test_ser2net_is_a_telnet_client(tmp_path: Path) -> None:
    port = free_port()
    async with open_registry() as registry:
        options = SocketOptions(addr=InetAddress(LOOPBACK, "0"), telnet=True)
        await registry.add("near", options)
        backend = registry["near"].backend
        assert isinstance(backend, SocketBackend)
        accepter, connector = f"tcp,{LOOPBACK},{port}", f"telnet,tcp,{LOOPBACK},"
        assert isinstance(backend.address, InetAddress)
        async with ser2net(accepter, connector + backend.address.port, tmp_path):
            await add_client(registry, port, telnet=False)
            async with registry["near"].attach() as near, registry["far"].attach() as far:
                await check_both_ways(near, far)


async def test_a_line_that_another_has_at_ser2net_is_dialled_ever_less_often(
    tmp_path: Path,
) -> None:
    """It accepts, says ``Port already in use``, and closes. When it is free, `retry` is enough."""
    port = free_port()
    async with open_registry() as registry:
        line = (await registry.add("line", PtyOptions())).pty
        accepter, connector = f"tcp,{LOOPBACK},{port}", f"serialdev,{line},9600n81,local"
        async with ser2net(accepter, connector, tmp_path):
            await add_client(registry, port, telnet=False)
            async with registry["line"].attach() as near, registry["far"].attach() as far:
                await check_both_ways(near, far)
            addr = InetAddress(LOOPBACK, port)
            options = SocketOptions(addr=addr, server=False, reconnect_ms=100)
            late = await registry.add("late", options)
            async with late.attach() as user:
                said = b""
                while (late.state.next_try or 0) <= 0.8:  # at the 5th time, or the 6th
                    await trio.sleep(0.01)
                    said += user.take_ready()
                assert late.state.state == "waiting"
                assert (late.state.last_error or "").startswith(
                    f"the connection to '{LOOPBACK}:{port}' has ended after 0."
                )
                assert set(said.split(b"\r\n")) == {b"Port already in use", b""}
                assert 5 <= said.count(b"in use") <= 6
                await registry.remove("far")
                while registry["line"].is_open:  # noqa: ASYNC110 - until it has let go of it
                    await trio.sleep(0.001)
                late.retry()
                async with registry["line"].attach() as near:
                    await check_both_ways(near, user)
