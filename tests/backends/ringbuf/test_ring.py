"""A ring with a file: what survives, what is refused."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.disk import eventually, is_held_open
from tests.services import Qmp, running
from tests.threads import Threads
from trio_chardev import workers
from trio_chardev.backends.ringbuf import keeper as ring_keeper
from trio_chardev.backends.ringbuf.file import HEAD_SIZE, RingFile
from trio_chardev.backends.ringbuf.keeper import STEP
from trio_chardev.backends.ringbuf.ring import Ring, open_ring
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.core.environment import open_path
from trio_chardev.errors import BackendError
from trio_chardev.registry import Registry, open_registry

SIZE = 16


class KilledError(BaseException):
    """The process ends here."""


class AtOnce:
    """Does what a thread would do, before it returns."""

    def run(self, work: Callable[[], None], deliver: Callable[[], None]) -> None:
        work()
        deliver()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "POOL", AtOnce())


@contextmanager
def opened(path: Path, size: int = SIZE, replaced: Ring | None = None) -> Iterator[Ring]:
    ring = open_ring(str(path), size, open_path, replaced)
    ring.users += 1
    try:
        yield ring
    finally:
        ring.users -= 1
        ring.close_unused()


def refusal(path: Path, size: int = SIZE, replaced: Ring | None = None) -> str:
    before = path.read_bytes()
    with pytest.raises(BackendError) as raised:
        open_ring(str(path), size, open_path, replaced)
    assert path.read_bytes() == before
    return str(raised.value)


# ---------------------------------------------------------------- what survives


def test_what_was_not_read_is_there_again(tmp_path: Path, at_once: None) -> None:
    with opened(tmp_path / "r") as ring:
        ring.write(b"abcdefgh")
        ring.write(b"0123456789")
        assert ring.read(1) == b"c"
    with opened(tmp_path / "r") as ring:
        assert ring.count == 15
        assert ring.read(100) == b"defgh0123456789"
    with opened(tmp_path / "r") as ring:
        assert ring.count == 0


def test_killed_at_any_step_it_has_a_piece_of_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    """Before, within and after each system call."""
    pwrite = os.pwrite
    stream = bytes(range(100))
    pieces = [5, 11, 3, 16, 40, 1, 0, 24]
    left = written = 0

    def mortal_pwrite(fd: int, data: Any, at: int) -> int:
        nonlocal left
        left -= 1
        if left == 0:
            if at >= HEAD_SIZE:  # what the kernel writes of a page, it writes whole
                pwrite(fd, data[: len(data) // 2], at)
            raise KilledError
        return pwrite(fd, data, at)

    def live(ring: Ring) -> None:
        nonlocal written
        for size in pieces:
            ring.write(stream[written : written + size])
            written += size

    for steps in range(1, 100):
        path = tmp_path / f"r{steps}"
        written = 0
        with opened(path) as ring:
            left = steps
            monkeypatch.setattr(os, "pwrite", mortal_pwrite)
            with suppress(KilledError):
                live(ring)
            monkeypatch.setattr(os, "pwrite", pwrite)
        with opened(path) as ring:
            data = ring.read(SIZE)
        begin = stream.find(data)
        assert begin >= 0
        if left > 0:  # it was not killed
            assert data == stream[-SIZE:]
            break
        last = next(size for i, size in enumerate(pieces) if sum(pieces[: i + 1]) > written)
        assert begin + len(data) in (written, written + last) or not data
    else:
        pytest.fail("it was killed each time")


def test_after_sigkill_the_next_service_has_it(tmp_path: Path) -> None:
    arguments = [
        *("--chardev", f"ringbuf,id=r,size=64k,path={tmp_path}/r"),
        *("--qmp", f"unix:{tmp_path}/q,server=on,wait=off"),
    ]
    with running(*arguments) as service:
        with Qmp(tmp_path / "q") as qmp:
            qmp("ringbuf-write", device="r", data="said before it died")
        assert service.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    with running(*arguments), Qmp(tmp_path / "q") as qmp:
        assert qmp("ringbuf-read", device="r", size=100) == "said before it died"


async def test_a_change_to_another_backend_and_back_keeps_it(tmp_path: Path) -> None:
    options = RingbufOptions(size=SIZE, path=str(tmp_path / "r"))
    async with open_registry() as registry:
        await registry.add("r", options)
        backend = registry["r"].backend
        assert isinstance(backend, RingbufBackend)
        backend.write(b"one")
        await registry.change("r", options)  # to itself
        assert registry["r"].backend is not backend
        await registry.change("r", RingbufOptions(size=SIZE))
        await registry.change("r", options)
        backend = registry["r"].backend
        assert isinstance(backend, RingbufBackend)
        assert backend.read(10) == b"one"
        with pytest.raises(BackendError, match="is a ring of 16 bytes, not 32"):
            await registry.change("r", RingbufOptions(size=32, path=str(tmp_path / "r")))
        with pytest.raises(BackendError, match="is the ring of somebody else"):
            await registry.add("other", options)
        backend.write(b"two")
    with opened(tmp_path / "r") as ring:
        assert ring.read(10) == b"two"


# ---------------------------------------------------------------- faults


def test_a_file_that_fails_holds_nothing_up_and_is_whole_again_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at_once: None
) -> None:
    def fail(*arguments: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tmp_path / "r") as ring:
        ring.write(b"abc")
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", fail)
            ring.write(b"def")
            assert ring.read(1) == b"a"
            ring.write(b"ghi")
        ring.write(b"jkl")
    assert [r.message for r in caplog.records] == [
        f"Could not write to '{tmp_path}/r': Input/output error"
    ]
    with opened(tmp_path / "r") as ring:
        assert ring.read(100) == b"bcdefghijkl"


def test_a_full_disk_is_an_error_at_once_and_leaves_an_empty_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "r").touch()
    monkeypatch.setattr(os, "posix_fallocate", is_full)
    path = tmp_path / "r"
    assert refusal(path) == f"Could not open '{path}': No space left on device"


def test_one_that_was_killed_while_it_made_the_file_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(bytes(HEAD_SIZE + SIZE))
    with opened(tmp_path / "r") as ring:
        assert ring.count == 0


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "content", [b"x", b"trio-chardev ring 1\n", b"\0" * 100, b"x" * (HEAD_SIZE + SIZE)]
)
def test_what_is_no_ring_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r"
    path.write_bytes(content)
    assert refusal(path) == f"'{path}' is not a ring"


def test_a_ring_that_is_cut_off_or_scribbled_on(tmp_path: Path, at_once: None) -> None:
    path = tmp_path / "r"
    with opened(path) as ring:
        ring.write(b"abc")
    whole = path.read_bytes()
    assert refusal(path, 2 * SIZE) == f"'{path}' is a ring of 16 bytes, not 32"
    path.write_bytes(whole[:-1])
    assert refusal(path) == f"'{path}' is a damaged ring"
    path.write_bytes(whole[:32] + b"\xff" * 8 + whole[40:])
    assert refusal(path) == f"'{path}' is a damaged ring"


def test_a_ring_that_says_it_was_written_without_end(tmp_path: Path, at_once: None) -> None:
    """For what its user writes then the head would have no room."""
    end = (1 << 64) - 1
    path = tmp_path / "r"
    with opened(path):
        pass
    whole = path.read_bytes()
    bounds = (end - 3).to_bytes(8, "little") + end.to_bytes(8, "little")
    path.write_bytes(whole[:32] + bounds + whole[48:])
    with opened(path) as ring:
        ring.write(b"goes on")
    with opened(path) as ring:
        assert ring.read(SIZE) == bytes(3) + b"goes on"


def test_what_cannot_be_a_ring(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, why in [
        (tmp_path / "fifo", f"'{tmp_path}/fifo' is not a ring"),
        (Path("/dev/null"), "'/dev/null' is not a ring"),
        (tmp_path, f"Could not open '{tmp_path}': Is a directory"),
        (Path("/missing/r"), "Could not open '/missing/r': No such file or directory"),
        (Path("a\0b"), "Could not open 'a\0b': embedded null byte"),
    ]:
        with pytest.raises(BackendError) as raised:
            open_ring(str(path), SIZE, open_path, None)
        assert str(raised.value) == why


def test_two_can_not_have_one(tmp_path: Path, at_once: None) -> None:
    with opened(tmp_path / "r") as ring:
        ring.write(b"abc")
        assert refusal(tmp_path / "r") == f"'{tmp_path}/r' is the ring of somebody else"


# ---------------------------------------------------------------- a disk that hangs


class Disk:
    """It hangs in pwrite(2) as long as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        real = os.pwrite

        def pwrite(fd: int, data: Any, at: int) -> int:
            self.begun.set()
            self.go.wait(10)
            return real(fd, data, at)

        monkeypatch.setattr(os, "pwrite", pwrite)


def ring_of(registry: Registry) -> RingbufBackend:
    backend = registry["r"].backend
    assert isinstance(backend, RingbufBackend)
    return backend


async def test_while_its_disk_hangs_the_ring_goes_on_and_then_the_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RingbufOptions(size=SIZE, path=str(tmp_path / "r"))
    async with open_registry() as registry:
        await registry.add("r", options)
        disk = Disk(monkeypatch)
        backend = ring_of(registry)
        with trio.fail_after(5):
            backend.write(b"one")
            await eventually(disk.begun.is_set)
            for _ in range(100):
                backend.write(b"more than a ring has")
            assert backend.read(4) == b" tha"
            backend.write(b"end")
            disk.go.set()
            await backend.kept()
        head, data = HEAD_SIZE, (tmp_path / "r").read_bytes()
        assert len(data) == head + SIZE
        with opened_copy(tmp_path) as copy:
            assert copy.read(100) == b"n a ring hasend"


@contextmanager
def opened_copy(folder: Path) -> Iterator[Ring]:
    """As after a crash in this moment: the lock is gone."""
    shutil.copy(folder / "r", folder / "copy")
    with opened(folder / "copy") as ring:
        yield ring


def in_file(folder: Path) -> bytes:
    with opened_copy(folder) as ring:
        return ring.peek(100)


async def test_who_wants_to_know_waits_for_a_disk_that_hangs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = RingbufOptions(size=SIZE, path=str(tmp_path / "r"))
    monkeypatch.setattr(ring_keeper, "FILE_TIMEOUT", 0.05)
    async with open_registry() as registry:
        await registry.add("r", options)
        disk = Disk(monkeypatch)
        backend = ring_of(registry)
        backend.write(b"one")
        with trio.fail_after(5):
            await backend.kept()
            slow = f"Could not write to '{tmp_path}/r': it takes its time"
            assert [record.message for record in caplog.records] == [slow]
            backend.write(b"two")
            await backend.kept()
            assert len(caplog.records) == 1
            disk.go.set()
        await eventually(lambda: in_file(tmp_path) == b"onetwo")
        backend.write(b"three")
        await eventually(lambda: in_file(tmp_path) == b"onetwothree")


async def test_a_ring_that_is_removed_while_its_disk_hangs_is_closed_by_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = RingbufOptions(size=SIZE, path=str(tmp_path / "r"))
    monkeypatch.setattr(ring_keeper, "CLOSE_TIMEOUT", 0.05)
    async with open_registry() as registry:
        await registry.add("r", options)
        disk = Disk(monkeypatch)
        ring_of(registry).write(b"one")
        with trio.fail_after(5):
            await registry.remove("r")
        lacks = f"'{tmp_path}/r' lacks what was written last: its disk hangs"
        assert [record.message for record in caplog.records] == [lacks]
        assert is_held_open(tmp_path / "r")
        disk.go.set()
        await eventually(lambda: not is_held_open(tmp_path / "r"))
    with opened(tmp_path / "r") as ring:
        assert ring.read(10) == b"one"


async def test_without_a_thread_it_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RingbufOptions(size=SIZE, path=str(tmp_path / "r"))
    async with open_registry() as registry:
        await registry.add("r", options)
        threads = Threads(monkeypatch)
        threads.run_out()
        ring_of(registry).write(b"one")
        with opened_copy(tmp_path) as copy:
            assert copy.read(10) == b"one"


async def test_what_is_larger_than_a_step_is_brought_to_the_file_in_several(
    tmp_path: Path,
) -> None:
    size = 4 * STEP
    options = RingbufOptions(size=size, path=str(tmp_path / "r"))
    async with open_registry() as registry:
        await registry.add("r", options)
        backend = ring_of(registry)
        data = os.urandom(size + 1000)
        backend.write(b"before")
        backend.write(data)
        await backend.kept()
        shutil.copy(tmp_path / "r", tmp_path / "r.copy")
        with opened(tmp_path / "r.copy", size) as copy:
            assert copy.read(size) == data[-size:]


async def test_closing_waits_for_the_note_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is written after the bytes, of which others are told at once."""
    go = threading.Event()
    follow, write_note = RingFile.follow, RingFile.write_note

    def follow_late(file: RingFile, start: int, begin: int, data: bytes) -> None:
        go.wait(10)
        follow(file, start, begin, data)

    def write_late(file: RingFile, note: bytes) -> None:
        time.sleep(0.05)  # longer than it takes those who wait to go on
        write_note(file, note)

    monkeypatch.setattr(RingFile, "follow", follow_late)
    monkeypatch.setattr(RingFile, "write_note", write_late)
    path = tmp_path / "r"
    ring = open_ring(str(path), SIZE, open_path, None)
    ring.users = 1
    ring.write(b"x")
    ring.annotate(b"note")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ring.release)
        await wait_all_tasks_blocked()
        go.set()
    assert not is_held_open(path)
    assert not caplog.messages
    again = open_ring(str(path), SIZE, open_path, None)
    assert (again.peek(SIZE), again.note) == (b"x", b"note")
    again.close_unused()
