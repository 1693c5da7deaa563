"""``trio-chardev demo``: change a console while a program prints to it, and count the bytes.

Everything is real: the service, its QMP socket, the PTYs, sockets and files. A program sends
numbered lines into a socket all the time, as a VM would; a bridge joins that socket with the
console. Each change gives the console another peer. In the end what all peers received, in order,
is compared with what was sent.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.cli.output import printable, say
from trio_chardev.devices.bridge import Bridge, BridgeOptions
from trio_chardev.errors import ChardevError
from trio_chardev.qmp.client.client import QmpClient, open_qmp_client
from trio_chardev.service import Service, open_service

RING_SIZE = 1 << 22  # bytes; far more than comes between two changes
TURN = 0.15  # seconds between two changes
LINES_AT_ONCE = 20
LINE_SIZE = len(b"line 00000000\n")
ID = "console"


@attrs.define
class Peer:
    """The far end of one backend: what it has received, and how to get the rest of it."""

    kind: str
    received: bytearray = attrs.Factory(bytearray)
    finish: Callable[[], None] = lambda: None


@attrs.define(eq=False, repr=False)
class Demo:
    """One run of the demo."""

    service: Service
    qmp: QmpClient
    folder: str
    random: random.Random
    bridge: Bridge = attrs.field(init=False)
    nursery: trio.Nursery = attrs.field(init=False)
    peers: list[Peer] = attrs.Factory(list)
    sent: int = 0
    longest_pause: float = 0.0
    results: Counter[str] = attrs.Factory(Counter)
    is_over: bool = False
    all_arrived: trio.Event = attrs.Factory(trio.Event)

    # ------------------------------------------------------------ the program

    async def print_lines(self, console: trio.SocketStream) -> None:
        """Play the program: send numbered lines until told to stop."""
        async with console:
            for number in itertools.count(0, LINES_AT_ONCE):
                if self.is_over:
                    break
                lines = b"".join(b"line %08d\n" % n for n in range(number, number + LINES_AT_ONCE))
                begin = trio.current_time()
                await console.send_all(lines)
                self.longest_pause = max(self.longest_pause, trio.current_time() - begin)
                self.sent += len(lines)
                await trio.sleep(0.001)
            while self.bridge.to_peer.sent < self.sent:  # noqa: ASYNC110 - there is no event
                await trio.sleep(0.001)
        self.all_arrived.set()

    # ------------------------------------------------------------ the backends

    async def change(self, kind: str, **data: Any) -> dict[str, Any]:
        """Run chardev-change over QMP."""
        result: dict[str, Any] = await self.qmp.execute(
            "chardev-change", id=ID, backend={"type": kind, "data": data}
        )
        return result

    async def to_file(self) -> None:
        path = f"{self.folder}/{len(self.peers)}.log"
        peer = Peer("file")

        def finish() -> None:
            with open(path, "rb") as file:
                peer.received += file.read()

        peer.finish = finish
        await self.change("file", out=path)
        self.peers.append(peer)

    async def to_ringbuf(self) -> None:
        peer = Peer("ringbuf")
        await self.change("ringbuf", size=RING_SIZE)
        ring = self.service.registry[ID].backend
        assert isinstance(ring, RingbufBackend)

        def finish() -> None:
            peer.received += ring.read(RING_SIZE)

        peer.finish = finish
        self.peers.append(peer)

    async def to_pty(self) -> None:
        peer = Peer("pty")
        path = (await self.change("pty"))["pty"]
        fd = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        done = trio.Event()
        self.nursery.start_soon(self._read_pty, fd, peer, done)
        self.peers.append(peer)

    async def _read_pty(self, fd: int, peer: Peer, done: trio.Event) -> None:
        try:
            while True:
                await trio.lowlevel.wait_readable(fd)
                data = os.read(fd, 65536)
                if not data:
                    break
                peer.received += data
        except OSError:  # EIO: the other side was closed
            pass
        finally:
            os.close(fd)
            done.set()

    async def to_socket(self) -> None:
        peer = Peer("unix socket")
        path = f"{self.folder}/{len(self.peers)}.sock"
        with trio.socket.socket(trio.socket.AF_UNIX) as listener:
            await listener.bind(path)
            listener.listen()
            addr = {"type": "unix", "data": {"path": path}}
            await self.change("socket", addr=addr, server=False)
            sock, _ = await listener.accept()
        self.nursery.start_soon(self._read_socket, sock, peer)
        self.peers.append(peer)

    async def _read_socket(self, sock: trio.socket.SocketType, peer: Peer) -> None:
        with sock:
            while data := await sock.recv(65536):
                peer.received += data

    async def fail_to_open(self) -> None:
        await self.change("file", out=f"{self.folder}/missing/file")

    async def fail_to_connect(self) -> None:
        addr = {"type": "unix", "data": {"path": f"{self.folder}/nobody"}}
        await self.change("socket", addr=addr, server=False)

    async def fail_to_link(self) -> None:
        await self.change("pty", path=f"{self.folder}/missing/link")

    # ------------------------------------------------------------ the run

    async def turn(self, number: int) -> str:
        """Make one change, and return what happened."""
        good: list[Callable[[], Awaitable[None]]]
        bad: list[Callable[[], Awaitable[None]]]
        good = [self.to_socket, self.to_pty, self.to_file, self.to_ringbuf]
        bad = [self.fail_to_open, self.fail_to_connect, self.fail_to_link]
        before = self.peers[-1].kind
        try:
            if number % 5 == 4:
                await bad[number // 5 % len(bad)]()
            else:
                await self.random.choice(good)()
        except ChardevError as exc:
            self.results["failed"] += 1
            return f"{before} stays: {exc}"
        self.results["done"] += 1
        return f"{before} -> {self.peers[-1].kind}"

    async def run(self, changes: int) -> None:
        """Make *changes* while the program prints, then let every peer come to its end."""
        guest = f"{self.folder}/guest.sock"
        registry = self.service.registry
        await registry.add("guest", SocketOptions(addr=UnixAddress(guest)))
        await registry.add(ID, RingbufOptions(size=1))
        options = BridgeOptions(id="b0", chardev="guest", peer=ID, when_closed="hold")
        device = registry.devices.add(options)
        assert isinstance(device, Bridge)
        self.bridge = device
        await self.to_file()
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            nursery.start_soon(self.print_lines, await trio.open_unix_socket(guest))
            for number in range(changes):
                await trio.sleep(TURN)
                begin = trio.current_time()
                text = await self.turn(number)
                show_progress(number + 1, changes, trio.current_time() - begin, text)
            self.is_over = True
            await self.all_arrived.wait()
            await self.change("null")  # so that the last peer comes to its end, too
        for peer in self.peers:
            peer.finish()


def show_progress(number: int, changes: int, seconds: float, text: str) -> None:
    """Print a line about one change; on a terminal it overwrites the previous line."""
    line = f"{number:4}/{changes}  {seconds * 1000:6.1f} ms  {printable(text)}"
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        say(line[: width - 1], over=True, end="\n" if number == changes else "")
    else:
        say(line)


def count_lines(data: bytes) -> Counter[bytes]:
    return Counter(data.splitlines(keepends=True))


async def demo(changes: int, seed: int) -> int:
    """Run it and print the table; return 1 if a byte was lost, repeated or moved, else 0."""
    begin = trio.current_time()
    with tempfile.TemporaryDirectory(prefix="trio-chardev-") as folder:
        async with open_service() as service:
            path = f"{folder}/qmp.sock"
            await service.listen_qmp(SocketOptions(addr=UnixAddress(path)))
            say(f"service with QMP at {path}; {changes} changes while a program prints:")
            async with open_qmp_client(path) as qmp:
                run = Demo(service, qmp, folder, random.Random(seed))
                await run.run(changes)
    received = b"".join(peer.received for peer in run.peers)
    sent = b"".join(b"line %08d\n" % n for n in range(run.sent // LINE_SIZE))
    lost = count_lines(sent) - count_lines(received)
    repeated = count_lines(received) - count_lines(sent)
    peers = Counter(peer.kind for peer in run.peers)
    rows = [
        ("changes made", f"{run.results['done']}"),
        ("changes that had to fail, and left the original", f"{run.results['failed']}"),
        ("peers", ", ".join(f"{count} {kind}" for kind, count in sorted(peers.items()))),
        ("bytes sent", f"{run.sent}"),
        ("bytes received", f"{len(received)}"),
        ("lines lost", f"{lost.total()}"),
        ("lines repeated", f"{repeated.total()}"),
        ("in order", "yes" if received == sent else "NO"),
        ("longest pause of the program", f"{run.longest_pause * 1000:.1f} ms"),
        ("time", f"{trio.current_time() - begin:.1f} s"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"  {name:{width}}  {value}")
    return 0 if received == sent else 1
