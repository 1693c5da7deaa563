"""What goes wrong while the consoles are changed."""

from __future__ import annotations

import functools
import os
import random
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.soak.meter import Service
from tests.soak.places import backend, listening
from trio_chardev import QmpClient, QmpError

SILENT_CLIENTS: Final = 30
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
    """Puts one fault after another into the service's way."""

    service: Service
    qmp: QmpClient
    folder: Path
    chance: random.Random
    counts: Counter[str]

    @property
    def _all(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "garbage for QMP": self._garbage,
            "silent clients": self._silent_clients,
            "no descriptors left": self._starve,
            "a reader stopped (SIGSTOP)": self._stop_a_reader,
            "a log on a full disk": self._full_disk,
            "a tty hung up": self._hang_up,
            "chardevs added and removed": self._come_and_go,
            "a name that does not resolve": self._bad_name,
        }

    async def run(self, is_over: Callable[[], bool]) -> None:
        """One after another until *is_over*."""
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
                pass  # it is let go

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
