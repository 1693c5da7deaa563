from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from tests.disk import Disk, eventually, is_held_open, wait_written
from trio_chardev.backends.null import NullBackend
from trio_chardev.backends.taps import background_file as background, output
from trio_chardev.backends.taps.log import open_log
from trio_chardev.backends.taps.log_file import LogFile
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.environment import Files
from trio_chardev.errors import BackendError
from trio_chardev.options.backend import BackendOptions


def open_it(
    path: Path | str,
    *,
    append: bool = False,
    timestamp: bool = False,
    keep: int | None = None,
    replaces: Backend | None = None,
) -> AbstractAsyncContextManager[LogFile | None]:
    options = BackendOptions(
        logfile=str(path), logappend=append, logtimestamp=timestamp, log_keep=keep
    )
    return open_log(options, make_request(replaces))


@asynccontextmanager
async def opened(
    path: Path | str,
    *,
    append: bool = False,
    timestamp: bool = False,
    keep: int | None = None,
) -> AsyncIterator[LogFile]:
    """A log file in place."""
    async with open_it(path, append=append, timestamp=timestamp, keep=keep) as log:
        assert log is not None
        log.activate()
        yield log


def make_request(replaces: Backend | None = None) -> OpenRequest:
    return OpenRequest(id="x", on_event=lambda event: None, replaces=replaces)


async def test_without_a_logfile_there_is_nothing() -> None:
    """No task, and no object either."""
    options = BackendOptions(logappend=True)
    assert open_log(options, make_request()) is open_log(options, make_request())
    nurseries = len(trio.lowlevel.current_task().child_nurseries)
    async with open_log(options, make_request()) as log:
        assert log is None
        assert len(trio.lowlevel.current_task().child_nurseries) == nurseries


async def test_a_pipe_that_a_client_has_passed_stays_as_it_is() -> None:
    """Non-blocking, which others share, and it is written as its reader takes it."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    options = BackendOptions(logfile="/dev/fdset/1", logappend=True)
    request = make_request()
    request.files = Files(open_path=lambda *_, mode=0: os.dup(writer))
    data, read = bytes(range(256)) * 1000, b""
    with trio.fail_after(10):
        async with open_log(options, request) as log:
            assert log is not None
            log.activate()
            log.sent(memoryview(data))
            while len(read) < len(data):
                try:
                    read += os.read(reader, 65536)
                except BlockingIOError:
                    await trio.sleep(0.001)
    assert read == data
    assert not os.get_blocking(writer)
    os.close(reader)
    os.close(writer)


async def test_what_is_sent_is_in_the_file_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with opened(path) as log:
        for i in range(1000):
            log.sent(memoryview(b"%d," % i))
            if i % 100 == 0:
                await trio.lowlevel.checkpoint()
    assert path.read_bytes() == b"".join(b"%d," % i for i in range(1000))
    assert not is_held_open(path)


async def test_is_written_while_open(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with opened(path) as log:
        log.sent(memoryview(b"soon"))
        await wait_written(path, 4)
        assert path.read_bytes() == b"soon"


async def test_truncated_only_by_the_commit(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"precious")
    async with open_it(path) as log:
        assert log is not None
        assert path.read_bytes() == b"precious"
        log.activate()
    assert path.read_bytes() == b""


async def test_logappend_appends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old ")
    async with opened(path, append=True) as log:
        log.sent(memoryview(b"new"))
    assert path.read_bytes() == b"old new"


async def test_it_is_for_nobody_else(tmp_path: Path) -> None:
    async with open_it(tmp_path / "log"):
        pass
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("path", "reason"), [("/no/such/log", "No such file or directory"), ("a\0b", "embedded null")]
)
async def test_failure_to_create(path: str, reason: str) -> None:
    with pytest.raises(BackendError, match=f"^Could not create '{path}': {reason}"):
        async with open_it(path):
            pass


async def test_what_cannot_be_truncated_is_left_alone() -> None:
    async with opened("/dev/null") as log:
        log.sent(memoryview(b"x"))


async def test_failing_truncation_is_only_complained_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The commit is no place to fail in."""

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "disk")

    monkeypatch.setattr(output, "truncate", fail)
    async with opened(tmp_path / "log", keep=0):
        pass
    assert f"Could not truncate log file '{tmp_path}/log': Input/output error" in caplog.text


async def test_a_file_that_was_moved_and_cannot_be_made_again_is_written_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_it(tmp_path / "log") as log:
        assert log is not None
        (tmp_path / "log").rename(tmp_path / "moved")
        (tmp_path / "log").mkdir()
        log.activate()
        log.sent(memoryview(b"x"))
    assert f"'{tmp_path}/log': Could not create '{tmp_path}/log': Is a directory" in caplog.text
    assert (tmp_path / "moved").read_bytes() == b"x"


async def test_errors_of_the_body_leave_as_they_are(tmp_path: Path) -> None:
    """Not in a group, though there is a nursery."""
    failure = BackendError("dead")

    async def die() -> None:
        async with opened(tmp_path / "log") as log:
            log.sent(memoryview(b"last words"))
            raise failure

    with pytest.raises(BackendError) as info:
        await die()
    assert info.value is failure
    assert (tmp_path / "log").read_bytes() == b"last words"


async def test_a_cancelled_body_is_logged_to_its_end(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with opened(tmp_path / "log") as log:
            log.sent(memoryview(b"last words"))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert (tmp_path / "log").read_bytes() == b"last words"


# ---------------------------------------------------------------- timestamps

STAMP = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z "


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where it is tomorrow already for half of the day."""
    monkeypatch.setenv("TZ", "EAST-14")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


async def test_the_time_is_utc_wherever_the_service_runs(tmp_path: Path, far_east: None) -> None:
    path = tmp_path / "log"
    before = datetime.now(UTC)
    async with opened(path, timestamp=True) as log:
        log.sent(memoryview(b"x"))
    stamp = path.read_text().split()[0]
    assert before <= datetime.fromisoformat(stamp) <= datetime.now(UTC)


async def test_each_line_begins_with_the_time(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with opened(path, timestamp=True) as log:
        log.sent(memoryview(b"one\n\nthree\n"))
    lines = path.read_bytes().split(b"\n")
    for line, text in zip(lines, (b"one", b"", b"three"), strict=False):
        assert re.fullmatch(STAMP + text, line)
    assert lines[3:] == [b""]


@pytest.mark.parametrize("cut", range(1, 8))
async def test_lines_are_kept_across_writes(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log"
    text = b"one\n\ntwo"
    async with opened(path, timestamp=True) as log:
        log.sent(memoryview(text[:cut]))
        log.sent(memoryview(b""))
        log.sent(memoryview(text[cut:]))
    assert re.sub(STAMP, b"T ", path.read_bytes()) == b"T one\nT \nT two"


# ---------------------------------------------------------------- trouble with the disk


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def test_slow_disk_holds_up_nobody_and_memory_is_bounded(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells at that place how much is missing."""
    path = tmp_path / "log"
    disk.go.clear()
    lost = 20 * (background.MAX_PENDING // 10) - background.MAX_PENDING
    async with opened(path) as log:
        log.sent(memoryview(b"first"))
        await disk.wait_calls(1)
        for _ in range(20):
            log.sent(memoryview(bytes(background.MAX_PENDING // 10)))
        assert log.background.dropped == lost
        assert caplog.text.count("is too slow: what comes is dropped") == 1
        disk.go.set()
        await wait_written(path, 6 + background.MAX_PENDING)
        log.sent(memoryview(b"again"))
    assert f"lacks {lost} bytes by now" in caplog.text
    begin, note, end = path.read_bytes().split(b"\n")
    assert (begin, end) == (b"first" + bytes(background.MAX_PENDING), b"again")
    assert re.fullmatch(STAMP + rb"\[trio-chardev: LOST %d bytes\]" % lost, note)


async def test_a_full_disk_loses_nothing_that_there_is_room_for(
    tmp_path: Path,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Writing is tried again by itself, and what fails is said once until it works again."""
    monkeypatch.setattr(background, "RETRY_INTERVAL", 0.01)
    path = tmp_path / "log"
    disk.error = OSError(errno.ENOSPC, "full")
    async with opened(path) as log:
        log.sent(memoryview(b"panic: "))
        await disk.wait_calls(3)
        assert (
            caplog.text.count(f"Could not write to log file '{path}': No space left on device") == 1
        )
        disk.error = None
        log.sent(memoryview(b"x"))
        await wait_written(path, 8)
        disk.error = OSError(errno.EIO, "broken")
        log.sent(memoryview(b"its end"))
    assert f"Could not write to log file '{path}': Input/output error" in caplog.text
    assert f"log file '{path}' lacks its end: 7 bytes are lost" in caplog.text
    assert path.read_bytes() == b"panic: x"
    assert {record.name for record in caplog.records} == {"trio_chardev.log"}


async def test_hanging_disk_is_given_up_at_closing(
    tmp_path: Path,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The thread that hangs keeps the descriptor, so that its number is not another file's."""
    monkeypatch.setattr(background, "FLUSH_TIMEOUT", 0.05)
    path = tmp_path / "log"
    disk.go.clear()
    async with opened(path) as log:
        log.sent(memoryview(b"late"))
    assert f"log file '{path}' hangs: its end is lost" in caplog.text
    assert is_held_open(path)
    disk.go.set()
    await eventually(lambda: not is_held_open(path))
    assert path.read_bytes() == b"late"


# ---------------------------------------------------------------- the same file in a change


def make_backend(log: LogFile) -> Backend:
    backend = NullBackend(make_request())
    backend.taps = (log,)
    return backend


async def test_replaced_log_of_the_same_file_is_written_first(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "log"
    disk.go.clear()
    async with opened(path) as old:
        old.sent(memoryview(b"old "))
        async with open_it(path, append=True, replaces=make_backend(old)) as new:
            assert new is not None
            new.activate()
            new.sent(memoryview(b"new"))
            old.background.close()
            disk.go.set()
    assert path.read_bytes() == b"old new"


async def test_truncation_takes_what_the_replaced_log_has_not_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    async with opened(path) as old:
        old.sent(memoryview(b"old"))
        async with open_it(path, replaces=make_backend(old)) as new:
            assert new is not None
            old.sent(memoryview(b"old"))
            new.activate()
            new.sent(memoryview(b"new"))
            old.background.close()
    assert path.read_bytes() == b"new"


async def test_other_logs_are_not_waited_for(tmp_path: Path) -> None:
    async with (
        opened(tmp_path / "old") as old,
        open_it(tmp_path / "new", replaces=make_backend(old)) as new,
    ):
        assert new is not None
        new.activate()
        new.sent(memoryview(b"new"))
        await wait_written(tmp_path / "new", 3)
