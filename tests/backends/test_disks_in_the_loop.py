"""The event loop's thread opens, reads, writes and looks up nothing on a disk: worker threads do.

Each kind is opened, used, changed to itself and closed, and each call that a disk can block is
checked: the loop's thread may make it for /proc and /dev only.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.places import MAKERS, place_for
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.table import opener_of
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError
from trio_chardev.options.backend import BackendOptions

BY_NAME = (
    *("open", "stat", "lstat", "readlink", "symlink", "link", "rename", "replace", "unlink"),
    *("chmod", "mkdir", "rmdir", "listdir", "scandir", "truncate", "access"),
)
BY_FD = (
    *("read", "pread", "preadv", "write", "pwrite", "pwritev", "ftruncate", "posix_fallocate"),
    *("fsync", "fdatasync", "lseek", "close"),
)
NO_DISKS = ("/proc/", "/dev/")


def is_off_disk(address: str | bytes) -> bool:
    """Is it an abstract name, or what `open_cached` has found?"""
    return os.fsdecode(address).startswith(("\0", *NO_DISKS))


@attrs.define
class Watch:
    """What the loop has done that it must not."""

    loop: int = attrs.Factory(threading.get_ident)
    seen: list[str] = attrs.Factory(list)

    def by_name(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *more: Any, **options: Any) -> Any:
            text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
            if not text.startswith(NO_DISKS):
                self._note(f"{name} {text}")
            return call(path, *more, **options)

        return watched

    def by_fd(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(fd: int, *more: Any, **options: Any) -> Any:
            if threading.get_ident() == self.loop and stat.S_ISREG(os.fstat(fd).st_mode):
                path = os.readlink(f"/proc/self/fd/{fd}")
                if not path.startswith(NO_DISKS):
                    self._note(f"{name} {path}")
            return call(fd, *more, **options)

        return watched

    def of_socket(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(sock: socket.socket, address: Any) -> Any:
            if sock.family == socket.AF_UNIX and address and not is_off_disk(address):
                self._note(f"{name} {address!r}")
            return call(sock, address)

        return watched

    def _note(self, what: str) -> None:
        if threading.get_ident() == self.loop:
            self.seen.append(what)


@contextmanager
def watching() -> Iterator[Watch]:
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch:
        for name in BY_NAME:
            patch.setattr(os, name, watch.by_name(name, getattr(os, name)))
        for name in BY_FD:
            patch.setattr(os, name, watch.by_fd(name, getattr(os, name)))
        patch.setattr(fcntl, "flock", watch.by_fd("flock", fcntl.flock))
        for name in ("bind", "connect", "connect_ex"):
            patch.setattr(socket.socket, name, watch.of_socket(name, getattr(socket.socket, name)))
        yield watch


async def use(backend: Backend) -> None:
    """Send, receive and wait a little."""
    for _ in range(3):
        with suppress(BackendError):
            backend.send_nowait(memoryview(b"some bytes"))
        with suppress(BackendError), trio.move_on_after(0.01):
            backend.receive_nowait(100)
            await backend.wait_readable()


async def check(open_it: Callable[[OpenRequest], Any], *, changes: bool = True) -> list[str]:
    """What the loop does to disks while a backend is opened, used, replaced if wanted, and closed."""

    def request(replaces: Backend | None = None) -> OpenRequest:
        return OpenRequest(
            id="x", on_event=lambda event: None, replaces=replaces, is_guarded=replaces is not None
        )

    async def take_over(old: Backend, closed: trio.Event) -> None:
        async with open_it(request(old)) as new:
            old.leaving.prepare(carry=True)
            with suppress(BackendError):  # not all can be guarded
                new.peer.guard()
            await new.prepare()
            new.activate()
            old.leaving.take_back()
            in_place.set()
            await closed.wait()
            await use(new)

    in_place, closed = trio.Event(), trio.Event()
    with trio.fail_after(20), watching() as watch:
        async with trio.open_nursery() as nursery:
            async with open_it(request()) as old:
                old.activate()
                await use(old)
                if changes:
                    nursery.start_soon(take_over, old, closed)  # noqa: ASYNC111 - in_place is set
                    await in_place.wait()
            closed.set()
    return watch.seen


@pytest.mark.parametrize("name", MAKERS)
async def test_nothing_on_a_disk_is_touched(name: str, tmp_path: Path) -> None:
    with place_for(name, tmp_path) as place:
        assert await check(place.open, changes=not place.bases) == []


@pytest.mark.parametrize(
    "options",
    [
        PtyOptions(path="link"),
        RingbufOptions(size=64, path="ring"),
        NullOptions(logfile="log"),
        NullOptions(record="recording"),
    ],
    ids=["pty-link", "ring", "logfile", "record"],
)
async def test_nor_by_what_any_kind_can_have(
    options: BackendOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert await check(opener_of(options)) == []


async def test_nor_by_a_line_whose_name_is_on_one(tmp_path: Path) -> None:
    master, slave = os.openpty()
    (tmp_path / "link").symlink_to(os.ttyname(slave))
    try:
        assert await check(opener_of(SerialOptions(path=str(tmp_path / "link")))) == []
    finally:
        os.close(master)
        os.close(slave)


def test_the_watch_sees_it(tmp_path: Path) -> None:
    """Else the tests above would find nothing either."""
    with watching() as watch, open(tmp_path / "f", "wb") as file:
        os.write(file.fileno(), b"x")
        os.stat(tmp_path)
        os.stat("/proc/self")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "s"))
        thread = threading.Thread(target=os.stat, args=(tmp_path,))
        thread.start()
        thread.join()
    assert [what.split()[0] for what in watch.seen] == ["write", "stat", "bind"]
