"""Faults of the system: the error is clear, other chardevs go on, and afterwards so does this one.

These use real descriptors. Each test has a ring besides the chardev that suffers, for `unharmed`.
"""

from __future__ import annotations

import ast
import os
import resource
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import trio_chardev
from tests.services import until
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.backends.serial.serial import SerialOptions
from trio_chardev.backends.socket import listener as listener_module
from trio_chardev.backends.socket.addresses import FdAddress, InetAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.taps import background_file as background
from trio_chardev.core.environment import number_as_fd
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import stateless
from trio_chardev.errors import BackendDisconnectedError, BackendError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.options.backend import BackendOptions
from trio_chardev.qmp.client.client import open_qmp_client
from trio_chardev.service import Service, open_service

LOTS = bytes(4 << 20)  # more than any socket takes


@attrs.define
class World:
    """A service with a ring, and a chardev ``x`` that is used."""

    service: Service
    x: Frontend
    events: list[BackendEvent]

    async def unharmed(self) -> None:
        """The ring can be used, by its frontend and by a new one."""
        ring = self.service.registry["ring"].backend
        assert isinstance(ring, RingbufBackend)
        async with self.service.registry["ring"].attach() as frontend:
            await frontend.send_all(b"alive")
        assert ring.read(100) == b"alive"


@asynccontextmanager
async def suffering(
    options: BackendOptions, take_fd: Callable[[str], int] = number_as_fd
) -> AsyncIterator[World]:
    with trio.fail_after(20):
        async with open_service() as service:
            await service.registry.add("ring", RingbufOptions())
            await service.registry.add("x", options, take_fd=take_fd)
            events: list[BackendEvent] = []
            async with service.registry["x"].attach(
                be_change=stateless, on_event=events.append
            ) as frontend:
                yield World(service, frontend, events)


# ---------------------------------------------------------------- EMFILE


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Whatever needs a descriptor in the block fails with EMFILE."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    fds = [lowest]
    with suppress(OSError):
        while True:
            fds.append(os.dup(0))  # into the gaps below
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in fds:
            os.close(fd)


async def test_without_descriptors_accepting_pauses_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accepted = []
    accept = socket.socket.accept

    def count(sock: socket.socket) -> Any:
        accepted.append(sock.getsockname())
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", count)
    monkeypatch.setattr(listener_module, "ACCEPT_PAUSE", 0.1)
    path = tmp_path / "x"
    async with suffering(SocketOptions(addr=UnixAddress(str(path)))) as world:
        await world.service.listen_qmp(SocketOptions(addr=UnixAddress(str(tmp_path / "q"))))
        async with open_qmp_client(tmp_path / "q") as qmp:
            with socket.socket(socket.AF_UNIX) as client, socket.socket(socket.AF_UNIX) as other:
                accepted.clear()
                with no_descriptors_left():
                    client.connect(str(path))
                    other.connect(str(tmp_path / "q"))
                    begin = trio.current_time()
                    await until(lambda: len(accepted) >= 6)
                    assert trio.current_time() - begin >= 0.2  # two listeners, thrice each
                    for options in (PtyOptions(), FileOptions(out=str(tmp_path / "f"))):
                        with pytest.raises(BackendError, match="Too many open files"):
                            await world.service.registry.add("y", options)
                    await world.unharmed()
                    assert len(await qmp.execute("query-chardev")) == 2
                await until(lambda: Event.OPENED in world.events)
                client.send(b"served")
                assert await world.x.receive_some() == b"served"
                await until(lambda: len(accepted) >= 8)
                other.setblocking(False)
                assert await trio.socket.from_stdlib_socket(other).recv(1) == b"{"
    said = [r.message for r in caplog.records if "can't accept" in r.message]
    assert len(said) == 2  # once for each listener
    assert all("Too many open files" in text for text in said)


# ---------------------------------------------------------------- ENOSPC


@contextmanager
def tiny_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if (
        os.geteuid() != 0
        or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode
    ):
        pytest.skip("only root can mount a small disk, and not everywhere")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Make a file of all the room that *disk* has."""
    filler = disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(LOTS)
    return filler


async def test_a_device_that_is_full_is_the_writers_error() -> None:
    async with suffering(FileOptions(out="/dev/full")) as world:
        with pytest.raises(
            BackendError, match=r"^Could not write to file: No space left on device"
        ):
            await world.x.send_all(b"abc")
        await world.unharmed()
        await world.service.registry.change("x", RingbufOptions())
        await world.x.send_all(b"abc")


async def test_what_a_full_disk_has_no_room_for_is_written_when_there_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "RETRY_INTERVAL", 0.01)
    with tiny_disk(tmp_path) as disk:
        async with suffering(FileOptions(out=str(disk / "f"))) as world:
            filler = fill(disk)
            await world.x.send_all(b"kept, ")
            await until(lambda: "No space left on device" in caplog.text)
            await world.unharmed()
            filler.unlink()
            await world.x.send_all(b"too")
            await until(lambda: (disk / "f").read_bytes() == b"kept, too")
    assert caplog.text.count("No space left on device") == 1


async def test_a_log_on_a_full_disk_holds_nobody_up_and_goes_on_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tiny_disk(tmp_path) as disk:
        filler = fill(disk)
        async with suffering(RingbufOptions(logfile=str(disk / "log"))) as world:
            await world.x.send_all(b"not logged")
            await until(lambda: "Could not write to" in caplog.text)
            await world.x.send_all(b"not logged")
            await world.unharmed()
            filler.unlink()
            while not (disk / "log").read_bytes().endswith(b"logged again"):
                await world.x.send_all(b"logged again")
                await trio.sleep(0.001)
    assert caplog.text.count("Could not write to") == 1


async def test_a_log_on_a_device_that_is_full_holds_nobody_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with suffering(RingbufOptions(logfile="/dev/full")) as world:
        for _ in range(3):
            await world.x.send_all(b"not logged")
            await until(lambda: "Could not write to" in caplog.text)
        await world.unharmed()
        ring = world.service.registry["x"].backend
        assert isinstance(ring, RingbufBackend)
        assert ring.read(100) == b"not logged" * 3
    assert caplog.text.count("No space left on device") == 1


async def test_a_full_ring_takes_all_and_keeps_the_last() -> None:
    async with suffering(RingbufOptions(size=16)) as world:
        await world.x.send_all(bytes(1 << 20) + b"the last sixteen")
        ring = world.service.registry["x"].backend
        assert isinstance(ring, RingbufBackend)
        assert ring.read(100) == b"the last sixteen"
        await world.unharmed()


# ---------------------------------------------------------------- EIO: a line that goes away


async def test_a_line_that_is_pulled_out_is_closed_and_opened_again(tmp_path: Path) -> None:
    def plug_in() -> int:
        master, slave = os.openpty()
        (tmp_path / "new").symlink_to(os.ttyname(slave))
        (tmp_path / "new").rename(tmp_path / "tty")
        os.close(slave)
        return master

    master = plug_in()
    options = SerialOptions(path=str(tmp_path / "tty"), reopen_ms=5)
    async with suffering(options) as world:
        assert world.events == [Event.OPENED]
        os.write(master, b"last words")
        assert await world.x.receive_some() == b"last words"
        os.close(master)
        await until(lambda: world.events == [Event.OPENED, Event.CLOSED])
        with pytest.raises(BackendDisconnectedError, match="went away"):
            await world.x.send_all(b"abc")
        await world.unharmed()
        master = plug_in()
        try:
            await until(lambda: world.events == [Event.OPENED, Event.CLOSED, Event.OPENED])
            await world.x.send_all(b"hello")
            assert os.read(master, 100) == b"hello"
        finally:
            os.close(master)


# ---------------------------------------------------------------- EPIPE, ECONNRESET


async def test_a_peer_that_resets_the_connection_is_closed_and_the_next_one_served() -> None:
    async with suffering(SocketOptions(addr=InetAddress("127.0.0.1", "0"))) as world:
        name = world.service.registry["x"].backend.filename  # disconnected:tcp:HOST:PORT,server=on
        port = int(name.split(":")[3].partition(",")[0])
        for number in (1, 2):
            with socket.create_connection(("127.0.0.1", port)) as client:
                await until(lambda n=number: world.events.count(Event.OPENED) == n)  # type: ignore[misc]
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with pytest.raises(BackendDisconnectedError):  # closing it has sent RST
                await world.x.send_all(LOTS)
            await until(lambda n=number: world.events.count(Event.CLOSED) == n)  # type: ignore[misc]
            await world.unharmed()


async def test_a_peer_that_closes_under_a_writer_is_the_writers_error(tmp_path: Path) -> None:
    async with suffering(SocketOptions(addr=UnixAddress(str(tmp_path / "x")))) as world:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(tmp_path / "x"))
        await until(lambda: Event.OPENED in world.events)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def write() -> None:
                with pytest.raises(BackendDisconnectedError):
                    await world.x.send_all(LOTS)

            await trio.testing.wait_all_tasks_blocked()
            client.close()
        assert world.events[-1] is Event.CLOSED
        await world.unharmed()


# ---------------------------------------------------------------- a peer that is stopped


@contextmanager
def stopped_peer() -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A process that would read what is sent to the socket."""
    ours, theirs = socket.socketpair()
    peer = subprocess.Popen(["cat"], stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
    theirs.close()
    try:
        peer.send_signal(signal.SIGSTOP)
        os.waitpid(peer.pid, os.WUNTRACED)
        yield peer, ours
    finally:
        peer.kill()
        peer.wait()
        ours.close()


@pytest.mark.parametrize("then", ["it goes on", "it is left"])
async def test_a_stopped_peer_holds_up_its_writer_alone(then: str) -> None:
    with stopped_peer() as (peer, ours):
        options = SocketOptions(addr=FdAddress("peer"), server=False)
        async with suffering(options, lambda name: ours.detach()) as world:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(world.x.send_all, LOTS)
                await trio.testing.wait_all_tasks_blocked()
                await world.unharmed()
                if then == "it goes on":
                    peer.send_signal(signal.SIGCONT)
                else:
                    await world.service.registry.change("x", RingbufOptions(size=1 << 12))
            await world.unharmed()


# ---------------------------------------------------------------- names that do not resolve


@pytest.fixture
def no_dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Looking a name up hangs until the event is set, and then finds this host."""
    answers = threading.Event()
    getaddrinfo = socket.getaddrinfo

    def hang(host: Any, *query: Any) -> Any:
        if host != "board.invalid" or query[-1] & socket.AI_NUMERICHOST:
            return getaddrinfo(host, *query)
        answers.wait(20)
        return getaddrinfo("127.0.0.1", *query)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield answers
    answers.set()


async def test_a_name_that_does_not_resolve_is_an_error() -> None:
    async with suffering(RingbufOptions()) as world:
        options = SocketOptions(addr=InetAddress("nowhere.invalid", "1"), server=False)
        with pytest.raises(BackendError, match="address resolution failed for nowhere.invalid:1"):
            await world.service.registry.change("x", options)
        await world.x.send_all(b"abc")
        await world.unharmed()


async def test_a_resolver_that_hangs_ends_with_the_deadline(no_dns: threading.Event) -> None:
    async with suffering(RingbufOptions()) as world:
        options = SocketOptions(addr=InetAddress("board.invalid", "1"), server=False)
        with pytest.raises(BackendError, match=r"not open after 0.05 seconds"):
            await world.service.registry.change("x", options, timeout=0.05)
        await world.x.send_all(b"abc")
        await world.unharmed()


async def test_a_client_that_reconnects_comes_when_the_resolver_is_back(
    no_dns: threading.Event,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        addr = InetAddress("board.invalid", str(server.getsockname()[1]))
        options = SocketOptions(addr=addr, server=False, reconnect_ms=5)
        async with suffering(options) as world:
            await trio.testing.wait_all_tasks_blocked()
            await world.unharmed()
            assert world.events == []
            no_dns.set()
            await until(lambda: world.events == [Event.OPENED])
            server.accept()[0].close()


# ---------------------------------------------------------------- the clock is set


def test_nothing_but_stamps_looks_at_the_clock_on_the_wall() -> None:
    """Deadlines and rates are of the monotonic clock, so setting the other harms none."""
    folder = Path(trio_chardev.__file__).parent
    users = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "time.time",
                "time.time_ns",
                "datetime.now",
            ):
                users.add((str(path.relative_to(folder)), ast.unparse(node)))
    assert users <= {
        ("backends/taps/log_file.py", "datetime.now"),  # of lines and notes
        ("backends/console/client.py", "time.time"),  # since when it is there, or blocked
        ("backends/console/history.py", "time.time"),  # when something was printed last
        ("cli/listing.py", "time.time"),  # for how long, to people
        ("cli/show.py", "time.time"),
        ("cli/top.py", "time.time"),
        ("cli/attach_actions.py", "time.time"),  # how long clients are there, which say since when
        ("core/wall_clock.py", "time.time"),  # since when something is blocked
        ("core/chardev.py", "time.time"),  # since when somebody is there, or nobody
        ("backends/pty/link.py", "time.time_ns"),  # is a link of before this boot?
        ("backends/taps/record.py", "time.time"),  # when the recording was begun
        ("qmp/server/events.py", "time.time_ns"),  # the time stamp of an event
        ("qmp/server/broadcast.py", "time.time_ns"),  # the same, while it waits
        ("qmp/server/trace.py", "time.time"),  # when a message came or went
    }


async def test_events_come_in_time_though_the_clock_jumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns
    steps = iter([0, 10**18, -(10**17)] * 10)
    monkeypatch.setattr(time, "time_ns", lambda: real() + next(steps))
    async with suffering(SocketOptions(addr=UnixAddress(str(tmp_path / "x")))) as world:
        await world.service.listen_qmp(SocketOptions(addr=UnixAddress(str(tmp_path / "q"))))
        async with open_qmp_client(tmp_path / "q") as qmp:
            with qmp.open_events() as events:
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(tmp_path / "x"))
                    assert (await anext(events)).name == "CHARDEV_OPENED"
                assert (await anext(events)).name == "CHARDEV_CLOSED"  # after a second
