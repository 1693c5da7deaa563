"""Telnet on sockets: as a layer, as an option of the backend, and with a real telnet."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import termios
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from tests.links import Served, check_change, check_contract, serving, until
from tests.peers import need
from trio_chardev.backends.socket import layer
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress
from trio_chardev.backends.socket.connection import Connection
from trio_chardev.backends.socket.layer import Layer
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.events import BackendEvent, Event
from trio_chardev.protocols.telnet import TelnetConnection
from trio_chardev.protocols.telnet_roles import BREAK, CLIENT, IAC, NOP, SB, SE, SERVER

OPENING = bytes.fromhex("fffb01 fffb03 fffb00 fffd00 fffd1f")
MUCH = 4000  # bytes unsent
AGREED = bytes.fromhex("fffd01 fffd03 fffd00 fffb00")


@attrs.define
class Linked:
    """A layer, and the socket at its other end."""

    layer: Layer
    peer: socket.socket
    events: list[BackendEvent]

    def received(self, max_bytes: int = 4096) -> bytes:
        try:
            return self.layer.receive(max_bytes)
        except BlockingIOError:
            return b""


@pytest.fixture
def linked() -> Iterator[Linked]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    events: list[BackendEvent] = []
    layer = Layer(Connection(ours, "telnet:"), TelnetConnection(SERVER), events.append)
    with theirs, ours:
        yield Linked(layer, theirs, events)


# ---------------------------------------------------------------- the layer


async def test_the_handshake_is_over_when_the_offers_are_sent(linked: Linked) -> None:
    with trio.fail_after(5):
        await linked.layer.handshake()
    assert linked.peer.recv(100) == OPENING


def test_pieces_are_as_small_as_asked_for_and_break_keeps_its_place(linked: Linked) -> None:
    linked.peer.send(bytes([65, 66, IAC, BREAK, 67, IAC, IAC, IAC, SB, 31, 1, IAC, SE, 68]))
    assert (linked.received(1), linked.received(1), linked.events) == (b"A", b"B", [])
    assert linked.layer.has_input()
    assert (linked.received(1), linked.events) == (b"C", [Event.BREAK])
    assert [linked.received(1), linked.received(), linked.received()] == [b"\xff", b"D", b""]


def test_commands_alone_are_no_input_and_no_end(linked: Linked) -> None:
    linked.peer.send(bytes([IAC, NOP]) + AGREED)
    with pytest.raises(BlockingIOError):
        linked.layer.receive(10)
    assert not linked.layer.has_input()
    linked.peer.recv(100)
    linked.peer.close()
    assert linked.layer.receive(10) == b""


def test_a_command_is_answered_when_it_is_read(linked: Linked) -> None:
    linked.peer.send(bytes([IAC, 246]))
    assert linked.received() == b""
    assert linked.peer.recv(100) == OPENING + b"\r\n[Yes]\r\n"


def test_what_is_counted_reaches_the_peer_whole(linked: Linked) -> None:
    """Also when the kernel takes half of it: then the rest goes before anything else."""
    data = random.Random(1).randbytes(1 << 20).replace(b"a", b"\xff")
    counted = 0
    wire = bytearray()
    while counted < len(data):
        with contextlib.suppress(BlockingIOError):
            while counted < len(data):
                counted += linked.layer.send(memoryview(data)[counted : counted + 100_000])
        with contextlib.suppress(BlockingIOError):
            while True:
                wire += linked.peer.recv(1 << 16)
    while linked.layer.unsent:
        linked.layer.flush()
        wire += linked.peer.recv(1 << 20)
    client = TelnetConnection(CLIENT)
    items = client.receive_data(bytes(wire))
    while client.is_behind:
        items += client.decode_more()
    assert b"".join(item for item in items if isinstance(item, bytes)) == data


def test_breaks_that_the_peer_does_not_take_are_lost(
    linked: Linked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a line that is overrun; they come from another's peer, over a bridge, and without end.

    There is still room for the answers that are due.
    """
    monkeypatch.setattr(layer, "MAX_UNSENT", MUCH)
    for _ in range(MUCH):  # far more than the kernel takes in pieces that are so small
        linked.layer.send_break()
    assert 0 < len(linked.layer._unsent) <= MUCH // 2 + 1


def test_a_break_goes_behind_what_was_sent(linked: Linked) -> None:
    linked.layer.send(memoryview(b"a\xff"))
    linked.layer.send_break()
    linked.layer.send(memoryview(b"b"))
    assert linked.peer.recv(100) == OPENING + b"a\xff\xff\xff\xf3b"


# ---------------------------------------------------------------- the backend


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), telnet=True)
    async with serving(options) as served:
        yield served


async def exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    with trio.fail_after(5):
        while len(data) < size:
            data += await stream.receive_some(size - len(data))
    return data


async def test_a_server_offers_before_it_is_open(server: Served) -> None:
    assert server.backend.filename.startswith("disconnected:telnet:127.0.0.1:")
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as client:
        assert await exactly(client, len(OPENING)) == OPENING
        await client.send_all(AGREED + b"hello\xff\xff\xff\xf3")
        await server.until_received(b"hello\xff")
        await server.until_event(Event.BREAK)
        assert server.backend.filename.startswith("telnet:127.0.0.1:")
        await server.send(b"\xff\r")
        assert await exactly(client, 3) == b"\xff\xff\r"
    await server.until_event(Event.CLOSED)
    assert server.events == [Event.OPENED, Event.BREAK, Event.CLOSED]


async def test_the_urgent_byte_stays_in_the_stream(server: Served) -> None:
    """A client sends the DM of its synch as one; without it the x would be the command."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as client:
        await exactly(client, len(OPENING))
        await client.send_all(b"a\xff")
        await client.socket.send(b"\xf2", socket.MSG_OOB)
        await client.send_all(b"xy")
        await server.until_received(b"axy")


async def test_two_of_us_agree_and_pass_every_byte(server: Served) -> None:
    options = SocketOptions(addr=server.backend.address, server=False, telnet=True)
    every = bytes(range(256)) + b"\r\0\r\n\r"
    async with serving(options) as client:
        await server.until_event(Event.OPENED)
        await server.send(every)
        await client.until_received(every)
        await client.send(every)
        await server.until_received(every)
        await client.backend.line.send_break(0.1)
        await server.until_event(Event.BREAK)
        assert client.received == server.received == every


def options_at(address: SocketAddress) -> SocketOptions:
    return SocketOptions(addr=address, telnet=True)


async def test_contract(tmp_path: Path) -> None:
    await check_contract(tmp_path, options_at, lambda: TelnetConnection(CLIENT))


async def test_a_change_loses_nothing(tmp_path: Path) -> None:
    await check_change(tmp_path, options_at, lambda: TelnetConnection(CLIENT))


# ---------------------------------------------------------------- a real telnet


class Terminal:
    """The screen and the keys of a program."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.screen = b""

    async def until_shown(self, text: bytes) -> None:
        with trio.fail_after(5):
            while text not in self.screen:
                await trio.lowlevel.wait_readable(self._fd)
                self.screen += os.read(self._fd, 4096)

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    async def command(self, text: bytes) -> None:
        """Give *text* to telnet itself, which then goes on with the connection."""
        self.screen = b""
        self.type(b"\x1d")
        await self.until_shown(b"telnet> ")
        self.type(text + b"\r")
        await until(lambda: not termios.tcgetattr(self._fd)[3] & termios.ICANON)


@contextlib.contextmanager
def run_telnet(port: int) -> Iterator[Terminal]:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [need("telnet"), "127.0.0.1", str(port)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    try:
        os.close(theirs)
        yield Terminal(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.fixture
async def terminal(server: Served) -> AsyncIterator[Terminal]:
    """telnet(1), connected to the server."""
    with run_telnet(server.port) as terminal:
        await terminal.until_shown(b"Escape character is '^]'.")
        await server.until_event(Event.OPENED)
        yield terminal


async def test_telnet_shows_and_sends_each_character(server: Served, terminal: Terminal) -> None:
    await server.send(b"login: \xff\xe4\r\n")
    await terminal.until_shown(b"login: \xff\xe4\r\n")
    terminal.type(b"root\r\x03\xff\xfe\x00\n.")
    await server.until_received(b".")
    assert server.received == b"root\r\x03\xff\xfe\x00\n."


async def test_telnets_commands_do_what_they_say(server: Served, terminal: Terminal) -> None:
    await terminal.command(b"send brk")
    await server.until_event(Event.BREAK)
    await terminal.command(b"send ayt")
    await terminal.until_shown(b"\r\n[Yes]\r\n")
    await terminal.command(b"send synch")
    terminal.type(b"x")
    await server.until_received(b"x")
    await terminal.command(b"status")
    await terminal.until_shown(b"Operating in single character mode")
    await terminal.command(b"send ip")
    terminal.type(b"y")
    await server.until_received(b"y")
    assert server.received == b"xy"


async def test_binary_can_be_switched_off_at_the_telnet(server: Served, terminal: Terminal) -> None:
    """Then a CR is CR NUL on the wire, and a CR for the user."""
    await terminal.command(b"unset binary")
    terminal.type(b"a\r.")
    await server.until_received(b".")
    assert server.received == b"a\r."
    await server.send(b"b\rc")
    await terminal.until_shown(b"b\rc")


async def test_quitting_telnet_is_a_disconnect(server: Served, terminal: Terminal) -> None:
    terminal.type(b"\x1d")
    await terminal.until_shown(b"telnet> ")
    terminal.type(b"quit\r")
    await terminal.until_shown(b"Connection closed.")
    await server.until_event(Event.CLOSED)
