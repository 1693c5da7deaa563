from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.disk import eventually, hang_in
from tests.peers import need
from tests.services import until
from trio_chardev import files
from trio_chardev.backends import inotify
from trio_chardev.backends.descriptor import FdHolder
from trio_chardev.backends.inotify import IN_Q_OVERFLOW
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pty import opens, pty as module, unread as pty_unread
from trio_chardev.backends.pty.leaving import is_hung_up
from trio_chardev.backends.pty.pty import PtyBackend, PtyOptions, open_pty
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.controls import Controls
from trio_chardev.core.handlers import stateless
from trio_chardev.core.runner import DRAIN_TIMEOUT
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.libc import call
from trio_chardev.registry import open_registry
from trio_chardev.testing import CancelAtStep
from trio_chardev.testing.pair import receive_some

OPENED, CLOSED = Event.OPENED, Event.CLOSED
TERMINAL_SIZE = 4095  # bytes; what the kernel keeps for a terminal's reader


@attrs.define(eq=False)
class Reader:
    """Reads as a chardev does; *seen* has the events and the bytes in order."""

    seen: list[BackendEvent | bytes] = attrs.Factory(list)
    reads: int = 0

    async def run(self, backend: Backend) -> None:
        while True:
            self.seen.append(await receive_some(backend, 4096))
            self.reads += 1


@asynccontextmanager
async def reading() -> AsyncIterator[tuple[PtyBackend, list[BackendEvent | bytes]]]:
    """A PTY that is read from, and what was seen of it."""
    reader = Reader()
    async with open_pty(PtyOptions(), OpenRequest(id="x", on_event=reader.seen.append)) as backend:
        assert isinstance(backend, PtyBackend)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader.run, backend)
                await wait_all_tasks_blocked()
                yield backend, reader.seen
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def opened(
    path: Path | None = None, replaces: Backend | None = None
) -> AsyncIterator[PtyBackend]:
    options = PtyOptions(path=None if path is None else str(path))
    request = OpenRequest(id="x", on_event=lambda event: None, replaces=replaces)
    async with open_pty(options, request) as backend:
        assert isinstance(backend, PtyBackend)
        yield backend


def open_slave(backend: PtyBackend) -> int:
    return os.open(backend.pty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def count_inotify() -> int:
    """How many inotify instances this process has."""
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one of this very listing
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return links.count("anon_inode:inotify")


# ---------------------------------------------------------------- somebody comes and goes


async def test_names_the_slave() -> None:
    async with opened() as backend:
        assert backend.pty.startswith("/dev/pts/")
        assert backend.filename == f"pty:{backend.pty}"


async def test_nobody_is_there_at_first() -> None:
    """Making the pair opens the slave, which must not be reported."""
    async with reading() as (backend, seen):
        assert not backend.is_open
    assert seen == []


async def test_an_open_and_a_close_are_reported_at_once() -> None:
    async with reading() as (backend, seen):
        for _ in range(3):
            slave = open_slave(backend)
            await wait_all_tasks_blocked()
            assert seen[-1] is OPENED
            os.close(slave)
            await wait_all_tasks_blocked()
            assert seen[-1] is CLOSED
    assert seen == [OPENED, CLOSED] * 3


async def test_closed_when_the_last_one_closes() -> None:
    async with reading() as (backend, seen):
        first, second = open_slave(backend), open_slave(backend)
        await wait_all_tasks_blocked()
        os.close(first)
        await wait_all_tasks_blocked()
        assert seen == [OPENED]
        os.close(second)
        await wait_all_tasks_blocked()
        assert seen == [OPENED, CLOSED]


async def test_bytes_written_before_a_close_come_before_closed() -> None:
    async with reading() as (backend, seen):
        for word in (b"first", b"second"):  # the first one is opened and closed in an instant
            slave = open_slave(backend)
            os.write(slave, word)
            os.close(slave)
            await wait_all_tasks_blocked()
    assert seen == [OPENED, b"first", CLOSED, OPENED, b"second", CLOSED]


async def test_what_happened_while_nobody_read_is_not_missed() -> None:
    seen: list[BackendEvent | bytes] = []
    async with open_pty(PtyOptions(), OpenRequest(id="x", on_event=seen.append)) as backend:
        assert isinstance(backend, PtyBackend)
        assert backend.receive_nowait(100) == b""
        slave = open_slave(backend)
        os.write(slave, b"early")
        await wait_all_tasks_blocked()
        with trio.fail_after(5):
            assert await receive_some(backend, 100) == b"early"
        os.close(slave)


async def test_the_slave_is_raw() -> None:
    async with reading() as (backend, _):
        slave = open_slave(backend)
        iflag, oflag, _cflag, lflag, *_rest = termios.tcgetattr(slave)
        assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        assert not oflag & termios.OPOST
        assert not iflag & (termios.ICRNL | termios.IXON)
        os.close(slave)


async def test_no_busy_loop_while_closed_or_idle() -> None:
    """All tasks come to rest, and nothing more is read than was asked for."""
    async with reading() as (backend, seen):
        calls = 0
        receive_nowait = backend.receive_nowait

        def counted(max_bytes: int) -> bytes:
            nonlocal calls
            calls += 1
            return receive_nowait(max_bytes)

        backend.receive_nowait = counted  # type: ignore[method-assign]
        slave = open_slave(backend)
        await wait_all_tasks_blocked(0.05)
        os.close(slave)
        await wait_all_tasks_blocked(0.05)
        assert seen == [OPENED, CLOSED]
        assert calls <= 3


# ---------------------------------------------------------------- sending


def unread(slave: int) -> int:
    """How many bytes *slave*'s user could read now."""
    (size,) = struct.unpack("i", fcntl.ioctl(slave, termios.FIONREAD, bytes(4)))
    return int(size)


async def fill(backend: Backend, slave: int) -> None:
    """Send until nothing more is taken, and a kernel thread has moved on what it could."""
    while backend.send_nowait(memoryview(bytes(4096))) or unread(slave) < TERMINAL_SIZE:  # noqa: ASYNC110 - the kernel tells nobody
        await trio.sleep(0.001)


async def test_sending_to_nobody_is_disconnected() -> None:
    async with opened() as backend:
        with pytest.raises(BackendDisconnectedError, match=f"^Nobody has '{backend.pty}' open$"):
            await backend.send_some(memoryview(b"lost"))
        slave = open_slave(backend)
        with pytest.raises(BlockingIOError):
            os.read(slave, 100)
        os.close(slave)


async def test_sending_finds_out_that_somebody_has_come() -> None:
    seen: list[BackendEvent] = []
    async with open_pty(PtyOptions(), OpenRequest(id="x", on_event=seen.append)) as backend:
        assert isinstance(backend, PtyBackend)
        slave = open_slave(backend)
        assert backend.send_nowait(memoryview(b"hello")) == 5
        assert seen == [OPENED]
        assert os.read(slave, 100) == b"hello"
        os.close(slave)


async def test_a_stuck_sender_is_freed_by_the_close() -> None:
    async with reading() as (backend, _):
        slave = open_slave(backend)
        await fill(backend, slave)

        async def send() -> None:
            with pytest.raises(BackendDisconnectedError):
                await backend.send_some(memoryview(b"x"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            os.close(slave)


async def test_a_stuck_sender_goes_on_when_the_slave_is_read() -> None:
    async with reading() as (backend, _):
        slave = open_slave(backend)
        await fill(backend, slave)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.send_some, memoryview(b"x"))
            await wait_all_tasks_blocked()
            while not (os.read(slave, 4096)).endswith(b"x"):
                await trio.lowlevel.wait_readable(slave)
        os.close(slave)


async def test_cancelled_calls_have_sent_and_consumed_nothing() -> None:
    async with opened() as backend:
        slave = open_slave(backend)
        os.write(slave, b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await receive_some(backend, 100)
        with trio.CancelScope() as scope:
            scope.cancel()
            await backend.send_some(memoryview(b"not this"))
        assert backend.receive_nowait(100) == b"kept"
        with pytest.raises(BlockingIOError):
            os.read(slave, 100)
        os.close(slave)


async def test_closing_hangs_the_user_up() -> None:
    async with opened() as backend:
        slave = open_slave(backend)
    assert os.read(slave, 100) == b""
    with pytest.raises(OSError, match="Input/output error"):
        os.write(slave, b"x")
    os.close(slave)
    with pytest.raises(BackendDisconnectedError):
        backend.send_nowait(memoryview(b"x"))


@pytest.mark.parametrize(
    ("program", "ready", "leave"),
    [
        (["picocom", "--nolock", "--baud", "9600"], b"Terminal ready", b"\x01\x18"),  # C-a C-x
        (["tio", "--baudrate", "9600", "--no-autoconnect"], b"Connected", b"\x14q"),  # C-t q
    ],
)
async def test_a_terminal_program_is_served(
    nursery: trio.Nursery, program: list[str], ready: bytes, leave: bytes
) -> None:
    name, *arguments = program
    path = need(name)
    master, slave = os.openpty()
    screen = FdHolder(master)
    async with opened() as backend:
        command = [path, *arguments, backend.pty]
        start = partial(
            trio.run_process,
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,  # at its end picocom sends SIGTERM to its process group
        )
        await nursery.start(start)
        os.close(slave)
        with trio.fail_after(5):
            await wait_shown(screen, ready)
            await backend.send_some(memoryview(b"login: "))
            assert backend.is_open
            await wait_shown(screen, b"login: ")
            os.write(master, b"root\r")
            typed = b""
            while typed != b"root\r":
                typed += await receive_some(backend, 100)
            os.write(master, leave)
            while backend.is_open:
                await backend.wait_readable()
                backend.receive_nowait(100)
    screen.close()


async def wait_shown(screen: FdHolder, text: bytes) -> None:
    shown = b""
    while text not in shown:
        await screen.wait_readable()
        shown += os.read(screen.fd, 4096)


# ---------------------------------------------------------------- the watcher


async def test_two_hundred_share_one_inotify_instance() -> None:
    """A user may have 128; it stays, because closing it takes long."""
    assert count_inotify() == 0
    async with AsyncExitStack() as stack:
        ptys = [await stack.enter_async_context(opened()) for _ in range(200)]
        assert count_inotify() == 1
        async with trio.open_nursery() as nursery:
            for backend in ptys:
                nursery.start_soon(receive_some, backend, 1)
            await wait_all_tasks_blocked()
            slaves = [open_slave(backend) for backend in ptys[::2]]
            await wait_all_tasks_blocked()
            assert [backend.is_open for backend in ptys] == [True, False] * 100
            for slave in slaves:
                os.close(slave)
            await wait_all_tasks_blocked()
            assert not any(backend.is_open for backend in ptys)
            nursery.cancel_scope.cancel()
    assert count_inotify() == 1
    await wait_all_tasks_blocked()
    async with reading() as (backend, seen):
        slave = open_slave(backend)
        await wait_all_tasks_blocked()
        assert seen == [OPENED]
        os.close(slave)


async def test_an_overflow_of_the_queue_wakes_all() -> None:
    async with opened() as first, opened() as second:
        read_end, write_end = os.pipe()
        watcher = opens.get_watcher()
        queue, watcher.inotify = watcher.inotify, FdHolder(read_end)
        os.write(write_end, struct.pack("iIII", -1, IN_Q_OVERFLOW, 0, 0))
        watcher._read()
        assert first.slave_opened.is_set()
        assert second.slave_opened.is_set()
        watcher.inotify.close()
        watcher.inotify = queue
        os.close(write_end)


@contextmanager
def no_leak() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


async def test_no_more_ptys(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> tuple[int, int]:
        raise OSError(errno.ENOSPC, "kernel.pty.max")

    monkeypatch.setattr(os, "openpty", fail)
    with no_leak(), pytest.raises(BackendError, match=r"^Failed to create PTY: No space left"):
        async with opened():
            pass


# ---------------------------------------------------------------- the link


async def test_link_to_the_slave(tmp_path: Path) -> None:
    link = tmp_path / "link"
    async with opened(link) as backend:
        assert os.readlink(link) == backend.pty
        backend.activate()
        assert os.readlink(link) == backend.pty
    assert os.listdir(tmp_path) == []


async def test_link_is_refused_where_something_is(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.write_text("mine")
    opens.get_watcher()  # it stays
    with (
        no_leak(),
        pytest.raises(BackendError, match=r"^Failed to create PTY symlink '.*/link': File exists"),
    ):
        async with opened(link):
            pass
    assert link.read_text() == "mine"


async def test_link_that_a_crash_has_left_is_replaced(tmp_path: Path) -> None:
    opens.get_watcher()  # it stays
    link = tmp_path / "link"
    link.symlink_to("/dev/pts/999999")
    with no_leak():
        async with opened(link) as backend:
            assert os.readlink(link) == backend.pty


@pytest.mark.parametrize("when", [1_000_000_000, 10_000_000_000], ids=["before", "in the future"])
async def test_link_whose_number_somebody_else_has_now_is_replaced(
    tmp_path: Path, when: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A link is older than the PTY that it leads to, if the number is another's by now."""
    opens.get_watcher()  # it stays
    master, slave = os.openpty()
    link = tmp_path / "link"
    link.symlink_to(os.ttyname(slave))
    os.utime(link, (when, when), follow_symlinks=False)
    with no_leak():
        async with opened(link) as backend:
            assert os.readlink(link) == backend.pty
    assert "is replaced: it was for another PTY" in caplog.text
    os.close(master)
    os.close(slave)


async def visit(backend: PtyBackend, seen: list[BackendEvent | bytes]) -> None:
    """Open the slave, write, and close it when that was read."""
    before = len(seen)
    fd = open_slave(backend)
    os.write(fd, b"x")
    await until(lambda: b"x" in seen[before:])
    os.close(fd)
    await until(lambda: CLOSED in seen[before:])


@pytest.mark.parametrize("failing", ["inotify_init1", "inotify_add_watch"])
async def test_without_inotify_it_looks_for_its_user(
    failing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A user has 128 instances, and other programs have them, too (EMFILE, ENOSPC)."""

    def refuse(function: str, *args: int | bytes | None) -> int:
        if function == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return call(function, *args)

    monkeypatch.setattr(inotify, "call", refuse)
    async with reading() as (backend, seen):
        assert "no inotify watch to be had (No space left on device)" in caplog.text
        for _ in range(2):
            await visit(backend, seen)
    assert [item for item in seen if not isinstance(item, bytes)] == [OPENED, CLOSED] * 2


async def test_link_to_a_pty_that_is_there_is_left_alone(tmp_path: Path) -> None:
    opens.get_watcher()  # it stays
    link = tmp_path / "link"
    for target in ("/dev/null", "/dev/missing"):
        link.symlink_to(target)
        with no_leak(), pytest.raises(BackendError, match="File exists"):
            async with opened(link):
                pass
        link.unlink()
    async with opened(link) as backend:
        with pytest.raises(BackendError, match="File exists"):
            async with opened(link):
                pass
        assert os.readlink(link) == backend.pty


@pytest.mark.parametrize("path", ["no/such/folder", "a\0b"])
async def test_link_that_cannot_be(tmp_path: Path, path: str) -> None:
    opens.get_watcher()  # it stays
    with no_leak(), pytest.raises(BackendError, match=r"^Failed to create PTY symlink '.+': .+$"):
        async with opened(tmp_path / path):
            pass


async def test_link_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    link = tmp_path / "link"
    async with opened(link):
        link.unlink()
        link.symlink_to("/dev/null")
    assert os.readlink(link) == "/dev/null"


async def test_link_is_taken_over_by_the_commit(tmp_path: Path) -> None:
    link = tmp_path / "link"
    async with AsyncExitStack() as stack:
        old_scope = AsyncExitStack()
        old = await old_scope.enter_async_context(opened(link))
        new = await stack.enter_async_context(opened(link, replaces=old))
        assert os.readlink(link) == old.pty
        await new.prepare()
        new.activate()
        assert os.readlink(link) == new.pty
        await old_scope.aclose()
        assert os.readlink(link) == new.pty
        assert os.listdir(tmp_path) == ["link"]
    assert os.listdir(tmp_path) == []


async def test_link_of_the_original_survives_a_failed_change(tmp_path: Path) -> None:
    link = tmp_path / "link"
    async with opened(link) as old:
        async with opened(link, replaces=old):
            pass
        assert os.readlink(link) == old.pty
        assert os.listdir(tmp_path) == ["link"]


async def test_link_of_the_original_is_put_back_when_the_commit_does_not_come(
    tmp_path: Path,
) -> None:
    link = tmp_path / "link"
    async with opened(link) as old:
        async with opened(link, replaces=old) as new:
            await new.prepare()
            assert os.readlink(link) == new.pty
        assert os.readlink(link) == old.pty
        assert os.listdir(tmp_path) == ["link"]
    assert os.listdir(tmp_path) == []


async def test_link_goes_with_the_later_of_two_that_close_before_the_commit(tmp_path: Path) -> None:
    link = tmp_path / "link"
    async with AsyncExitStack() as stack:
        old_scope = AsyncExitStack()
        old = await old_scope.enter_async_context(opened(link))
        new = await stack.enter_async_context(opened(link, replaces=old))
        await new.prepare()
        await old_scope.aclose()
        assert os.readlink(link) == new.pty
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_change_cancelled_at_any_step_leaves_the_link_of_who_is_in_place(
    tmp_path: Path, when: str
) -> None:
    options = PtyOptions(path=str(tmp_path / "link"))
    outcomes = set()
    for step in range(1, 200):
        async with open_registry() as registry:
            await registry.add("x", options)
            first = registry["x"].backend
            with trio.fail_after(10), trio.CancelScope() as scope:
                injector = CancelAtStep(step, when, scope)
                trio.lowlevel.add_instrument(injector)
                injector.armed = True
                try:
                    await registry.change("x", options)
                finally:
                    injector.armed = False
                    trio.lowlevel.remove_instrument(injector)
            outcomes.add(registry["x"].backend is first)
            assert os.readlink(tmp_path / "link") == registry["x"].backend.pty
            assert os.listdir(tmp_path) == ["link"]
        assert os.listdir(tmp_path) == []
        if not scope.cancel_called:
            break
    else:
        pytest.fail("it was cancelled each time")
    assert outcomes == {True, False}


@pytest.mark.parametrize("hangs", ["rename", "readlink", "symlink"])
async def test_a_folder_that_hangs_ends_the_change_and_the_link_is_put_back(
    hangs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    async with open_registry() as registry:
        await registry.add("x", PtyOptions(path=str(link)))
        monkeypatch.setattr(files, "FILE_TIMEOUT", 0.1)
        monkeypatch.setattr(files, "CLOSE_TIMEOUT", 0.1)
        pty = registry["x"].backend.pty
        go, begun = hang_in(monkeypatch, hangs)
        failed: list[BackendError] = []

        async def change() -> None:
            with pytest.raises(BackendError) as caught:
                await registry.change("x", PtyOptions(path=str(link)))
            failed.append(caught.value)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(change)
                await eventually(begun.is_set)
                await registry.add("other", NullOptions())
            go.set()
            assert "takes longer than 0.1 s" in str(failed[0])
            await eventually(lambda: os.listdir(tmp_path) == ["link"])
            await eventually(lambda: os.readlink(link) == pty)


async def test_link_that_cannot_be_taken_over_fails_the_commit(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    link = folder / "link"
    async with opened(link) as old, opened(link, replaces=old) as new:
        os.rename(folder, tmp_path / "moved")
        with pytest.raises(BackendError, match=r"^Failed to create PTY symlink '.+': No such file"):
            await new.prepare()
        os.rename(tmp_path / "moved", folder)
        assert os.readlink(link) == old.pty
    assert os.listdir(folder) == []


async def test_drain_waits_until_the_slaves_user_has_read_everything() -> None:
    async with open_pty(PtyOptions(), OpenRequest(id="x", on_event=lambda _: None)) as backend:
        assert backend.pty is not None
        slave = os.open(backend.pty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            assert backend.send_nowait(memoryview(b"last words")) == 10
            backend.leaving.prepare(carry=False)
            with trio.move_on_after(0.02) as unread:
                await backend.leaving.drain()
            assert unread.cancelled_caught, "it did not wait"
            assert os.read(slave, 100) == b"last words"
            with trio.fail_after(5):
                await backend.leaving.drain()
        finally:
            os.close(slave)


async def test_drain_of_a_pty_that_nobody_has_open_does_not_wait() -> None:
    async with open_pty(PtyOptions(), OpenRequest(id="x", on_event=lambda _: None)) as backend:
        backend.leaving.prepare(carry=False)
        with trio.fail_after(5):
            await backend.leaving.drain()


# ---------------------------------------------------------------- a reader in a process of its own

ROUNDS = 100
READER = """
import os, select, sys
for line in sys.stdin:
    fd = os.open(line.strip(), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    print("open", flush=True)
    got = 0
    while poll.poll():
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            continue
        except OSError:
            break
        if not data:
            break
        got += len(data)
    os.close(fd)
    print(got, flush=True)
"""


@contextmanager
def reader_process() -> Iterator[subprocess.Popen[str]]:
    """Opens the paths that it is told, says so, and says how much it could read."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", READER], stdin=pipe, stdout=pipe, text=True, bufsize=1
    ) as process:
        yield process


def ask(process: subprocess.Popen[str], question: str) -> str:
    """The next line of its answers, after a line for it unless that is empty."""
    assert process.stdin is not None
    assert process.stdout is not None
    if question:
        process.stdin.write(f"{question}\n")
    return process.stdout.readline().strip()


async def test_drain_is_not_misled_by_a_reader_who_has_just_made_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between his read and the kernel's moving on what is behind it, nothing is to be seen."""
    monkeypatch.setattr(pty_unread, "DRAIN_INTERVAL", 0)
    with reader_process() as process:
        for _ in range(ROUNDS):
            async with opened() as backend:
                assert ask(process, backend.pty) == "open"
                sent = 0
                while count := backend.send_nowait(memoryview(bytes(4096))):
                    sent += count
                backend.leaving.prepare(carry=False)
                with trio.fail_after(5):
                    await backend.leaving.drain()
            assert int(ask(process, "")) == sent


async def test_a_reader_at_work_has_all_before_the_rest_is_taken_back() -> None:
    with reader_process() as process:
        for _ in range(ROUNDS):
            async with opened() as backend:
                assert ask(process, backend.pty) == "open"
                sent = 0
                while count := backend.send_nowait(memoryview(bytes(4096))):
                    sent += count
                with trio.fail_after(5):
                    await backend.leaving.settle(DRAIN_TIMEOUT)
                backend.leaving.prepare(carry=True)
                assert backend.leaving.take_back() == b""
            assert int(ask(process, "")) == sent


# ---------------------------------------------------------------- what is taken back


async def test_settle_waits_for_who_reads_and_not_for_who_does_not(
    autojump_clock: MockClock,
) -> None:
    async with opened() as backend, trio.open_nursery() as nursery:
        slave = open_slave(backend)
        try:
            assert backend.send_nowait(memoryview(b"0123456789")) == 10
            await until(lambda: unread(slave) == 10)
            with trio.fail_after(1):
                await backend.leaving.settle(DRAIN_TIMEOUT)

            async def read_slowly() -> None:
                for _ in range(10):
                    os.read(slave, 1)
                    await trio.sleep(pty_unread.QUIET_TIME / 2)

            nursery.start_soon(read_slowly)
            with trio.fail_after(1):
                await backend.leaving.settle(DRAIN_TIMEOUT)
            backend.leaving.prepare(carry=True)
            assert backend.leaving.take_back() == b""
        finally:
            os.close(slave)


async def test_settle_leaves_no_descriptor(autojump_clock: MockClock) -> None:
    async with opened() as backend:
        slave = open_slave(backend)
        try:
            assert backend.send_nowait(memoryview(b"unread")) == 6
            before = os.listdir("/proc/self/fd")
            await backend.leaving.settle(DRAIN_TIMEOUT)
            with trio.CancelScope() as scope:
                scope.cancel()
                await backend.leaving.settle(DRAIN_TIMEOUT)
            assert os.listdir("/proc/self/fd") == before
        finally:
            os.close(slave)


async def test_a_pty_that_its_user_has_locked_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can look into it (TIOCEXCL), but for root."""
    async with opened() as backend:
        slave = open_slave(backend)
        try:
            assert backend.send_nowait(memoryview(b"unread")) == 6
            monkeypatch.setattr(backend.leaving, "_open_slave", lambda: None)
            with trio.fail_after(5):
                await backend.leaving.settle(DRAIN_TIMEOUT)
        finally:
            os.close(slave)


async def test_what_its_user_has_left_unread_is_taken_back() -> None:
    """The kernel keeps it for who opens the slave next."""
    message = bytes(range(256)) * 32
    async with opened() as backend:
        slave = open_slave(backend)
        assert backend.send_nowait(memoryview(message)) == len(message)
        assert os.read(slave, 1000) == message[:1000]
        os.close(slave)
        with trio.fail_after(5):
            await backend.leaving.settle(DRAIN_TIMEOUT)
        backend.leaving.prepare(carry=True)
        assert backend.leaving.take_back() == message[1000:]
        assert backend.leaving.take_back() == b""


async def test_from_a_pty_that_is_closed_nothing_is_taken_back() -> None:
    """Its path may be another's by now."""
    async with opened() as backend:
        backend.sink.close()
        backend.leaving.prepare(carry=True)
        assert backend.leaving.take_back() == b""


async def test_a_change_for_which_there_is_no_descriptor_is_refused_and_nothing_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When it is too late to refuse, what the slave's user has not read would be lost."""
    async with open_registry() as registry:
        await registry.add("x", PtyOptions())
        chardev = registry["x"]
        assert isinstance(chardev.backend, PtyBackend)
        slave = open_slave(chardev.backend)
        try:
            frontend = chardev.attach(be_change=stateless)
            await frontend.send_all(b"unread")
            with monkeypatch.context() as patch:
                patch.setattr(os, "open", failing(errno.EMFILE))
                for carry in (False, True):
                    with pytest.raises(BackendError, match="Too many open files"):
                        await registry.change("x", NullOptions(), carry=carry)
            assert os.read(slave, 100) == b"unread"
            await frontend.send_all(b"and on")
            assert os.read(slave, 100) == b"and on"
        finally:
            os.close(slave)


def failing(code: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("carry", [False, True])
async def test_one_that_its_user_has_locked_is_left_all_the_same(
    carry: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """TIOCEXCL, which picocom sets: only root can open it then."""
    async with open_registry() as registry:
        await registry.add("x", PtyOptions())
        chardev = registry["x"]
        assert isinstance(chardev.backend, PtyBackend)
        slave = open_slave(chardev.backend)
        try:
            chardev.attach(be_change=stateless)
            with monkeypatch.context() as patch:
                patch.setattr(os, "open", failing(errno.EBUSY))
                await registry.change("x", NullOptions(), carry=carry)
            assert chardev.backend.filename == "null"
            assert "is locked by its user" in caplog.text
        finally:
            os.close(slave)


async def test_a_pty_that_nobody_has_open_is_left_without_an_event() -> None:
    """Our own look at its slave is nobody's coming."""
    async with open_registry() as registry:
        await registry.add("x", PtyOptions())
        events: list[BackendEvent] = []
        registry["x"].attach(be_change=stateless, on_event=events.append)
        await registry.change("x", PtyOptions())
        assert events == []


async def test_a_commit_that_fails_leaves_no_slave_open(tmp_path: Path) -> None:
    """Its user's leaving would not be noticed any more."""
    link = tmp_path / "folder" / "link"
    link.parent.mkdir()
    async with open_registry() as registry:
        await registry.add("x", PtyOptions(path=str(link)))
        chardev = registry["x"]
        old = chardev.backend
        assert isinstance(old, PtyBackend)
        os.close(open_slave(old))

        async def spoil(_: Controls) -> None:
            os.rename(link.parent, tmp_path / "moved")

        chardev.attach(be_change=spoil)
        with pytest.raises(BackendError, match="Failed to create PTY symlink"):
            await registry.change("x", PtyOptions(path=str(link)))
        assert chardev.backend is old
        assert is_hung_up(old.sink)


# ---------------------------------------------------------------- left locked


def lock_and_leave(path: str) -> None:
    """As GNU screen does."""
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(slave, termios.TIOCEXCL)
    os.close(slave)


def is_locked(path: str) -> bool:
    """Root may open it and look."""
    slave = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        (locked,) = struct.unpack("i", fcntl.ioctl(slave, module.TIOCGEXCL, bytes(4)))
        return bool(locked)
    finally:
        os.close(slave)


@pytest.mark.skipif(os.geteuid() != 0, reason="root may undo the lock")
async def test_a_lock_is_undone_when_its_user_has_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with reading() as (backend, seen):
        path = backend.pty
        lock_and_leave(path)
        await until(lambda: "was left locked by its user, and is free" in caplog.text)
        assert not is_locked(path)
        assert backend.pty == path
        slave = open_slave(backend)
        os.write(slave, b"next")
        await until(lambda: b"next" in seen)
        os.close(slave)


@pytest.fixture
def no_root(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Locks hold for this process, too, as for all but root."""
    real = module.unlock

    def refuse(slave: str) -> bool:
        if is_locked(slave):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return real(slave)

    monkeypatch.setattr(module, "unlock", refuse)
    return monkeypatch.undo


@pytest.mark.usefixtures("no_root")
async def test_who_may_not_undo_a_lock_has_another_pty_behind_the_link(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = tmp_path / "link"
    async with open_registry() as registry:
        await registry.add("x", PtyOptions(path=str(link)))
        before = os.readlink(link)
        slave = os.open(link, os.O_RDWR | os.O_NOCTTY)
        settings = termios.tcgetattr(slave)
        settings[4] = settings[5] = termios.B1200
        termios.tcsetattr(slave, termios.TCSANOW, settings)
        fcntl.ioctl(slave, termios.TIOCEXCL)
        await until(lambda: registry["x"].is_open)
        os.close(slave)
        await until(lambda: os.readlink(link) != before)
        now = os.readlink(link)
        await until(lambda: registry["x"].info.filename == f"pty:{now}")
        assert os.listdir(tmp_path) == ["link"]
        assert f"'{before}' was left locked by its user; it is at '{now}' now" in caplog.text
        slave = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        assert termios.tcgetattr(slave)[4] == termios.B1200
        async with registry["x"].attach(be_change=stateless) as user:
            os.write(slave, b"in")
            with trio.fail_after(5):
                assert await user.receive_some() == b"in"
                await user.send_all(b"out")
            assert os.read(slave, 10) == b"out"
        os.close(slave)
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("no_root")
async def test_without_another_pty_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_INTERVAL", 0.01)
    open_pair, tries = module._open_pair, []

    def fail() -> tuple[FdHolder, str]:
        tries.append(1)
        if len(tries) < 3:
            raise BackendError("Failed to create PTY: No space left on device")
        return open_pair()

    async with reading() as (backend, _):
        before = backend.pty
        monkeypatch.setattr(module, "_open_pair", fail)
        lock_and_leave(before)
        await until(lambda: backend.pty != before)
        assert caplog.text.count("No space left on device") == 1


async def test_a_user_who_locks_nothing_costs_no_loop_of_looks() -> None:
    """Our look is an open of the slave, too."""
    async with reading() as (backend, seen):
        for _ in range(3):
            os.close(open_slave(backend))
            await until(lambda: seen[-1:] in ([], [CLOSED]))
        looks, unlock = [], module.unlock

        def look(slave: str) -> bool:
            looks.append(slave)
            return unlock(slave)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "unlock", look)
            os.close(open_slave(backend))
            await until(lambda: bool(looks))
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked(0.05)
        assert len(looks) <= 2


async def test_after_a_session_of_screen_others_can_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = need("screen")
    (tmp_path / "sessions").mkdir(mode=0o700)
    monkeypatch.setenv("SCREENDIR", str(tmp_path / "sessions"))
    monkeypatch.setenv("TERM", "xterm")
    async with reading() as (backend, seen):
        path = backend.pty
        await trio.run_process([screen, "-dmS", "here", path])
        await until(lambda: seen[-1:] == [OPENED])
        await until(lambda: is_locked(path))
        await trio.run_process([screen, "-S", "here", "-X", "quit"])
        await until(lambda: seen[-1:] == [CLOSED])
        assert not is_locked(backend.pty)
        slave = open_slave(backend)
        os.write(slave, b"next")
        await until(lambda: b"next" in seen)
        os.close(slave)
