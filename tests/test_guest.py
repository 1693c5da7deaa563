"""The console of a real guest is changed while it prints.

A guest numbers its lines, so a byte that is lost or repeated shows. What is printed while
nobody is connected is lost, as on any serial line (QEMU drops it), and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.guest import number, printing_guest
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.events import BackendEvent, Event
from trio_chardev.qmp.client.client import QmpClient, QmpError, open_qmp_client
from trio_chardev.service import open_service

PATIENCE = 20  # seconds; for all of a test
ENOUGH = 2000  # lines

OPENED, CLOSED = Event.OPENED, Event.CLOSED


@attrs.define(eq=False)
class Console:
    """Reads all that the guest prints, and is changed by QMP."""

    qmp: QmpClient
    frontend: Frontend = attrs.field(init=False)
    periods: list[bytearray] = attrs.Factory(lambda: [bytearray()])
    """What has come since each OPENED; before the first one, nothing."""

    events: list[BackendEvent] = attrs.Factory(list)
    refuses: bool = False
    arrived: trio.Event = attrs.Factory(trio.Event)

    async def be_change(self, backend: Controls) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuses:
            self.refuses = False  # it takes the original back
            raise ValueError("the frontend does not want this backend")

    def on_event(self, event: BackendEvent) -> None:
        self.events.append(event)
        if event is OPENED:
            self.periods.append(bytearray())

    async def read(self) -> None:
        while data := await self.frontend.receive_some():
            self.periods[-1] += data
            self.arrived.set()

    async def wait_lines(self, count: int = ENOUGH) -> None:
        """Wait for so many more lines of a guest that is connected."""
        wanted = self.size + count * len(number(0))
        while self.size < wanted:
            self.arrived = trio.Event()
            await self.arrived.wait()

    @property
    def size(self) -> int:
        return sum(map(len, self.periods))

    async def change(self, kind: str, **data: Any) -> Any:
        return await self.qmp.execute(
            "chardev-change", id="console", backend={"type": kind, "data": data}
        )

    async def listen(self, path: Path) -> None:
        addr = {"type": "unix", "data": {"path": str(path)}}
        assert await self.change("socket", addr=addr) == {}

    async def filename(self) -> Any:
        [info] = await self.qmp.execute("query-chardev")
        return info["filename"]


@asynccontextmanager
async def console_of_a_guest(folder: Path) -> AsyncIterator[Console]:
    """A guest that prints, and has been heard."""
    control = UnixAddress(str(folder / "qmp"))
    options = SocketOptions(addr=UnixAddress(str(folder / "guest")))
    guest = printing_guest(folder, f"socket,path={folder}/guest,reconnect=1")
    with trio.fail_after(PATIENCE):
        async with open_service() as service, trio.open_nursery() as nursery:
            await service.listen_qmp(SocketOptions(addr=control))
            await service.registry.add("console", options)
            async with open_qmp_client(control) as qmp, guest:
                console = Console(qmp)
                console.frontend = service.registry["console"].attach(
                    be_change=console.be_change, on_event=console.on_event
                )
                nursery.start_soon(console.read)
                await console.wait_lines()
                yield console
                nursery.cancel_scope.cancel()


def check_numbers(printed: bytes | bytearray, first: int) -> int:
    """*printed* has the numbers from *first*, and no other byte; which comes next."""
    count = math.ceil(len(printed) / len(number(0)))
    expected = b"".join(number(i) for i in range(first, first + count))
    assert printed == expected[: len(printed)]
    return first + count


def check_rest(printed: bytes | bytearray, not_before: int) -> None:
    """*printed* is consecutive once the guest, found within a line, begins the next one."""
    _, _, lines = printed.partition(b"\n")
    first = int(lines[:8], 16)
    assert first >= not_before
    check_numbers(lines, first)


async def test_a_failed_change_is_not_felt_by_the_guest(tmp_path: Path) -> None:
    """The guest stays connected, and not a byte of what it prints is missing."""
    async with console_of_a_guest(tmp_path) as console:
        name = await console.filename()
        for _ in range(5):
            with pytest.raises(QmpError, match=r"^Could not open '/nowhere/out': No such file"):
                await console.change("file", out="/nowhere/out")
            await console.wait_lines(100)
            for kind, data in [
                ("pty", {}),
                ("null", {}),
                ("socket", {"addr": {"type": "unix", "data": {"path": f"{tmp_path}/guest"}}}),
            ]:
                console.refuses = True
                with pytest.raises(QmpError, match=r"^Chardev 'console' change failed: "):
                    await console.change(kind, **data)
                await console.wait_lines(100)
        assert await console.filename() == name == f"unix:{tmp_path}/guest,server=on"
        assert console.events == [OPENED] + 15 * [CLOSED, OPENED]
        check_numbers(b"".join(console.periods), 0)


async def test_a_change_loses_nothing_of_what_a_connected_guest_prints(tmp_path: Path) -> None:
    """To another path, to a PTY, and back to where the guest looks for its console."""
    async with console_of_a_guest(tmp_path) as console:
        await console.listen(tmp_path / "elsewhere")
        assert not (tmp_path / "guest").exists()
        answer = await console.change("pty")
        assert await console.filename() == f"pty:{answer['pty']}"
        await console.listen(tmp_path / "guest")
        await console.wait_lines()
        assert console.events == [OPENED, CLOSED, OPENED]
        _, before, after = console.periods
        check_rest(after, check_numbers(before, 0))


async def test_a_listener_takes_over_the_path_from_one_with_a_guest(tmp_path: Path) -> None:
    async with console_of_a_guest(tmp_path) as console:
        await console.listen(tmp_path / "guest")
        assert await console.filename() == f"disconnected:unix:{tmp_path}/guest,server=on"
        await console.wait_lines()
        assert console.events == [OPENED, CLOSED, OPENED]
        _, before, after = console.periods
        check_rest(after, check_numbers(before, 0))
