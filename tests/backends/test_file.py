from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.disk import Disk, eventually, is_held_open, wait_written
from tests.peers import need
from trio_chardev import files, stateless
from trio_chardev.access.sandbox import EVERYWHERE
from trio_chardev.backends import ahead, file
from trio_chardev.backends.file import FileOptions, open_file
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.backends.taps import background_file as background
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.environment import Files
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.registry import open_registry
from trio_chardev.testing.pair import receive_some


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


async def read_until_closed(backend: Backend, events: list[BackendEvent]) -> None:
    """There is no more input."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive_some, backend, 100)
        await eventually(lambda: Event.CLOSED in events)
        nursery.cancel_scope.cancel()
    assert events == [Event.OPENED, Event.CLOSED]


async def test_truncates_only_when_activated(tmp_path: Path) -> None:
    """A change may still fail, and the file may be the replaced backend's."""
    out = tmp_path / "out"
    out.write_bytes(b"precious")
    async with open_it(out) as backend:
        assert out.read_bytes() == b"precious"
        backend.activate()
        await eventually(lambda: out.read_bytes() == b"")
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
            await receive_some(backend, 1)
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
            assert await receive_some(backend, 3) == b"hel"
            assert await receive_some(backend, 3) == b"lo"
            await read_until_closed(backend, events)
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
            got.append(await receive_some(backend, 100))

    def has_got(count: int) -> bool:
        return len(got) == count

    async with open_it(tmp_path / "out", in_, events=events) as backend:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, backend)
                for count, word in enumerate((b"one", b"two"), 1):
                    await wait_all_tasks_blocked()
                    in_.write_bytes(word)
                    await eventually(partial(has_got, count))
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
        await read_until_closed(backend, events)


async def test_socat_feeds_the_fifo_and_reads_the_output(tmp_path: Path) -> None:
    socat = need("socat")
    out, in_ = tmp_path / "out", tmp_path / "in"
    os.mkfifo(in_)
    async with open_it(out, in_) as backend:
        with trio.fail_after(5):
            await trio.run_process([socat, "-u", "STDIN", f"OPEN:{in_}"], stdin=b"from socat")
            assert await receive_some(backend, 100) == b"from socat"
            await backend.send_some(memoryview(b"to socat"))
            await wait_written(out, 8)
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


async def test_cancelled_calls_have_sent_and_consumed_nothing(tmp_path: Path) -> None:
    out, in_ = tmp_path / "out", tmp_path / "in"
    in_.write_bytes(b"kept")
    async with open_it(out, in_) as backend:
        with trio.CancelScope() as scope:
            scope.cancel()
            await backend.send_some(memoryview(b"not this"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await receive_some(backend, 100)
        assert backend.receive_nowait(100) == b"kept"
    assert out.read_bytes() == b""


async def test_a_pipe_by_another_name_than_a_fifos_ends_with_its_writers() -> None:
    """Opening /dev/fdset/N again would give the same pipe, hung up, for ever."""
    source, sink = os.pipe()
    os.write(sink, b"last")
    os.close(sink)
    events: list[BackendEvent] = []
    request = OpenRequest(
        id="x",
        on_event=events.append,
        files=Files(open_path=lambda *_, mode=0: os.dup(source)),
    )
    options = FileOptions(out="/dev/null", in_="/dev/fdset/0")
    async with open_file(options, request) as backend:
        assert backend.receive_nowait(10) == b"last"
        await read_until_closed(backend, events)
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


# ---------------------------------------------------------------- a disk that hangs, or is full


async def test_a_disk_that_hangs_holds_up_who_writes_there_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    data = os.urandom(3 * background.MAX_PENDING)
    is_sent = trio.Event()

    async def send(backend: Backend) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[await backend.send_some(rest) :]
        is_sent.set()

    async with open_it(tmp_path / "out") as backend:
        disk.go.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, backend)
            await disk.wait_calls(1)
            await wait_all_tasks_blocked()  # so the loop goes on
            assert backend.send_nowait(memoryview(b"x")) == 0
            assert not is_sent.is_set()
            disk.go.set()
    assert (tmp_path / "out").read_bytes() == data


async def test_what_is_sent_is_in_the_file_soon(tmp_path: Path) -> None:
    async with open_it(tmp_path / "out") as backend:
        await backend.send_some(memoryview(b"seen by tail -f"))
        await wait_written(tmp_path / "out", 15)


async def test_a_full_disk_is_tried_again_and_nothing_is_lost_or_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes a part of what is written to it, and then nothing for a while."""
    monkeypatch.setattr(background, "RETRY_INTERVAL", 0.001)
    real = os.write
    room = 5
    tries = 0

    def write(fd: int, data: bytes) -> int:
        nonlocal room, tries
        if os.readlink(f"/proc/self/fd/{fd}") != str(tmp_path / "out"):
            return real(fd, data)
        if not room:
            tries += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(fd, memoryview(data)[:room])
        room -= count
        return count

    monkeypatch.setattr(os, "write", write)
    async with open_it(tmp_path / "out") as backend:
        await backend.send_some(memoryview(b"0123456789"))
        await eventually(lambda: tries > 3)
        await backend.send_some(memoryview(b"abc"))
        room = 4
        await wait_written(tmp_path / "out", 9)
        room = 1 << 20
        await wait_written(tmp_path / "out", 13)
    assert (tmp_path / "out").read_bytes() == b"0123456789abc"
    assert caplog.text.count("Could not write to file") == 1
    assert "is lost" not in caplog.text


async def test_a_disk_that_is_full_at_the_end_costs_what_the_log_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(monkeypatch)
    disk.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with trio.fail_after(5):
        async with open_it(tmp_path / "out") as backend:
            await backend.send_some(memoryview(b"12345"))
    assert f"file '{tmp_path / 'out'}' lacks its end: 5 bytes are lost" in caplog.text
    assert not is_held_open(tmp_path / "out")


async def test_a_disk_that_hangs_at_the_end_is_given_up_and_costs_what_the_log_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "FLUSH_TIMEOUT", 0.05)
    disk = Disk(monkeypatch)
    disk.go.clear()
    with trio.fail_after(5):
        async with open_it(tmp_path / "out") as backend:
            await backend.send_some(memoryview(b"12345"))
            await disk.wait_calls(1)
            await backend.send_some(memoryview(b"67"))
    assert f"file '{tmp_path / 'out'}' hangs: its end is lost, 7 bytes" in caplog.text
    disk.go.set()
    await eventually(lambda: not is_held_open(tmp_path / "out"))


@pytest.mark.parametrize("append", [False, True])
async def test_a_change_to_the_same_file_keeps_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, append: bool
) -> None:
    """Also while the disk is slow, and by whatever path it is named."""
    disk = Disk(monkeypatch)
    out, link = tmp_path / "out", tmp_path / "link"
    async with open_registry() as registry:
        await registry.add("c", FileOptions(out=str(out)))
        async with registry["c"].attach(be_change=stateless) as frontend:
            link.symlink_to(out)
            disk.go.clear()
            await frontend.send_all(b"old ")
            await disk.wait_calls(1)
            await frontend.send_all(b"older ")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(registry.change, "c", FileOptions(out=str(link), append=append))
                before = frontend.backend
                await eventually(lambda: frontend.backend is not before)
                await frontend.send_all(b"new")
                disk.go.set()
    assert out.read_bytes() == (b"old older new" if append else b"new")


async def test_what_a_full_disk_did_not_take_is_carried_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    async with open_registry() as registry:
        await registry.add("c", FileOptions(out=str(tmp_path / "out")))
        async with registry["c"].attach(be_change=stateless) as frontend:
            await frontend.send_all(b"written ")
            await wait_written(tmp_path / "out", 8)
            disk.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            await frontend.send_all(b"not written")
            await disk.wait_calls(2)
            await registry.change("c", RingbufOptions(), carry=True)
            ring = frontend.backend
            assert isinstance(ring, RingbufBackend)
            assert ring.read(100) == b"not written"
    assert (tmp_path / "out").read_bytes() == b"written "


async def test_carrying_over_waits_for_what_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it is where it was sent to, as long as that can take it."""
    disk = Disk(monkeypatch)
    async with open_registry() as registry:
        await registry.add("c", FileOptions(out=str(tmp_path / "out")))
        async with registry["c"].attach(be_change=stateless) as frontend:
            disk.go.clear()
            await frontend.send_all(b"one ")
            await disk.wait_calls(1)
            await frontend.send_all(b"two")
            async with trio.open_nursery() as nursery:
                change = partial(registry.change, carry=True, drain_timeout=30)
                nursery.start_soon(change, "c", RingbufOptions())
                await wait_all_tasks_blocked()
                disk.go.set()
            ring = frontend.backend
            assert isinstance(ring, RingbufBackend)
            assert ring.count == 0
    assert (tmp_path / "out").read_bytes() == b"one two"


class SlowReads:
    """Stands between a file that is read ahead and its disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.calls = 0
        self.error: OSError | None = None
        read = os.pread

        def slow(fd: int, size: int, offset: int) -> bytes:
            self.calls += 1
            if self.calls > 1:  # the first piece is read by opening
                self.go.wait()
                if self.error is not None:
                    raise self.error
            return read(fd, size, offset)

        monkeypatch.setattr(os, "pread", slow)


async def test_an_input_whose_disk_hangs_holds_nobody_up_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = SlowReads(monkeypatch)
    data = os.urandom(3 * ahead.PIECE + 7)
    (tmp_path / "in").write_bytes(data)
    got = bytearray()
    async with open_it(tmp_path / "out", tmp_path / "in") as backend:
        got += backend.receive_nowait(1 << 20)
        assert len(got) == ahead.PIECE
        for _ in range(2):  # a call that is given up has read nothing
            with trio.move_on_after(0.01) as cut:
                await receive_some(backend, 1 << 20)
            assert cut.cancelled_caught
        reads.go.set()
        with trio.fail_after(5):
            while len(got) < len(data):
                got += await receive_some(backend, 1000)
    assert got == data


async def test_an_input_that_is_read_when_it_is_closed_is_closed_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = SlowReads(monkeypatch)
    in_ = tmp_path / "in"
    in_.write_bytes(bytes(ahead.PIECE + 1))
    async with open_it(tmp_path / "out", in_) as backend:
        backend.receive_nowait(1 << 20)
        with trio.move_on_after(0.01):
            await receive_some(backend, 1 << 20)
    assert is_held_open(in_)
    reads.go.set()
    await eventually(lambda: not is_held_open(in_))


async def test_an_input_that_can_not_be_read_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reads = SlowReads(monkeypatch)
    reads.go.set()
    reads.error = OSError(errno.EIO, os.strerror(errno.EIO))
    (tmp_path / "in").write_bytes(bytes(ahead.PIECE + 1))
    events: list[BackendEvent] = []
    async with open_it(tmp_path / "out", tmp_path / "in", events=events) as backend:
        backend.receive_nowait(1 << 20)
        await read_until_closed(backend, events)
    assert "Could not read from file: Input/output error" in caplog.text


async def test_a_passed_input_is_read_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"read before, rest")
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    os.read(fd, 13)
    request = OpenRequest(
        id="x",
        on_event=lambda event: None,
        files=Files(
            open_path=lambda path, flags, sandbox=EVERYWHERE, *, mode=0o666: (
                os.dup(fd) if path == "/dev/fdset/0" else os.open(path, flags)
            )
        ),
    )
    async with open_file(FileOptions(out="/dev/null", in_="/dev/fdset/0"), request) as backend:
        with trio.fail_after(5):
            assert await receive_some(backend, 100) == b"rest"
    os.close(fd)


async def test_a_fifo_on_a_disk_that_hangs_is_opened_again_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_ = tmp_path / "in"
    os.mkfifo(in_)
    go = threading.Event()
    is_asked = threading.Event()
    is_fifo = file.is_fifo

    def slow(path: str) -> bool:
        is_asked.set()
        go.wait()
        return is_fifo(path)

    monkeypatch.setattr(file, "is_fifo", slow)
    monkeypatch.setattr(file, "RETRY_INTERVAL", 0.001)
    async with open_it(tmp_path / "out", in_) as backend, trio.open_nursery() as nursery:
        monkeypatch.setattr(files, "FILE_TIMEOUT", 0.01)
        in_.write_bytes(b"one")
        assert await receive_some(backend, 100) == b"one"

        async def read() -> None:
            assert await receive_some(backend, 100) == b"two"

        nursery.start_soon(read)
        await eventually(is_asked.is_set)
        go.set()
        in_.write_bytes(b"two")
