from __future__ import annotations

import os
import stat
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.peers import need
from trio_chardev.backends.file import PIECE, FileOptions, open_file
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import BackendEvent, Event


def open_it(
    out: Path,
    in_: Path | None = None,
    *,
    append: bool = False,
    events: list[BackendEvent] | None = None,
) -> AbstractAsyncContextManager[Backend]:
    options = FileOptions(out=str(out), in_=None if in_ is None else str(in_), append=append)
    on_event = (lambda event: None) if events is None else events.append
    return open_file(options, OpenRequest(id="x", on_event=on_event))


async def test_truncates_only_when_activated(tmp_path: Path) -> None:
    """A change may still fail, and the file may be the replaced backend's."""
    out = tmp_path / "out"
    out.write_bytes(b"precious")
    async with open_it(out) as backend:
        assert out.read_bytes() == b"precious"
        backend.activate()
        assert out.read_bytes() == b""
        assert await backend.send_some(memoryview(b"new")) == 3
    assert out.read_bytes() == b"new"


async def test_appends_if_told_to(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"old ")
    async with open_it(out, append=True) as backend:
        backend.activate()
        await backend.send_some(memoryview(b"new"))
    assert out.read_bytes() == b"old new"


async def test_created_with_the_umask_applied(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        async with open_it(tmp_path / "out"):
            pass
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


async def test_output_that_is_no_regular_file_is_not_truncated() -> None:
    async with open_it(Path("/dev/null")) as backend:
        backend.activate()
        assert await backend.send_some(memoryview(b"x")) == 1


async def test_name_and_openness(tmp_path: Path) -> None:
    events: list[BackendEvent] = []
    async with open_it(tmp_path / "out", events=events) as backend:
        assert backend.filename == "file"
        assert events == [Event.OPENED]
        with trio.move_on_after(0) as scope:
            await backend.receive_some(1)
        assert scope.cancelled_caught


@pytest.mark.parametrize("exists", [False, True])
async def test_missing_input_leaves_the_output_as_it_was(tmp_path: Path, exists: bool) -> None:
    out, in_ = tmp_path / "out", tmp_path / "in"
    if exists:
        out.write_bytes(b"precious")
    with pytest.raises(BackendError, match=f"^Could not open '{in_}': No such file or directory$"):
        async with open_it(out, in_):
            pass
    assert out.exists() == exists
    if exists:
        assert out.read_bytes() == b"precious"


async def test_output_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(BackendError, match=f"^Could not open '{tmp_path}': Is a directory$"):
        async with open_it(tmp_path, tmp_path / "in"):
            pass
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_fifo_without_a_reader_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out")
    with pytest.raises(BackendError, match=r"No such device or address$"):
        async with open_it(tmp_path / "out"):
            pass


async def test_end_of_a_regular_input_is_closed_and_output_goes_on(tmp_path: Path) -> None:
    out, in_ = tmp_path / "out", tmp_path / "in"
    in_.write_bytes(b"hello")
    events: list[BackendEvent] = []
    async with open_it(out, in_, events=events) as backend:
        with trio.fail_after(5):
            assert await backend.receive_some(3) == b"hel"
            assert await backend.receive_some(3) == b"lo"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.receive_some, 3)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert events == [Event.OPENED, Event.CLOSED]
        await backend.send_some(memoryview(b"still"))
    assert out.read_bytes() == b"still"


async def test_fifo_input_waits_for_the_next_writer(tmp_path: Path) -> None:
    """No end, no busy loop: after a writer has left, the reader waits and all is quiet."""
    in_ = tmp_path / "in"
    os.mkfifo(in_)
    events: list[BackendEvent] = []
    got: list[bytes] = []

    async def read(backend: Backend) -> None:
        while True:
            got.append(await backend.receive_some(100))

    async with open_it(tmp_path / "out", in_, events=events) as backend:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, backend)
                for word in (b"one", b"two"):
                    await wait_all_tasks_blocked()
                    in_.write_bytes(word)
                    await wait_all_tasks_blocked()
                    assert got[-1] == word
                nursery.cancel_scope.cancel()
        assert got == [b"one", b"two"]
        assert events == [Event.OPENED]


async def test_fifo_that_is_gone_when_its_writer_leaves_has_ended(tmp_path: Path) -> None:
    in_ = tmp_path / "in"
    os.mkfifo(in_)
    events: list[BackendEvent] = []
    async with open_it(tmp_path / "out", in_, events=events) as backend:
        in_.write_bytes(b"last")
        in_.unlink()
        assert backend.receive_nowait(100) == b"last"
        assert backend.receive_nowait(100) == b""
        assert events == [Event.OPENED, Event.CLOSED]


async def test_socat_feeds_the_fifo_and_reads_the_output(tmp_path: Path) -> None:
    socat = need("socat")
    out, in_ = tmp_path / "out", tmp_path / "in"
    os.mkfifo(in_)
    async with open_it(out, in_) as backend:
        with trio.fail_after(5):
            await trio.run_process([socat, "-u", "STDIN", f"OPEN:{in_}"], stdin=b"from socat")
            assert await backend.receive_some(100) == b"from socat"
            await backend.send_some(memoryview(b"to socat"))
            read = [socat, "-u", f"OPEN:{out},rdonly", "STDOUT"]
            done = await trio.run_process(read, capture_stdout=True)
            assert done.stdout == b"to socat"


async def test_a_full_disk_is_an_error_of_that_write_alone(tmp_path: Path) -> None:
    async with open_it(Path("/dev/full")) as backend:
        for _ in range(2):
            with pytest.raises(BackendError, match=r"^Could not write to file: No space left"):
                await backend.send_some(memoryview(b"x"))
        assert backend.is_open


async def test_a_fifo_whose_reader_comes_back_takes_output_again(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "out")
    reader = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    async with open_it(tmp_path / "out") as backend:
        os.close(reader)
        with pytest.raises(BackendDisconnectedError, match=r"Broken pipe$"):
            await backend.send_some(memoryview(b"lost"))
        reader = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
        await backend.send_some(memoryview(b"back"))
        assert os.read(reader, 100) == b"back"
        os.close(reader)


async def test_large_writes_are_cut_into_pieces(tmp_path: Path) -> None:
    """So that a slow disk holds the other tasks for one piece at a time."""
    async with open_it(tmp_path / "out") as backend:
        assert backend.send_nowait(memoryview(bytes(3 * PIECE))) == PIECE


async def test_cancelled_calls_have_sent_and_consumed_nothing(tmp_path: Path) -> None:
    out, in_ = tmp_path / "out", tmp_path / "in"
    in_.write_bytes(b"kept")
    async with open_it(out, in_) as backend:
        with trio.CancelScope() as scope:
            scope.cancel()
            await backend.send_some(memoryview(b"not this"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await backend.receive_some(100)
        assert backend.receive_nowait(100) == b"kept"
    assert out.read_bytes() == b""


async def test_a_pipe_by_another_name_than_a_fifos_ends_with_its_writers() -> None:
    """Opening /dev/fdset/N again would give the same pipe, hung up, for ever."""
    source, sink = os.pipe()
    os.write(sink, b"last")
    os.close(sink)
    events: list[BackendEvent] = []
    request = OpenRequest(
        id="x", on_event=events.append, open_path=lambda path, flags, *, mode=0: os.dup(source)
    )
    options = FileOptions(out="/dev/null", in_="/dev/fdset/0")
    async with open_file(options, request) as backend:
        assert backend.receive_nowait(10) == b"last"
        assert backend.receive_nowait(10) == b""
        assert events == [Event.OPENED, Event.CLOSED]
    os.close(source)


async def test_a_folder_is_no_input(tmp_path: Path) -> None:
    """It can be opened, and can't be read."""
    options = FileOptions(in_=str(tmp_path), out=str(tmp_path / "out"))
    request = OpenRequest(id="x", on_event=lambda event: None)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(BackendError, match=rf"^Could not open '{tmp_path}': Is a directory$"):
        async with open_file(options, request):
            pass
    assert os.listdir("/proc/self/fd") == before
    assert not (tmp_path / "out").exists()
