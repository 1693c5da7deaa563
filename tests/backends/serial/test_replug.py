"""A line that is absent, goes, and comes: how it is found, and what it has then."""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
import statistics
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.backends.serial.kernel import Kernel
from tests.users import PATIENCE, Seen
from trio_chardev import libc
from trio_chardev.backends import inotify
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.serial import arrivals, search
from trio_chardev.backends.serial.options import SerialOptions
from trio_chardev.backends.serial.serial import SerialBackend, open_serial
from trio_chardev.core.backend import OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.handlers import stateless
from trio_chardev.core.inbox import INBOX_CAPACITY
from trio_chardev.errors import BackendDisconnectedError, BackendError, NotSupportedError
from trio_chardev.events import Event, LineSettings, ModemLines
from trio_chardev.registry import open_registry
from trio_chardev.testing import CancelAtStep
from trio_chardev.testing.pair import receive_some

OPENED, CLOSED = Event.OPENED, Event.CLOSED


@attrs.define
class Plug:
    """A device that is pulled and put back, under a name that stays."""

    name: Path
    master: int = -1

    def put_in(self) -> None:
        self.master, slave = os.openpty()
        tty.setraw(slave)
        target = os.ttyname(slave)
        os.close(slave)
        os.set_blocking(self.master, False)
        self.name.symlink_to(target)

    def pull(self) -> None:
        if self.master != -1:
            self.name.unlink()
            os.close(self.master)
            self.master = -1

    async def hear(self, size: int) -> bytes:
        await trio.lowlevel.wait_readable(self.master)
        return os.read(self.master, size)


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Plug]:
    plug = Plug(tmp_path / "board")
    yield plug
    plug.pull()


@asynccontextmanager
async def opened(
    path: Path, seen: Seen | None = None, **options: Any
) -> AsyncIterator[SerialBackend]:
    request = OpenRequest(id="x", on_event=(seen if seen is not None else []).append)
    given = SerialOptions(path=path, **{"wait": False, "reopen_ms": 1, **options})
    with trio.fail_after(PATIENCE):
        async with open_serial(given, request) as backend:
            assert isinstance(backend, SerialBackend)
            backend.activate()
            yield backend


@asynccontextmanager
async def reading(path: Path, seen: Seen, **options: Any) -> AsyncIterator[SerialBackend]:
    async def read(backend: SerialBackend) -> None:
        while True:
            seen.append(await receive_some(backend, 4096))

    async with opened(path, seen, **options) as backend, trio.open_nursery() as nursery:
        nursery.start_soon(read, backend)
        yield backend
        nursery.cancel_scope.cancel()


async def until_open(backend: SerialBackend, is_open: bool = True) -> None:
    while backend.is_open is not is_open:  # noqa: ASYNC110 - a deadline is round the test
        await trio.sleep(0.001)


async def until_open_fds(count: int) -> None:
    """Threads close what is not needed any more."""
    with trio.fail_after(PATIENCE):
        while count_fds() != count:  # noqa: ASYNC110
            await trio.sleep(0.001)


def count_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---------------------------------------------------------------- absent at first


async def test_an_absent_line_is_an_error_unless_it_is_not_waited_for(plug: Plug) -> None:
    for wait in (None, True):
        with pytest.raises(BackendError, match="No such file or directory$"):
            async with opened(plug.name, wait=wait):
                pass
    async with opened(plug.name, wait=False) as backend:
        assert not backend.is_open


async def test_an_absent_line_is_closed_and_says_what_it_lacks(
    plug: Plug, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(plug.name, speed=9600) as backend:
        assert backend.filename == "disconnected:serial"
        assert backend.line.settings == LineSettings(9600)
        assert backend.line.missing == set()
        assert backend.receive_nowait(10) == b""
        with pytest.raises(BackendDisconnectedError, match="' is not there yet$"):
            backend.send_nowait(memoryview(b"x"))
        with pytest.raises(BackendDisconnectedError, match="' is not there yet$"):
            await backend.line.get_modem()
        backend.line.look()
    why = f"Could not open '{plug.name}': No such file or directory; it is looked for"
    assert [r.getMessage() for r in caplog.records] == [f"chardev 'x': {why}"]


async def test_it_comes_and_has_what_was_asked_meanwhile(plug: Plug) -> None:
    seen: Seen = []
    async with reading(plug.name, seen, speed=9600) as backend:
        await backend.line.set(LineSettings(19200))
        await backend.line.set_break(True)
        plug.put_in()
        await until_open(backend)
        assert backend.filename == "serial"
        os.write(plug.master, b"hello")
        assert await backend.send_some(memoryview(b"world")) == 5
        assert await plug.hear(5) == b"world"
        assert termios.tcgetattr(plug.master)[4] == termios.B19200
        assert backend._line.wanted.is_break
        while seen[-1] != b"hello":  # noqa: ASYNC110
            await trio.sleep(0.001)
    assert seen == [OPENED, b"hello"]


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_change_to_one_that_may_be_absent_is_made(plug: Plug, is_there: bool) -> None:
    options = SerialOptions(path=plug.name, wait=False, reopen_ms=1)
    async with open_registry() as registry:
        await registry.add("board", NullOptions())
        async with registry["board"].attach(be_change=stateless) as user:
            if is_there:
                plug.put_in()
            await registry.change("board", options)
            assert registry["board"].is_open is is_there
            name = "serial" if is_there else "disconnected:serial"
            assert registry["board"].info.filename == name
            if not is_there:
                plug.put_in()
            with trio.fail_after(PATIENCE):
                await user.wait_open()
                await user.send_all(b"x")
                assert await plug.hear(1) == b"x"
            await registry.change("board", attrs.evolve(options, speed=9600))
            assert registry["board"].is_open


async def test_one_that_another_program_has_is_waited_for_too(plug: Plug) -> None:
    plug.put_in()
    other = os.open(plug.name, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(other, fcntl.LOCK_EX)
    seen: Seen = []
    async with reading(plug.name, seen, exclusive=True) as backend:
        assert not backend.is_open
        os.close(other)
        await until_open(backend)
    assert seen == [OPENED]


async def test_what_is_there_and_no_line_is_an_error_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(BackendError, match="it is not a tty$"):
        async with opened(path):
            pass


async def test_one_of_another_chardev_of_this_service_is_an_error(plug: Plug) -> None:
    plug.put_in()
    options = SerialOptions(path=plug.name, wait=False, exclusive=True)
    async with open_registry() as registry:
        await registry.add("one", options)
        with pytest.raises(BackendError, match="is in use by chardev 'one'$"):
            await registry.add("two", options)


# ---------------------------------------------------------------- it goes and comes


async def test_after_each_of_twenty_replugs_it_is_as_it_was(
    plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both directions, the settings, DTR and the break; nothing is left open."""
    reopen_ms = 20
    seen: Seen = []
    plug.put_in()
    kernel = Kernel(monkeypatch, str(plug.name))
    took: list[float] = []
    fds: list[int] = []
    async with reading(plug.name, seen, reopen_ms=reopen_ms, rts="off") as backend:
        await backend.line.set(LineSettings(19200, stop_bits=2))
        await backend.line.set_modem(ModemLines.RTS)
        await backend.line.set_break(True)
        await wait_all_tasks_blocked()
        for n in range(20):
            plug.pull()
            await until_open(backend, False)
            kernel.modem = ModemLines.DTR | ModemLines.RTS  # what opening does
            kernel.calls.clear()
            plug.put_in()
            kernel.number = os.stat(plug.name).st_rdev
            begun = trio.current_time()
            await until_open(backend)
            os.write(plug.master, b"%d" % n)
            assert await backend.send_some(memoryview(b"up")) == 2
            assert await plug.hear(2) == b"up"
            while seen[-1] != b"%d" % n:  # noqa: ASYNC110
                await trio.sleep(0.001)
            took.append(trio.current_time() - begun)
            settings = termios.tcgetattr(plug.master)
            assert settings[4] == termios.B19200
            assert settings[2] & termios.CSTOPB
            assert kernel.modem == ModemLines.RTS
            assert "TIOCSBRK" in kernel.calls
            fds.append(count_fds())
            await until_open_fds(min(fds))
    assert statistics.median(took) < reopen_ms / 1000 + 0.2
    assert seen.count(OPENED) == 21


async def test_it_is_found_at_once_however_long_it_was_away(
    plug: Plug, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "next_pause", lambda *_, is_told: 10 * PATIENCE if is_told else 0)
    async with reading(plug.name, []) as backend:
        await wait_all_tasks_blocked(0.05)
        plug.put_in()
        await until_open(backend)


async def test_retry_looks_for_it_now(plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as after another program has let go of it, which nothing tells."""
    plug.put_in()
    other = os.open(plug.name, os.O_RDWR | os.O_NOCTTY)
    fcntl.flock(other, fcntl.LOCK_EX)
    async with reading(plug.name, [], exclusive=True, reopen_ms=60_000) as backend:
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        in_use = f"Could not lock '{plug.name}': another program has it"
        assert backend.peer.outlook.last_error == in_use
        backend.peer.retry()
        next_try: float | None = None
        while next_try is None:
            await trio.sleep(0.001)
            next_try = backend.peer.outlook.next_try
        assert next_try > begun + 60
        assert not backend.is_open
        os.close(other)
        backend.peer.retry()
        await until_open(backend)
        backend.peer.retry()  # it is open, and stays so
        await wait_all_tasks_blocked()
        assert backend.is_open
        plug.pull()
        await until_open(backend, False)
        assert backend.peer.outlook.last_error == f"'{plug.name}' went away"


async def test_one_that_is_not_looked_for_has_nothing_to_retry(plug: Plug) -> None:
    plug.put_in()
    async with opened(plug.name, wait=None, reopen_ms=0) as backend:
        with pytest.raises(NotSupportedError, match="^'serial' has nothing to retry with 'reo"):
            backend.peer.retry()


@pytest.mark.parametrize("failing", ["inotify_init1", "inotify_add_watch"])
async def test_without_inotify_it_is_looked_for_now_and_then(
    plug: Plug, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def refuse(function: str, *args: int | bytes | None) -> int:
        if function == failing:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return libc.call(function, *args)

    if failing != "inotify_init1":
        await arrivals.watch(dict)  # its instance stays
    before = count_fds()
    monkeypatch.setattr(inotify, "call", refuse)
    monkeypatch.setattr(arrivals, "LONGEST_PAUSE", 0.01)
    async with reading(plug.name, []) as backend:
        await trio.sleep(0.05)  # some looks in vain
        plug.put_in()
        await until_open(backend)
        plug.pull()
    await until_open_fds(before)


def test_of_a_folder_that_is_missing_its_coming_is_noticed(tmp_path: Path) -> None:
    """udev makes /dev/serial/by-id for the first adaptor, and removes it with the last."""
    places = arrivals.places_of(str(tmp_path / "serial/by-id/board"))
    assert places == {str(tmp_path): {"serial"}}
    (tmp_path / "serial").mkdir()
    (tmp_path / "serial/by-id").mkdir()
    (tmp_path / "serial/by-id/board").symlink_to("../../ttyUSB0")
    assert arrivals.places_of(str(tmp_path / "serial/by-id/board")) == {
        str(tmp_path / "serial/by-id"): {"board"},
        str(tmp_path): {"ttyUSB0"},
    }
    (tmp_path / "ttyUSB0").symlink_to("/dev/pts/none")
    places = arrivals.places_of(str(tmp_path / "serial/by-id/board"))
    assert places == {
        str(tmp_path / "serial/by-id"): {"board"},
        str(tmp_path): {"ttyUSB0"},
        "/dev/pts": {"none"},
    }


async def test_other_names_are_ignored_and_the_end_of_the_folder_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    folder.mkdir()

    @asynccontextmanager
    async def watching() -> AsyncIterator[None]:
        watch = await arrivals.watch(lambda: {str(folder): {"board"}})
        assert watch.works
        with trio.fail_after(PATIENCE):
            yield
            await watch.wait()
        watch.close()

    watch = await arrivals.watch(lambda: {str(folder): {"board"}})
    (folder / "other").touch()
    with trio.move_on_after(0.02) as cut:
        await watch.wait()
    assert cut.cancelled_caught
    watch.close()
    (folder / "board").touch()  # of no interest to anybody, so the watch ends
    async with watching():
        (folder / "board").chmod(0o600)
    async with watching():
        (folder / "board").unlink()
        (folder / "board").touch()
    async with watching():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


async def test_all_lines_of_a_run_have_one_instance_of_inotify(tmp_path: Path) -> None:
    """A user may have 128 only. What one waits for is nothing to another."""
    folder = str(tmp_path)
    first = await arrivals.watch(lambda: {folder: {"a"}})
    before = count_fds()
    rest = [await arrivals.watch(lambda: {folder: {"b"}}) for _ in range(20)]
    assert count_fds() == before
    (tmp_path / "a").touch()
    with trio.fail_after(PATIENCE):
        await first.wait()
    assert not any(other._came.is_set() for other in rest)
    for other in rest[:10]:
        other.close()
    (tmp_path / "b").touch()
    with trio.fail_after(PATIENCE):
        for other in rest[10:]:
            await other.wait()
    assert not any(other._came.is_set() for other in rest[:10])


async def test_records_that_were_lost_wake_all_and_so_does_an_end(tmp_path: Path) -> None:
    folder = str(tmp_path)
    first = await arrivals.watch(lambda: {folder: {"a"}})
    watcher = first._watcher
    assert watcher is not None
    watcher._tell(inotify.Record(-1, inotify.IN_Q_OVERFLOW, b""))
    with trio.fail_after(PATIENCE):
        await first.wait()
        second = await arrivals.watch(lambda: {folder: {"a"}})
        watcher._inotify.close()
        await second.wait()
        third = await arrivals.watch(lambda: {folder: {"a"}})
        assert not second.works
        assert third.works


async def test_a_line_that_another_chardev_has_when_it_is_back_is_not_taken(plug: Plug) -> None:
    options = SerialOptions(path=plug.name, wait=False, exclusive=True, reopen_ms=1)
    async with open_registry() as registry:
        await registry.add("one", options)
        await registry.add("two", options)
        plug.put_in()
        with trio.fail_after(PATIENCE):
            while not any(registry[id].is_open for id in ("one", "two")):  # noqa: ASYNC110
                await trio.sleep(0.001)
        await wait_all_tasks_blocked(0.05)
        assert [registry[id].is_open for id in ("one", "two")].count(True) == 1


async def test_what_was_refused_before_may_be_refused_again_and_is_told_once(
    plug: Plug, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plug.put_in()
    kernel = Kernel(monkeypatch, str(plug.name))
    kernel.errors["TIOCCBRK"] = errno.EIO
    async with reading(plug.name, []) as backend:
        for _ in range(2):
            plug.pull()
            await until_open(backend, False)
            plug.put_in()
            kernel.number = os.stat(plug.name).st_rdev
            await until_open(backend)
        assert backend.line.missing == {"break"}
    told = [r for r in caplog.records if "does without" in r.getMessage()]
    assert len(told) == 1


async def test_what_has_worked_must_work_again_for_it_to_be_back(
    plug: Plug, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a board would run on with DTR as the kernel has it."""
    caplog.set_level(logging.INFO)
    plug.put_in()
    kernel = Kernel(monkeypatch, str(plug.name))
    async with reading(plug.name, []) as backend:
        await backend.line.set_modem(ModemLines.RTS)
        plug.pull()
        await until_open(backend, False)
        kernel.errors["TIOCMGET"] = errno.EIO
        plug.put_in()
        kernel.number = os.stat(plug.name).st_rdev
        while "Input/output error" not in caplog.text:  # noqa: ASYNC110
            await trio.sleep(0.001)
        assert not backend.is_open
        kernel.errors.clear()
        await until_open(backend)
        with pytest.raises(NotSupportedError):
            await backend.line.set_echo(True)


async def test_it_goes_and_comes_while_its_user_reads_nothing(plug: Plug) -> None:
    """... and there is no room for more: who writes to it has it back all the same."""
    plug.put_in()
    options = SerialOptions(path=plug.name, reopen_ms=1)
    async with open_registry() as registry:
        await registry.add("board", options)
        async with registry["board"].attach() as user:
            data = bytes(range(256)) * (INBOX_CAPACITY // 256)
            with trio.fail_after(PATIENCE):
                left = memoryview(data)
                while left:
                    await trio.lowlevel.wait_writable(plug.master)
                    left = left[os.write(plug.master, left[:1024]) :]
                while user.statistics().bytes_waiting < len(data):  # noqa: ASYNC110
                    await trio.sleep(0.001)
                plug.pull()
                plug.put_in()
                await until_back(registry["board"])
                await user.send_all(b"there?")
                assert await plug.hear(6) == b"there?"
                got = b""
                while len(got) < len(data):
                    got += await user.receive_some()
            assert got == data


async def until_back(chardev: Chardev) -> None:
    """Until its backend has gone and come; its user reads no events."""
    backend = chardev.backend
    assert isinstance(backend, SerialBackend)
    first = backend.sink
    while backend.sink is first or backend.sink.closed:  # noqa: ASYNC110
        await trio.sleep(0.001)


# ---------------------------------------------------------------- brute force


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("is_there", [True, False])
async def test_cancelled_at_every_step_it_is_open_whole_or_not_at_all(
    tmp_path: Path, when: str, is_there: bool
) -> None:
    """While it opens, is looked for, comes, goes, and comes again."""
    plug = Plug(tmp_path / "board")
    await arrivals.watch(dict)  # its instance of inotify stays
    before = count_fds()
    for k in itertools.count(1):
        injector = CancelAtStep(k, when, trio.CancelScope())
        trio.lowlevel.add_instrument(injector)
        injector.armed = True
        with injector.scope:
            if is_there:
                plug.put_in()
            async with opened(plug.name) as backend:
                if not is_there:
                    plug.put_in()
                for _ in range(3):
                    while not backend.is_open:
                        await look(backend)
                    plug.pull()
                    assert backend.receive_nowait(10) == b""
                    assert not backend.is_open
                    plug.put_in()
        injector.armed = False
        trio.lowlevel.remove_instrument(injector)
        plug.pull()
        await until_open_fds(before)
        if not injector.fired:
            break
    assert k > 20


async def look(backend: SerialBackend) -> None:
    """Wait for the line; however that ends, it has a descriptor if and only if it is open."""
    try:
        await backend.wait_readable()
    finally:
        assert backend.is_open is (backend.source is not None) is not backend.sink.closed
