from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.peers import need
from trio_chardev.backends.pipe import PipeOptions, open_pipe
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing.pair import receive_some


def open_it(
    device: Path | str, events: list[BackendEvent] | None = None
) -> AbstractAsyncContextManager[Backend]:
    on_event = (lambda event: None) if events is None else events.append
    return open_pipe(PipeOptions(device=str(device)), OpenRequest(id="x", on_event=on_event))


@pytest.fixture
def device(tmp_path: Path) -> str:
    """The name of a pair of FIFOs."""
    os.mkfifo(tmp_path / "p.in")
    os.mkfifo(tmp_path / "p.out")
    return str(tmp_path / "p")


async def test_reads_from_in_and_writes_to_out(device: str) -> None:
    events: list[BackendEvent] = []
    async with open_it(device, events) as backend:
        assert backend.filename == "pipe"
        assert events == [Event.OPENED]
        writer = os.open(f"{device}.in", os.O_WRONLY | os.O_NONBLOCK)
        reader = os.open(f"{device}.out", os.O_RDONLY | os.O_NONBLOCK)
        os.write(writer, b"in")
        assert await receive_some(backend, 100) == b"in"
        await backend.send_some(memoryview(b"out"))
        assert os.read(reader, 100) == b"out"
        os.close(writer)
        os.close(reader)


async def test_never_ends_when_writers_leave(device: str) -> None:
    events: list[BackendEvent] = []
    async with open_it(device, events) as backend:
        writer = os.open(f"{device}.in", os.O_WRONLY | os.O_NONBLOCK)
        os.write(writer, b"one")
        os.close(writer)
        assert backend.receive_nowait(100) == b"one"
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_some, backend, 100)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert events == [Event.OPENED]


async def test_output_waits_in_the_fifo_for_a_reader(device: str) -> None:
    async with open_it(device) as backend:
        await backend.send_some(memoryview(b"early"))
        reader = os.open(f"{device}.out", os.O_RDONLY)
        assert os.read(reader, 100) == b"early"
        os.close(reader)


async def test_without_the_pair_the_device_itself_serves_both_ways(tmp_path: Path) -> None:
    """So it echoes its own output, as QEMU's does."""
    os.mkfifo(tmp_path / "p")
    os.mkfifo(tmp_path / "p.in")
    async with open_it(tmp_path / "p") as backend:
        await backend.send_some(memoryview(b"echo"))
        assert await receive_some(backend, 100) == b"echo"


async def test_does_not_create_fifos(tmp_path: Path) -> None:
    device = tmp_path / "p"
    with pytest.raises(BackendError, match=f"^Could not open '{device}': No such file or dir"):
        async with open_it(device):
            pass
    assert os.listdir(tmp_path) == []


async def test_a_half_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.in")
    (tmp_path / "p.out").mkdir()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(BackendError, match=r"^Could not open '.*/p\.out': Is a directory$"):
        async with open_it(tmp_path / "p"):
            pass
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_socat_joins_the_pair_to_cat(device: str, nursery: trio.Nursery) -> None:
    ways = f"OPEN:{device}.out,rdonly!!OPEN:{device}.in,wronly"
    command = [need("socat"), ways, "EXEC:cat"]
    async with open_it(device) as backend:
        await nursery.start(trio.run_process, command)
        with trio.fail_after(5):
            await backend.send_some(memoryview(b"there and back"))
            got = b""
            while len(got) < 14:
                got += await receive_some(backend, 100)
        assert got == b"there and back"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", ["p", "p.in", "p.out"])
async def test_a_file_is_no_fifo(tmp_path: Path, name: str) -> None:
    """What is written to it would come back from nobody, and never be taken."""
    for fifo in {"p.in", "p.out"} - {name}:
        if name != "p":
            os.mkfifo(tmp_path / fifo)
    (tmp_path / name).touch()
    before = os.listdir("/proc/self/fd")
    request = OpenRequest(id="x", on_event=lambda event: None)
    with pytest.raises(
        BackendError, match=rf"^Could not open '{tmp_path}/{name}': it is not a FIFO$"
    ):
        async with open_pipe(PipeOptions(device=f"{tmp_path}/p"), request):
            pass
    assert os.listdir("/proc/self/fd") == before
