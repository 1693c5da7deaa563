"""What the service manager is told, by sd_notify(3)'s protocol."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.services import PROGRAM, TIMEOUT, Qmp, running, until
from trio_chardev.cli import notify
from trio_chardev.cli.notify import Notifier


class Manager:
    """Who is told: a socket, at a path or an abstract name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + name[1:] if name[0] == "@" else name)
        self.sock.settimeout(TIMEOUT)

    def notifier(self, **more: str) -> Notifier:
        return Notifier.found({"NOTIFY_SOCKET": self.name, **more})

    def next(self) -> dict[str, str]:
        lines = self.sock.recv(65536).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def is_told_nothing(self) -> bool:
        self.sock.setblocking(False)
        try:
            self.sock.recv(65536)
        except BlockingIOError:
            return True
        finally:
            self.sock.settimeout(TIMEOUT)
        return False


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = str(tmp_path / "notify")
    made = Manager(path if request.param == "path" else f"@{path}")
    with made.sock:
        yield made


async def test_ready_reloading_and_stopping(manager: Manager) -> None:
    notifier = manager.notifier()
    await notifier.ready("3 chardevs\nREADY=0")
    assert manager.next() == {"READY": "1", "STATUS": "3 chardevs READY=0"}
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    await notifier.reloading()
    told = manager.next()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert told.keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert before <= int(told["MONOTONIC_USEC"]) <= after
    await notifier.stopping("it stops")
    assert manager.next() == {"STOPPING": "1", "STATUS": "it stops"}


async def test_a_long_status_is_cut(manager: Manager) -> None:
    await manager.notifier().ready("x" * 100_000)
    assert manager.next()["STATUS"] == "x" * notify.MAX_STATUS


@pytest.mark.parametrize(
    "name", [None, "", "relative", "vsock:2:9", "/nowhere/at/all", "/" + "x" * 200]
)
async def test_who_can_not_be_told_is_not_told(
    name: str | None, autojump_clock: trio.abc.Clock
) -> None:
    """It takes no time, and does not raise."""
    notifier = Notifier.found({} if name is None else {"NOTIFY_SOCKET": name})
    await notifier.ready("x")
    await notifier.reloading()
    await notifier.keep_alive()
    assert trio.current_time() == 0


async def test_it_is_alive_twice_in_each_period(
    manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    notifier = manager.notifier(WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
    with trio.move_on_after(11):
        await notifier.keep_alive()
    for _ in range(3):  # at 0, 5 and 10 s
        assert manager.next() == {"WATCHDOG": "1", "EXTEND_TIMEOUT_USEC": "10000000"}
    assert manager.is_told_nothing()
    await notifier.ready("")
    manager.next()
    with trio.move_on_after(1):
        await notifier.keep_alive()
    assert manager.next() == {"WATCHDOG": "1"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
async def test_without_a_watchdog_of_this_process_there_is_no_sign_of_life(
    manager: Manager, environ: dict[str, str]
) -> None:
    await manager.notifier(**environ).keep_alive()
    assert manager.is_told_nothing()


async def test_a_blocked_loop_gives_no_sign_of_life(manager: Manager) -> None:
    notifier = manager.notifier(WATCHDOG_USEC="20000")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.keep_alive)
        await trio.testing.wait_all_tasks_blocked()
        assert manager.next()["WATCHDOG"] == "1"
        time.sleep(0.1)  # noqa: ASYNC251 - five periods of the watchdog
        assert manager.is_told_nothing()
        with trio.fail_after(TIMEOUT):
            await until(lambda: not manager.is_told_nothing())
        nursery.cancel_scope.cancel()


async def test_a_manager_that_does_not_read_is_waited_for_briefly(
    manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    notifier = manager.notifier()
    while trio.current_time() == 0:  # until its queue is full
        await notifier.ready("x" * 500)
    assert trio.current_time() == notify.SEND_TIMEOUT
    manager.next()
    await notifier.ready("there is room")
    assert trio.current_time() == notify.SEND_TIMEOUT


async def test_what_finds_no_room_is_sent_when_there_is(manager: Manager) -> None:
    notifier = manager.notifier()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        filler.connect(manager.sock.getsockname())
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.send(b"FULL=1")
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.ready, "x")
            await trio.testing.wait_all_tasks_blocked()
            assert manager.next() == {"FULL": "1"}
    while (told := manager.next()) == {"FULL": "1"}:
        pass
    assert told["READY"] == "1"


# ---------------------------------------------------------------- serve


def test_serve_tells_all_of_it(manager: Manager, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f'qmp = "unix:{tmp_path}/q,server=on,wait=off"\n[chardev]\na = "null"\n')
    environ = {"NOTIFY_SOCKET": manager.name}
    with running("--config", str(file), **environ) as service:
        assert manager.next() == {"READY": "1", "STATUS": "1 chardevs, 0 devices"}
        assert (tmp_path / "q").exists(), "it is ready when all is served"
        with file.open("a") as more:
            more.write('b = "file,path=/nowhere/at/all,input-path=/nowhere"\n')
        service.process.send_signal(signal.SIGHUP)
        assert manager.next().keys() == {"RELOADING", "MONOTONIC_USEC"}
        told = manager.next()
        assert told["READY"] == "1"
        assert told["STATUS"].startswith(f"1 chardevs, 0 devices; not reloaded: {file}:4: ")
        file.write_text(
            file.read_text().replace("file,path=/nowhere/at/all,input-path=/nowhere", "null")
        )
        service.process.send_signal(signal.SIGHUP)
        assert manager.next().keys() == {"RELOADING", "MONOTONIC_USEC"}
        assert manager.next() == {"READY": "1", "STATUS": "2 chardevs, 0 devices"}
        service.process.send_signal(signal.SIGTERM)
        assert manager.next() == {"STOPPING": "1", "STATUS": "it stops"}
        assert service.process.wait(TIMEOUT) == 0


def test_what_is_tried_again_is_in_the_status(manager: Manager, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('[chardev]\na = "file,path=/nowhere/at/all"\n')
    with running(
        *("--config", str(file), "--qmp", f"unix:{tmp_path}/q,server=on,wait=off"),
        NOTIFY_SOCKET=manager.name,
    ):
        assert manager.next() == {
            "READY": "1",
            "STATUS": "1 chardevs, 0 devices; 1 to be tried again",
        }


def test_a_start_that_fails_is_never_ready(manager: Manager, tmp_path: Path) -> None:
    with running(
        "--chardev", "file,id=f,path=/nowhere/at/all", NOTIFY_SOCKET=manager.name
    ) as service:
        told = manager.next()
        assert told["STOPPING"] == "1"
        assert "Could not open '/nowhere/at/all'" in told["STATUS"]
        assert service.process.wait(TIMEOUT) == 1
    assert manager.is_told_nothing()


def test_a_service_that_is_stopped_gives_no_sign_of_life(manager: Manager, tmp_path: Path) -> None:
    """By a signal here, as no option of it blocks the loop."""
    with running(
        *("--qmp", f"unix:{tmp_path}/q,server=on,wait=off"),
        NOTIFY_SOCKET=manager.name,
        WATCHDOG_USEC="20000",
    ) as service:
        while manager.next().get("READY") is None:
            pass
        while manager.next() != {"WATCHDOG": "1"}:
            pass  # one may have been made before it was ready, with more time for that
        assert manager.next() == {"WATCHDOG": "1"}
        service.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, service.process.pid, os.WSTOPPED)
        while not manager.is_told_nothing():
            pass
        time.sleep(0.1)  # five periods
        assert manager.is_told_nothing()
        service.process.send_signal(signal.SIGCONT)
        assert manager.next() == {"WATCHDOG": "1"}


def test_a_log_that_is_stuck_holds_up_nothing(manager: Manager, tmp_path: Path) -> None:
    """It is a pipe that is full and that nobody reads, as journald's may be."""
    file = tmp_path / "x.toml"
    file.write_text('[chardev]\na = "file,path=/nowhere/at/all"\n')
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb", buffering=0) as full:
        os.set_blocking(writer, False)
        while full.write(b"x" * 4096):
            pass
        os.set_blocking(writer, True)
        listener = f"unix:{tmp_path}/q,server=on,wait=off"
        process = subprocess.Popen(
            [*PROGRAM, "serve", "-vv", "--config", str(file), "--qmp", listener],
            env={**os.environ, "NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "200000"},
            stdout=full,
            stderr=full,
        )
        try:
            while manager.next().get("STATUS") != "1 chardevs, 0 devices; 1 to be tried again":
                pass
            with Qmp(tmp_path / "q") as qmp:
                for _ in range(5):
                    assert len(qmp("query-chardev")) == 1  # each a line of the log
                    assert manager.next() == {"WATCHDOG": "1"}
            process.send_signal(signal.SIGHUP)
            while manager.next().get("RELOADING") is None:
                pass
            process.send_signal(signal.SIGTERM)
            while manager.next().get("STOPPING") is None:
                pass
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()
            process.wait()
