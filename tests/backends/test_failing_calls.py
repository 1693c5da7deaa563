"""A call that fails while a backend opens, is put in place or closes leaks no descriptor.

The n-th of all calls that may fail after an open does so, for all n, in each place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.places import MAKERS, Place, place_for
from trio_chardev.backends import inotify
from trio_chardev.backends.parallel import PPCLAIM, ParallelOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.socket.rights import CLOSER
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError

CALLS: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("open", "dup", "fstat", "get_blocking", "set_blocking")),
    *((os, name) for name in ("openpty", "ttyname", "isatty", "ftruncate", "symlink")),
    *((os, name) for name in ("pread", "preadv", "pwrite", "posix_fallocate", "lseek")),
    *((fcntl, name) for name in ("fcntl", "ioctl", "flock")),
    *((termios, name) for name in ("tcgetattr", "tcsetattr")),
    (tty, "setraw"),
    (select, "epoll"),
    (inotify, "call"),
    *((socket.socket, name) for name in ("accept", "bind", "connect", "connect_ex", "dup")),
    *((socket.socket, name) for name in ("getpeername", "getsockname", "getsockopt", "listen")),
    *((socket.socket, name) for name in ("setblocking", "setsockopt", "set_inheritable")),
)


@attrs.define
class Fault:
    """The call number *at* fails; how many were there?"""

    at: int
    count: int = 0
    failed: str = ""
    is_paused: bool = False

    def giving(self, take_fd: Callable[[str], int]) -> Callable[[str], int]:
        """*take_fd*, in which nothing fails: it is the test's own."""

        def take(name: str) -> int:
            self.is_paused = True
            try:
                return take_fd(name)
            finally:
                self.is_paused = False

        return take

    def replaces(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            self.count += not self.is_paused
            if self.count == self.at and not self.failed and not self.is_paused:
                self.failed = name
                error = termios.error if name.startswith(("tc", "setraw")) else OSError
                raise error(errno.EIO, os.strerror(errno.EIO))
            return call(*args, **more)

        return counted


@contextmanager
def failing(fault: Fault) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, fault.replaces(name, getattr(owner, name)))
        yield


def open_now() -> dict[str, str]:
    """What is open, by number; but for the descriptor of this very look."""
    found = {}
    deadline = time.monotonic() + 20
    while not CLOSER.is_idle:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found


MakePlace = Callable[[], AbstractContextManager[Place]]


async def use(make: MakePlace, fault: Fault, again: bool) -> None:
    """Open, put in place and close; with *again* change it to itself in the same way."""

    def request(replaces: Backend | None = None) -> OpenRequest:
        return OpenRequest(id="x", on_event=lambda event: None, replaces=replaces)

    with trio.fail_after(10), make() as made:
        place = attrs.evolve(made, take_fd=fault.giving(made.take_fd))
        if not again:
            with failing(fault):
                async with place.open(request()) as backend:
                    backend.activate()
            return
        is_left, is_closed = trio.Event(), trio.Event()

        async def be_the_old_one(*, task_status: trio.TaskStatus[Backend]) -> None:
            async with place.open(request()) as old:
                old.activate()
                task_status.started(old)
                await is_left.wait()
            is_closed.set()

        error: BackendError | None = None  # raised below, where no nursery puts it into a group
        async with trio.open_nursery() as nursery:
            old = await nursery.start(be_the_old_one)
            with failing(fault):
                try:
                    async with place.open(request(old)) as new:
                        old.leaving.prepare(carry=True)
                        new.activate()
                        is_left.set()
                        await is_closed.wait()  # some write nothing before
                except BackendError as exc:
                    error = exc
            is_left.set()
        if error is not None:
            raise error


def check_all(make: MakePlace, again: bool) -> int:
    """How many calls there are; none of them leaves anything open when it fails."""
    at = 0
    while True:
        at += 1
        fault = Fault(at)
        before = open_now()
        try:
            trio.run(use, make, fault, again)
        except BackendError:  # its frames keep alive what only the collector would close
            assert (fault.failed, open_now()) == (fault.failed, before)
        assert (fault.failed, open_now()) == (fault.failed, before)
        if not fault.failed:
            return fault.count


@pytest.mark.parametrize("again", [False, True], ids=["open", "change"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_call_that_fails_leaks_no_descriptor(name: str, again: bool, tmp_path: Path) -> None:
    check_all(lambda: place_for(name, tmp_path), again)


@pytest.mark.parametrize("more", ["logfile", "record"])
def test_a_log_or_a_recording_leaks_no_descriptor(more: str, tmp_path: Path) -> None:
    @contextmanager
    def make() -> Iterator[Place]:
        with place_for("file-with-fifo", tmp_path) as place:
            named: dict[str, Any] = {more: str(tmp_path / more)}
            yield attrs.evolve(place, options=attrs.evolve(place.options, **named))

    for again in (False, True):
        assert check_all(make, again) > 4


@pytest.mark.parametrize("again", [False, True], ids=["open", "change"])
def test_a_ring_in_a_file_leaks_no_descriptor(again: bool, tmp_path: Path) -> None:
    place = Place(options=RingbufOptions(size=4096, path=str(tmp_path / "ring")))
    assert check_all(lambda: nullcontext(place), again) > 3


@pytest.mark.parametrize("again", [False, True], ids=["open", "change"])
def test_a_parallel_port_leaks_no_descriptor(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ioctl = fcntl.ioctl

    def claim(fd: int, request: int, *args: Any) -> Any:
        return 0 if request == PPCLAIM else ioctl(fd, request, *args)

    monkeypatch.setattr(fcntl, "ioctl", claim)
    place = Place(options=ParallelOptions(device="/dev/null"))
    assert check_all(lambda: nullcontext(place), again) > 2
