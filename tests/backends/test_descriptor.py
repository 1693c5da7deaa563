from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_chardev.backends.descriptor import (
    TERMINAL_READ,
    TERMINAL_READS,
    DescriptorBackend,
    FdHolder,
    open_fd,
    read_terminal,
    truncate,
)
from trio_chardev.core.backend import OpenRequest
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing.pair import receive_some


class Ends(DescriptorBackend):
    """The least that a backend on descriptors is."""

    @property
    def filename(self) -> str:
        return "ends"


@asynccontextmanager
async def opened(
    source: int | None, sink: int, events: list[BackendEvent] | None = None
) -> AsyncIterator[Ends]:
    """A backend that owns these descriptors."""
    request = OpenRequest(id="x", on_event=([] if events is None else events).append)
    backend = Ends(request, None if source is None else FdHolder(source), FdHolder(sink))
    backend.set_open(True)
    try:
        yield backend
    finally:
        backend.close()


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """Two pipes: what the backend reads, what feeds it, what shows its output, what it writes."""
    fds = (*os.pipe(), *os.pipe())
    yield fds
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


async def test_holder_forgets_the_number_when_closed() -> None:
    read_end, write_end = os.pipe()
    holder = FdHolder(read_end)
    holder.close()
    assert (holder.fd, holder.closed) == (-1, True)
    holder.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read_end)
    with pytest.raises(BackendError, match="was closed"):
        await holder.wait_readable()
    with pytest.raises(BackendError, match="was closed"):
        await holder.wait_writable()
    os.close(write_end)


async def test_closing_restores_blocking_mode_of_a_shared_description() -> None:
    read_end, write_end = os.pipe()
    holder = FdHolder(os.dup(write_end))
    assert not os.get_blocking(write_end)
    await holder.wait_writable()
    holder.close()
    assert os.get_blocking(write_end)
    os.close(read_end)
    os.close(write_end)


async def test_close_wakes_who_waits_with_backend_error(nursery: trio.Nursery) -> None:
    read_end, write_end = os.pipe()
    holder = FdHolder(read_end)

    async def wait() -> None:
        with pytest.raises(BackendError, match="was closed"):
            await holder.wait_readable()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    holder.close()
    os.close(write_end)


async def test_what_epoll_refuses_is_always_ready(tmp_path: Path) -> None:
    for path in (tmp_path / "regular", Path("/dev/null")):
        holder = open_fd(str(path), os.O_RDWR | os.O_CREAT)
        with trio.fail_after(5):
            await holder.wait_readable()
            await holder.wait_writable()
        holder.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing", "No such file or directory"), ("a\0b", "embedded null byte"), ("\ud800", ".+")],
)
def test_failure_to_open_is_one_line(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(BackendError, match=f"^Could not open '.*': {reason}$"):
        open_fd(f"{tmp_path}/{name}", os.O_RDONLY)


def test_opened_descriptors_are_not_inherited_and_never_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    holder = open_fd(str(tmp_path / "fifo"), os.O_RDONLY)
    assert not os.get_inheritable(holder.fd)
    assert fcntl.fcntl(holder.fd, fcntl.F_GETFL) & os.O_NONBLOCK
    os.close(holder.fd)


FULL = TERMINAL_READ


@pytest.mark.parametrize(
    ("there", "max_bytes", "sizes"),
    [
        ([3, 5], 65536, [3]),
        ([FULL, 5, 7], 65536, [FULL, 5]),
        ([FULL] * 5, 65536, [FULL] * TERMINAL_READS),
        ([FULL, BlockingIOError(), 7], 65536, [FULL]),
        ([FULL, OSError(errno.EIO, "gone"), 7], 65536, [FULL]),
        ([FULL, 0, 7], 65536, [FULL]),
        ([FULL, 5], FULL, [FULL]),
        ([FULL, 5], FULL + 2, [FULL, 2]),
    ],
)
def test_a_terminal_is_read_again_when_it_gave_all_that_it_can_at_once(
    there: list[int | OSError],
    max_bytes: int,
    sizes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = iter(there)

    def read(fd: int, size: int) -> bytes:
        assert size > 0
        if isinstance(item := next(reads), OSError):
            raise item
        return b"-" * min(item, size)

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read)
        assert len(read_terminal(0, max_bytes)) == sum(sizes)


@pytest.mark.parametrize("error", [BlockingIOError(), OSError(errno.EIO, "gone")])
def test_what_the_first_read_of_a_terminal_fails_with_is_raised(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(fd: int, size: int) -> bytes:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read)
        with pytest.raises(type(error)):
            read_terminal(0, 100)


def test_truncate_leaves_what_is_no_regular_file_alone(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    fd = os.open(tmp_path / "f", os.O_WRONLY)
    truncate(fd)
    os.close(fd)
    assert (tmp_path / "f").read_bytes() == b""
    fd = os.open("/dev/null", os.O_WRONLY)
    truncate(fd)
    os.close(fd)


async def test_nothing_to_read_and_no_room_are_not_errors(
    pipes: tuple[int, int, int, int],
) -> None:
    async with opened(pipes[0], pipes[3]) as backend:
        assert backend.receive_nowait(10) == b""
        while backend.send_nowait(memoryview(bytes(65536))):
            pass
        with trio.move_on_after(0) as scope:
            await backend.send_some(memoryview(b"x"))
        assert scope.cancelled_caught


async def test_end_of_file_is_closed_and_output_goes_on(pipes: tuple[int, int, int, int]) -> None:
    events: list[BackendEvent] = []
    async with opened(pipes[0], pipes[3], events) as backend:
        os.write(pipes[1], b"last")
        os.close(pipes[1])
        with trio.fail_after(5):
            assert await receive_some(backend, 100) == b"last"
        assert backend.receive_nowait(0) == b""
        assert events == [Event.OPENED]
        assert backend.receive_nowait(100) == b""
        assert events == [Event.OPENED, Event.CLOSED]
        assert await backend.send_some(memoryview(b"more")) == 4


async def test_no_busy_loop_after_the_end_of_file(pipes: tuple[int, int, int, int]) -> None:
    async with opened(pipes[0], pipes[3]) as backend:
        os.close(pipes[1])
        with trio.move_on_after(5) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive_some, backend, 100)
                await wait_all_tasks_blocked()  # it waits for nothing but its cancellation
                nursery.cancel_scope.cancel()
        assert not scope.cancelled_caught


async def test_cancelled_receive_has_consumed_nothing(pipes: tuple[int, int, int, int]) -> None:
    async with opened(pipes[0], pipes[3]) as backend:
        os.write(pipes[1], b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await receive_some(backend, 100)
        assert scope.cancelled_caught
        assert backend.receive_nowait(100) == b"kept"


async def test_cancelled_send_has_sent_nothing(pipes: tuple[int, int, int, int]) -> None:
    async with opened(None, pipes[3]) as backend:
        with trio.CancelScope() as scope:
            scope.cancel()
            await backend.send_some(memoryview(b"not this"))
        assert scope.cancelled_caught
        os.set_blocking(pipes[2], False)
        with pytest.raises(BlockingIOError):
            os.read(pipes[2], 1)


async def test_writing_with_no_reader_is_disconnected(pipes: tuple[int, int, int, int]) -> None:
    async with opened(None, pipes[3]) as backend:
        os.close(pipes[2])
        with pytest.raises(
            BackendDisconnectedError, match=r"^Could not write to ends: Broken pipe$"
        ):
            backend.send_nowait(memoryview(b"x"))


async def test_failed_read_kills_only_a_backend_of_one_descriptor(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Reading a directory fails (EISDIR), as a line that is gone does (EIO)."""
    events: list[BackendEvent] = []
    async with opened(
        os.open(tmp_path, os.O_RDONLY), os.open("/dev/null", os.O_WRONLY), events
    ) as backend:
        assert backend.receive_nowait(1) == b""
        assert events == [Event.OPENED, Event.CLOSED]
        assert "Could not read from ends: Is a directory" in caplog.text
        assert backend.send_nowait(memoryview(b"x")) == 1

    async with opened(None, os.open(tmp_path, os.O_RDONLY)) as backend:
        backend.source = backend.sink
        with pytest.raises(BackendError, match=r"^Could not read from ends: Is a directory$"):
            await receive_some(backend, 1)
