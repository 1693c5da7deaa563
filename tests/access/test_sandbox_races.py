"""A process that may write in the sandbox swaps a folder for a link out of it, at each step.

Before the n-th system call that takes a name ``inside/d`` becomes a link to ``outside``, for all n:
it stays one, or is the folder again before the next call. Nothing may be made, read, removed or
connected to outside, whether the request succeeds or not.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.certificates import server_certificate, write_folder
from trio_chardev.access.credentials import open_tls_files
from trio_chardev.access.sandbox import Sandbox
from trio_chardev.backends.descriptor import DescriptorBackend
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pipe import PipeOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.replay import ReplayOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.serial.options import SerialOptions
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.table import opener_of
from trio_chardev.backends.taps.log_file import LogFile
from trio_chardev.backends.taps.record import Recording
from trio_chardev.core.backend import Backend
from trio_chardev.errors import BackendError
from trio_chardev.files import read_file
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import open_registry_with

OF_OS = ("open", "stat", "lstat", "readlink", "symlink", "rename", "unlink", "chmod", "link")
OF_SOCKETS = ("bind", "connect", "connect_ex", "listen")
RECORDING = b'{"version": 2, "width": 80, "height": 24}\n[0.1, "o", "%s"]\n'


@attrs.define
class Race:
    """Two folders with the same names in them, and who swaps them before call number *at*."""

    inside: Path
    outside: Path
    server: socket.socket  # at outside/s
    sandbox: Sandbox
    at: int = 0
    is_short: bool = False
    count: int = 0
    is_swapped: bool = False
    _is_on: bool = False
    _lock: threading.RLock = attrs.Factory(threading.RLock)  # files are opened in threads, too
    _before: dict[str, tuple[int, bytes]] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        self._before = self._contents()

    def step(self) -> None:
        """A call with a name in it is about to be made."""
        with self._lock:
            if not self._is_on:
                return
            self._is_on = False  # for the calls that are made here
            try:
                assert os.listdir(self.outside) == list(self._before)
                self.count += 1
                if self.count == self.at or (self.is_short and self.count == self.at + 1):
                    self._swap()
            finally:
                self._is_on = True

    def _swap(self) -> None:
        if self.is_swapped:
            (self.inside / "d").unlink()
            (self.inside / "gone").rename(self.inside / "d")
        else:
            (self.inside / "d").rename(self.inside / "gone")
            (self.inside / "d").symlink_to(self.outside)
        self.is_swapped = not self.is_swapped

    def restore(self) -> None:
        """Put all back for the next round."""
        if self.is_swapped:
            self._swap()
        self.count = 0

    def check(self) -> None:
        """Nothing has happened outside."""
        assert self._contents() == self._before
        with suppress(BlockingIOError):
            self.server.accept()
            raise AssertionError("somebody has connected to what is outside")

    def check_descriptor(self, fd: int) -> None:
        """What was opened is not outside."""
        status = os.fstat(fd)
        for path in self.outside.iterdir():
            there = os.stat(path)
            assert not os.path.samestat(there, status)
            assert not there.st_rdev or there.st_rdev != status.st_rdev

    def check_backend(self, backend: Backend) -> None:
        """Nothing of it is outside."""
        if isinstance(backend, DescriptorBackend):
            for holder in (backend.source, backend.sink):
                if holder is not None:
                    self.check_descriptor(holder.fd)
        for tap in backend.taps:
            if isinstance(tap, LogFile | Recording) and tap.background.output is not None:
                self.check_descriptor(tap.background.output.fd)

    def _contents(self) -> dict[str, tuple[int, bytes]]:
        found = {}
        for name in os.listdir(self.outside):
            path = self.outside / name
            mode = path.lstat().st_mode
            found[name] = (mode, path.read_bytes() if stat.S_ISREG(mode) else b"")
        return found

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have the calls counted, and the folder swapped when it is time."""
        with pytest.MonkeyPatch.context() as patch:
            for owner, names in ((os, OF_OS), (socket.socket, OF_SOCKETS)):
                for name in names:
                    patch.setattr(owner, name, self._stepping(getattr(owner, name)))
            self._is_on = True
            try:
                yield
            finally:
                with self._lock:  # a thread that was given up may still make a call
                    self._is_on = False

    def _stepping(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: Any, **more: Any) -> Any:
            self.step()
            return call(*args, **more)

        return stepped


@pytest.fixture
def race(tmp_path: Path) -> Iterator[Race]:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    terminals = [os.openpty() for _ in range(2)]
    with socket.socket(socket.AF_UNIX) as ours, socket.socket(socket.AF_UNIX) as server:
        for folder, sock, (_, terminal) in zip(
            (inside / "d", outside), (ours, server), terminals, strict=True
        ):
            folder.mkdir(parents=True)
            sock.setblocking(False)
            sock.bind(str(folder / "s"))
            sock.listen()
            (folder / "f").write_bytes(folder.name.encode() * 100)
            (folder / "cast").write_bytes(RECORDING % folder.name.encode())
            os.mkfifo(folder / "fifo")
            (folder / "tty").symlink_to(os.ttyname(terminal))
            write_folder(folder, server=server_certificate())
        line = os.ttyname(terminals[0][1])
        yield Race(inside, outside, server, Sandbox([str(inside), line]))
    for pair in terminals:
        for fd in pair:
            os.close(fd)


Deed = Callable[[Race, str], Awaitable[None]]


def opening(make: Callable[[str], BackendOptions], *, again: bool = False) -> Deed:
    """Open a backend as a client has it opened, and with *again* change it to itself."""

    async def deed(race: Race, folder: str) -> None:
        async with open_registry_with(opener_of) as registry:
            await registry.add("x", make(folder), sandbox=race.sandbox)
            race.check_backend(registry["x"].backend)
            if again:
                await registry.change("x", make(folder), drain_timeout=0, sandbox=race.sandbox)
                race.check_backend(registry["x"].backend)
            await registry.remove("x")

    return deed


def unix(name: str, **more: Any) -> Callable[[str], BackendOptions]:
    return lambda folder: SocketOptions(addr=UnixAddress(f"{folder}/{name}"), **more)


async def read_credentials(race: Race, folder: str) -> None:
    with open_tls_files(folder, "server", race.sandbox) as files:
        for file in (files.ca, files.cert, files.key, files.revoked):
            if file is not None:
                race.check_descriptor(file.fd)


async def read_secret(race: Race, folder: str) -> None:
    assert b"outside" not in read_file(f"{folder}/f", 1 << 20, race.sandbox.open)


DEEDS: dict[str, Deed] = {
    "server": opening(unix("new", server=True, wait=False)),
    "server-again": opening(unix("new", server=True, wait=False), again=True),
    "client": opening(unix("s", server=False)),
    "pty": opening(lambda folder: PtyOptions(path=f"{folder}/new")),
    "pty-again": opening(lambda folder: PtyOptions(path=f"{folder}/new"), again=True),
    "file": opening(lambda folder: FileOptions(out=f"{folder}/f", in_=f"{folder}/fifo")),
    "file-new": opening(lambda folder: FileOptions(out=f"{folder}/new")),
    "pipe": opening(lambda folder: PipeOptions(device=f"{folder}/fifo")),
    "serial": opening(lambda folder: SerialOptions(path=f"{folder}/tty")),
    "serial-again": opening(lambda folder: SerialOptions(path=f"{folder}/tty"), again=True),
    "ring": opening(lambda folder: RingbufOptions(path=f"{folder}/new"), again=True),
    "log": opening(lambda folder: NullOptions(logfile=f"{folder}/f"), again=True),
    "record": opening(lambda folder: NullOptions(record=f"{folder}/f"), again=True),
    "replay": opening(lambda folder: ReplayOptions(path=f"{folder}/cast")),
    "tls": read_credentials,
    "secret": read_secret,
}


async def play(race: Race, deed: Deed) -> None:
    folder = str(race.inside / "d")
    with race.running(), suppress(BackendError, OSError):
        await deed(race, folder)
    race.check()


@pytest.mark.parametrize("is_short", [False, True], ids=["for good", "for one call"])
@pytest.mark.parametrize("name", DEEDS)
async def test_nothing_leads_out_whenever_a_folder_is_swapped(
    race: Race, name: str, is_short: bool
) -> None:
    race.is_short = is_short
    with trio.fail_after(60):
        await play(race, DEEDS[name])
        last = race.count
        assert last > 1
        while race.at < last:
            race.restore()
            race.at += 1
            await play(race, DEEDS[name])
            last = max(last, race.count)
            for path in (race.inside / "d", race.inside / "gone"):
                for left in [path / "new"]:
                    if not path.is_symlink():
                        left.unlink(missing_ok=True)
