"""Small files that are named by a user: whatever they turn out to be, they block nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.certificates import client_certificate, server_certificate, write_folder
from tests.disk import eventually, is_held_open
from tests.threads import Threads
from trio_chardev import files as module
from trio_chardev.access.objects import ObjectOptions
from trio_chardev.access.secret import MAX_SECRET, Secret
from trio_chardev.access.tls_creds import TlsCredsX509
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.parallel import ParallelOptions
from trio_chardev.backends.pipe import PipeOptions
from trio_chardev.backends.pty.opens import get_watcher
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.replay import ReplayOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.errors import BackendError
from trio_chardev.files import SlowFileError, end_on_files, read_file, work_on_files
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.structure import structure
from trio_chardev.qmp.commands.object import add_object
from trio_chardev.qmp.server.session import QmpError
from trio_chardev.registry import open_registry


def open_it(path: str, flags: int) -> int:
    return os.open(path, flags)


def fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 200_000)
    assert read_file(f"{tmp_path}/f", 200_000, open_it) == b"x" * 200_000
    with pytest.raises(OSError, match="^It has more than 199999 bytes$"):
        read_file(f"{tmp_path}/f", 199_999, open_it)


@pytest.mark.parametrize("kind", ["fifo", "zero", "folder", "growing"])
def test_what_waits_or_has_no_end_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "f")
    before = fds()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path = "/dev/zero"
    elif kind == "folder":
        path = str(tmp_path)
    else:
        path = "/proc/self/status"  # it is of size 0, and has bytes
    with pytest.raises(OSError, match="Not a regular file|more than 10 bytes"):
        read_file(path, 10, open_it)
    assert fds() == before


def test_what_a_shell_pipes_is_read_to_its_end() -> None:
    """As by ``file=<(pass show console)``."""
    reader, writer = os.pipe()

    def answer() -> None:
        os.write(writer, b"hush")
        os.close(writer)

    timer = threading.Timer(0.01, answer)
    timer.start()
    assert read_file(f"/dev/fd/{reader}", 10, open_it) == b"hush"
    timer.join()
    os.close(reader)


def test_a_pipe_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_TIMEOUT", 0.01)
    reader, writer = os.pipe()
    with pytest.raises(SlowFileError, match=r"^its file takes longer than 0\.01 s$"):
        read_file(f"/dev/fd/{reader}", 10, open_it)
    os.write(writer, b"x" * 11)
    with pytest.raises(OSError, match="more than 10 bytes"):
        read_file(f"/dev/fd/{reader}", 10, open_it)
    os.close(reader)
    os.close(writer)


async def test_a_disk_that_hangs_is_given_up_and_what_comes_late_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_TIMEOUT", 0.01)
    go = threading.Event()

    def open_slowly() -> int:
        go.wait(10)
        return os.open(tmp_path, os.O_RDONLY)

    before = fds()
    with trio.fail_after(5):
        with pytest.raises(SlowFileError):
            await work_on_files(open_slowly, discard=os.close)
        go.set()
        await eventually(lambda: module._places().borrowed_tokens == 0)
        await eventually(lambda: fds() == before)


async def test_only_so_many_threads_may_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_TIMEOUT", 0.01)
    go, begun = threading.Event(), []

    def hang() -> None:
        begun.append(1)
        go.wait(10)

    for _ in range(module.MAX_HANGING + 3):
        with pytest.raises(SlowFileError):
            await work_on_files(hang)
    assert len(begun) <= module.MAX_HANGING
    go.set()
    await eventually(lambda: module._places().borrowed_tokens == 0)


# ---------------------------------------------------------------- objects


async def refusal(options: ObjectOptions) -> str:
    async with open_registry() as registry:
        with trio.fail_after(5), pytest.raises(BackendError) as caught:
            await add_object(registry, options)
        assert registry.objects == {}
    return str(caught.value)


async def test_a_secret_is_in_a_regular_file_of_a_reasonable_size(tmp_path: Path) -> None:
    path = tmp_path / "f"
    os.mkfifo(path)
    for file, why in ((str(path), "Not a regular file"), ("/dev/zero", "Not a regular file")):
        expected = f"Unable to read {file}: Failed to open file “{file}”: {why}"
        assert await refusal(Secret(id="o", file=file)) == expected
    path.unlink()
    path.touch()
    os.truncate(path, MAX_SECRET + 1)
    assert await refusal(Secret(id="o", file=str(path))) == (
        f"Unable to read {path}: Failed to open file “{path}”: It has more than 1048576 bytes"
    )


@pytest.mark.parametrize("name", ["ca-cert.pem", "ca-crl.pem", "server-cert.pem", "server-key.pem"])
async def test_a_folder_of_certificates_has_regular_files(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, server=server_certificate(), client=client_certificate())
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    before = fds()
    options = TlsCredsX509(id="o", dir=str(tmp_path), endpoint="server")
    expected = f"Unable to access credentials {tmp_path}/{name}: Not a regular file"
    assert await refusal(options) == expected
    assert fds() == before


def hang_in(monkeypatch: pytest.MonkeyPatch, path: Path) -> tuple[threading.Event, threading.Event]:
    """Have each open of *path* hang; gives the event that lets it go on, and that it has begun."""
    go, begun = threading.Event(), threading.Event()
    real = os.open

    def hang(what: Any, *more: Any, **options: Any) -> int:
        if what == str(path):
            begun.set()
            go.wait(10)
        return real(what, *more, **options)

    monkeypatch.setattr(os, "open", hang)
    return go, begun


@attrs.frozen
class SlowSecret:
    """One whose file does not come before `go` is set."""

    options: Secret
    go: threading.Event
    begun: threading.Event

    @asynccontextmanager
    async def being_added(
        self, add: Callable[[Secret], Awaitable[None]]
    ) -> AsyncIterator[trio.Nursery]:
        """Its file is being opened for *add*, at the beginning of the block."""
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(add, self.options)
                await eventually(self.begun.is_set)
                yield nursery


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlowSecret:
    path = tmp_path / "f"
    path.write_bytes(b"hush")
    return SlowSecret(Secret(id="o", file=str(path)), *hang_in(monkeypatch, path))


async def test_while_a_disk_hangs_others_go_on(slow: SlowSecret) -> None:
    async with open_registry() as registry:
        async with slow.being_added(partial(add_object, registry)):
            await add_object(registry, Secret(id="other", data="x"))
            assert list(registry.objects) == ["other"]
            slow.go.set()
        assert set(registry.objects) == {"o", "other"}


async def test_of_two_that_make_the_same_object_the_slower_is_refused(slow: SlowSecret) -> None:
    refused: list[str] = []

    async def add(options: Secret) -> None:
        try:
            await add_object(registry, options)
        except QmpError as exc:
            refused.append(str(exc))

    async with open_registry() as registry:
        async with slow.being_added(add):
            first = Secret(id="o", data="first")
            await add_object(registry, first)
            slow.go.set()
        assert registry.objects == {"o": first.create({})}
    assert len(refused) == 1
    assert "duplicate" in refused[0]


async def test_cancelled_there_is_none(slow: SlowSecret) -> None:
    async with open_registry() as registry:
        async with slow.being_added(partial(add_object, registry)) as nursery:
            nursery.cancel_scope.cancel()
        slow.go.set()
        with trio.fail_after(5):
            await eventually(lambda: module._places().borrowed_tokens == 0)
        assert registry.objects == {}


async def test_without_a_thread_an_object_that_reads_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Threads(monkeypatch).run_out()
    options: Any = structure(Secret, {"id": "o", "file": str(tmp_path)})
    assert await refusal(options) == "object 'o' can't be made: no thread can be started"


# ---------------------------------------------------------------- chardevs


@pytest.mark.parametrize(
    "kind",
    [
        "file",
        "pipe",
        "replay",
        "ringbuf",
        "logfile",
        "record",
        "serial",
        "parallel",
        "pty",
        "socket",
    ],
)
async def test_a_chardev_whose_disk_hangs_holds_up_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(module, "FILE_TIMEOUT", 0.5)
    path = tmp_path / "f"
    options: BackendOptions = {
        "file": FileOptions(out=str(path)),
        "pipe": PipeOptions(device=str(path)),
        "replay": ReplayOptions(path=str(path)),
        "ringbuf": RingbufOptions(path=str(path)),
        "logfile": NullOptions(logfile=str(path)),
        "record": NullOptions(record=str(path)),
        "serial": SerialOptions(path=str(path)),
        "parallel": ParallelOptions(device=str(path)),
        "pty": PtyOptions(path=str(path)),
        "socket": SocketOptions(addr=UnixAddress(str(path)), wait=False),
    }[kind]
    hangs = {"pipe": Path(f"{path}.in"), "pty": tmp_path, "socket": tmp_path}.get(kind, path)
    go, begun = hang_in(monkeypatch, hangs)
    refused: list[str] = []
    get_watcher()  # which stays to the end of the run

    async def add() -> None:
        try:
            await registry.add("slow", options)
        except BackendError as exc:
            refused.append(str(exc))

    before = fds()
    async with open_registry() as registry:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(add)
                await eventually(begun.is_set)
                await registry.add("other", NullOptions())
                assert refused == []
        go.set()
        assert refused == [f"Failed to add chardev 'slow': {failure(kind, path)}"]
        await eventually(lambda: module._places().borrowed_tokens == 0)
        await eventually(lambda: not any(is_held_open(some) for some in tmp_path.iterdir()))
        if kind in ("pty", "socket"):
            await eventually(lambda: os.listdir(tmp_path) == [])
    await eventually(lambda: fds() <= before)


def failure(kind: str, path: Path) -> str:
    what = {
        **dict.fromkeys(("logfile", "record"), f"Could not create '{path}'"),
        "pty": f"Failed to create PTY symlink '{path}'",
        "socket": f"Failed to bind socket to {path}",
    }.get(kind, f"Could not open '{path}'")
    return f"{what}: its file takes longer than 0.5 s"


# ---------------------------------------------------------------- the end


async def test_what_is_left_to_its_thread_is_done_though_that_had_not_begun(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All places may be taken by files that hang: a socket's file would be left for ever."""
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.01)
    monkeypatch.setattr(module, "MAX_HANGING", 1)
    hanging, ended = threading.Event(), threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work_on_files, hanging.wait)
        await trio.testing.wait_all_tasks_blocked()
        try:
            await end_on_files("socket 'x'", ended.set)
            assert "socket 'x': its file takes longer than 0.01 s" in caplog.text
            with trio.fail_after(60):
                await eventually(ended.is_set)
        finally:
            hanging.set()


async def test_what_is_left_to_its_thread_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.01)
    hanging, calls = threading.Event(), []
    done = threading.Event()

    def end() -> None:
        calls.append("begun")
        hanging.wait()
        done.set()

    await end_on_files("it", end)
    hanging.set()
    with trio.fail_after(60):
        await eventually(done.is_set)
    await work_on_files(len, ())  # behind whatever else was asked of a thread
    assert calls == ["begun"]


async def test_what_fails_behind_its_time_is_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.01)
    monkeypatch.setattr(module, "MAX_HANGING", 1)
    hanging = threading.Event()

    def end() -> None:
        raise OSError("Stale file handle")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work_on_files, hanging.wait)
        await trio.testing.wait_all_tasks_blocked()
        try:
            await end_on_files("it", end)
            with trio.fail_after(60):
                await eventually(
                    lambda: "it: its file can't be left in order: Stale" in caplog.text
                )
        finally:
            hanging.set()
