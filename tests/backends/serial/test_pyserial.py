"""pyserial, which most programs that talk to boards are written with, at the other end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.peers import need
from trio_chardev import BackendEvent, Event, PtyOptions, Registry, SerialOptions, open_registry

pyserial = pytest.importorskip("serial", reason="pyserial, of the extra 'test', is not installed")

EVERY_BYTE = bytes(range(256))


async def check_both_ways(registry: Registry, id: str, path: str) -> None:
    """A program opens *path*, asks, gets an answer, and leaves."""
    events: list[BackendEvent] = []

    def ask() -> bytes:
        with pyserial.Serial(path, 9600, timeout=5) as port:
            port.write(EVERY_BYTE)
            answer: bytes = port.read(len(EVERY_BYTE))
            return answer

    answers: list[bytes] = []

    async def run() -> None:
        answers.append(await trio.to_thread.run_sync(ask))

    async with registry[id].attach(on_event=events.append) as frontend:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                got = b""
                while len(got) < len(EVERY_BYTE):
                    got += await frontend.receive_some()
                await frontend.send_all(got[::-1])
    assert got == EVERY_BYTE
    assert answers == [EVERY_BYTE[::-1]]
    assert events[:1] == [Event.OPENED]


@asynccontextmanager
async def cable(one: Path, other: Path) -> AsyncIterator[None]:
    """Two terminals that are joined, as two adaptors with a null-modem cable."""
    argv = [need("socat"), *(f"PTY,link={end},raw,echo=0" for end in (one, other))]
    process = await trio.lowlevel.open_process(argv)
    try:
        with trio.fail_after(5):
            await until(lambda: one.exists() and other.exists())
        yield
    finally:
        process.terminate()
        with trio.fail_after(5, shield=True):
            await process.wait()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await trio.sleep(0.001)


async def test_pyserial_at_a_pty() -> None:
    async with open_registry() as registry:
        path = (await registry.add("console", PtyOptions())).pty
        assert path is not None
        await check_both_ways(registry, "console", path)
        await check_both_ways(registry, "console", path)  # the next run of the same program


async def test_pyserial_at_the_other_end_of_a_serial_line(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ttyA", tmp_path / "ttyB"
    async with cable(ours, theirs), open_registry() as registry:
        await registry.add("line", SerialOptions(path=str(ours)))
        await check_both_ways(registry, "line", str(theirs))
