"""What goes wrong while the consoles are changed."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.soak.floods import Floods
from tests.soak.meter import Service
from tests.soak.places import backend, listening, patiently
from trio_chardev import QmpClient, QmpError

SILENT_CLIENTS: Final = 30
WAITING: Final = 5  # clients; fewer than may wait
PATIENCE: Final = 60.0  # seconds
GARBAGE: Final = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b'{"execute": "qmp_capab',
    b"[" * 5000,
    b"\xff\xfe\x00" * 100,
    b'{"execute": "qmp_capabilities"}' * 100 + b'{"exec-oob": 1}',
    b'{"execute": "qmp_capabilities"}{"execute": "' + b"x" * 100_000,
)
STOPPED_READER: Final = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
    "while s.recv(4096): pass"
)


@attrs.define(eq=False)
class Faults:
    """Causes one fault after another in the service's surroundings."""

    service: Service
    qmp: QmpClient
    folder: Path
    chance: random.Random
    counts: Counter[str]
    floods: Floods

    @property
    def _all(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "garbage for QMP": self._garbage,
            "silent clients": self._silent_clients,
            "no descriptors left": self._starve,
            "a reader stopped (SIGSTOP)": self._stop_a_reader,
            "a log on a full disk": self._full_disk,
            "a log rotated and reopened": self._rotate,
            "a tty hung up": self._hang_up,
            "chardevs added and removed": self._come_and_go,
            "a name that does not resolve": self._bad_name,
            "questions with an end, answered": self._question,
            "clients that wait": self._wait_at_the_door,
            "clients that are refused": self._refuse,
            "a client kicked while it sends": self._kick,
            "a flood of what is no input": self.floods.one,
        }

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Cause one fault after another until *is_over*."""
        await self.floods.begin()
        while not is_over():
            await trio.sleep(self.chance.random())
            name, fault = self.chance.choice(list(self._all.items()))
            await fault()
            self.counts[name] += 1
            await self.qmp.execute("query-chardev")  # it is alive, and answers

    async def _add(self, id: str, added: dict[str, Any]) -> bool:
        try:
            await self.qmp.execute("chardev-add", id=id, backend=added)
        except QmpError:
            return False
        return True

    async def _garbage(self) -> None:
        async with await trio.open_unix_socket(str(self.service.path)) as stream:
            try:
                await stream.send_all(self.chance.choice(GARBAGE))
                await stream.receive_some()
            except trio.BrokenResourceError:
                pass  # it was disconnected

    async def _silent_clients(self) -> None:
        socks = [socket.socket(socket.AF_UNIX) for _ in range(SILENT_CLIENTS)]
        for sock in socks:
            sock.setblocking(False)
            sock.connect_ex(str(self.service.path))
        await trio.sleep(0.2)
        for sock in socks:
            sock.close()

    async def _starve(self) -> None:
        pid = self.service.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (self.service.descriptors + 2, before[1]))
        try:
            await trio.sleep(0.3)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    async def _stop_a_reader(self) -> None:
        path = self.folder / "stopped"
        address = {"type": "unix", "data": {"path": str(path)}}
        if not await self._add("stopped", listening(address)):
            return
        await self.qmp.execute("device_add", driver="chargen", id="chargen", chardev="stopped")
        command = [sys.executable, "-c", STOPPED_READER, str(path)]
        async with trio.open_nursery() as nursery:
            run = functools.partial(trio.run_process, command, stderr=subprocess.DEVNULL)
            child: trio.Process = await nursery.start(functools.partial(run, check=False))
            await trio.sleep(0.3)
            child.send_signal(signal.SIGSTOP)
            await trio.sleep(0.3)
            await self.qmp.execute("chardev-change", id="stopped", backend=backend("null"))
            child.kill()
        await self.qmp.execute("device_del", id="chargen")
        await self.qmp.execute("chardev-remove", id="stopped")

    async def _full_disk(self) -> None:
        path = self.folder / "full"
        address = {"type": "unix", "data": {"path": str(path)}}
        if not await self._add("full", listening(address, logfile="/dev/full")):
            return
        async with await trio.open_unix_socket(str(path)) as stream:
            await self.qmp.execute("device_add", driver="echo", id="echo", chardev="full")
            await stream.send_all(b"x" * 1000)
            got = 0
            while got < 1000:
                got += len(await stream.receive_some())
            await self.qmp.execute("device_del", id="echo")
        await self.qmp.execute("chardev-remove", id="full")

    async def _rotate(self) -> None:
        """A log of both directions, while its file is moved away: old files are counted."""
        path = self.folder / "rotated.log"
        options = {"log-format": "json", "log-rotate": 4096, "log-keep": 2, "log-events": True}
        async with self._echoing(logfile=str(path), log="both", **options) as socket_path:
            if socket_path is None:
                return
            async with await come(socket_path) as stream:
                for number in range(50):
                    got = bytearray()
                    await stream.send_all(b"\x1b[1m%05d\x1b[0m\n" % number)
                    await self._read_into(got, stream, 14)
                    if number % 10 == 0:
                        with contextlib.suppress(OSError):
                            path.unlink()
                        await patiently(self.qmp, "chardev-reopen-log", {"id": "echoing"})
        found = sorted(other.name for other in self.folder.glob("rotated.log*"))
        if set(found) - {"rotated.log", "rotated.log.1", "rotated.log.2"}:
            raise AssertionError(f"old logs are left: {found}")
        for line in b"".join(p.read_bytes() for p in self.folder.glob("rotated.log*")).splitlines():
            json.loads(line)

    async def _hang_up(self) -> None:
        master, slave = os.openpty()
        added = await self._add("tty", backend("serial", device=os.ttyname(slave)))
        os.close(slave)
        os.close(master)
        if added:
            await trio.sleep(0.05)
            await self.qmp.execute("chardev-remove", id="tty")

    async def _come_and_go(self) -> None:
        for number in range(50):
            if await self._add(f"n{number}", backend("ringbuf", size=4096)):
                await self.qmp.execute("chardev-remove", id=f"n{number}")

    async def _bad_name(self) -> None:
        address = {"type": "inet", "data": {"host": "no-such-host.invalid", "port": "1"}}
        if await self._add("name", backend("socket", addr=address, server=False)):
            raise AssertionError("a host of the domain .invalid was found")

    # ------------------------------------------------------------ a socket's clients

    @contextlib.asynccontextmanager
    async def _echoing(self, **options: Any) -> AsyncIterator[Path | None]:
        """Give a server that sends back what comes; None if there can't be one now."""
        path = self.folder / "echoing"
        address = {"type": "unix", "data": {"path": str(path)}}
        if not await self._add("echoing", listening(address, **options)):
            yield None
            return
        await patiently(
            self.qmp, "device_add", {"driver": "echo", "id": "echoes", "chardev": "echoing"}
        )
        try:
            yield path
        finally:
            with trio.move_on_after(5, shield=True):
                await patiently(self.qmp, "device_del", {"id": "echoes"})
                await patiently(self.qmp, "chardev-remove", {"id": "echoing"})

    async def _question(self) -> None:
        """A client that asks and shuts down its side gets its answer; a later change loses none."""
        async with self._echoing() as path:
            if path is None:
                return
            question = self.chance.randbytes(self.chance.randrange(1, 1 << 17))
            async with await come(path) as stream:
                got = bytearray()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read_into, got, stream, len(question))
                    await stream.send_all(question)
                    await stream.send_eof()
                wanted = {"id": "echoing", "backend": backend("null")}
                await patiently(self.qmp, "chardev-change", wanted)
                check_same("an answer", bytes(got + await stream.receive_some()), question)

    async def _wait_at_the_door(self) -> None:
        """Clients that wait are served one after the other, in the order in which they came."""
        async with self._echoing() as path:
            if path is None:
                return
            streams = [await come(path) for _ in range(WAITING)]
            for number, stream in enumerate(streams):
                got = bytearray()
                await stream.send_all(b"%d" % number)
                await self._read_into(got, stream, len(b"%d" % number))
                check_same("who waits", bytes(got), b"%d" % number)
                await stream.aclose()

    async def _refuse(self) -> None:
        """Refused clients are disconnected; the one that is there notices nothing."""
        async with self._echoing(**{"on-busy": "refuse"}) as path:
            if path is None:
                return
            async with await come(path) as stream:
                got = bytearray()
                await stream.send_all(b"1")
                await self._read_into(got, stream, 1)
                for _ in range(WAITING):
                    async with await come(path) as other:
                        await self._read_into(bytearray(), other, 1)
                await stream.send_all(b"2")
                await self._read_into(got, stream, 2)
                check_same("who is there", bytes(got), b"12")

    async def _kick(self) -> None:
        """A client that is dropped gets back what it sent, or a part of it; nothing else."""
        async with self._echoing() as path:
            if path is None:
                return
            data = self.chance.randbytes(1 << 20)
            got = bytearray()
            async with (
                await come(path) as stream,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._send_until_left, stream, data)
                nursery.start_soon(self._read_into, got, stream, len(data))
                await trio.sleep(self.chance.random() * 0.01)
                instances = [{"type": "chardev", "id": "echoing"}]
                await patiently(self.qmp, "yank", {"instances": instances})
            check_same("who is kicked", bytes(got), data[: len(got)])

    async def _send_until_left(self, stream: trio.SocketStream, data: bytes) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(data)

    async def _read_into(self, got: bytearray, stream: trio.SocketStream, size: int) -> None:
        """Read until there are *size* bytes, or the end."""
        with contextlib.suppress(trio.BrokenResourceError), trio.fail_after(PATIENCE):
            while len(got) < size and (data := await stream.receive_some()):
                got += data


async def come(path: Path) -> trio.SocketStream:
    """Connect to a server; while its queue is full, try again and again."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    while sock.connect_ex(str(path)) == errno.EAGAIN:  # noqa: ASYNC110 - nothing reports it
        await trio.sleep(0.001)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def check_same(whose: str, got: bytes, sent: bytes) -> None:
    """Raise AssertionError unless *got* is *sent*."""
    if got != sent:
        raise AssertionError(f"{whose}: {len(got)} bytes {got[:32]!r}, not {len(sent)}")
