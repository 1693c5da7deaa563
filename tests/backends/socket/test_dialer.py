"""Connecting: once with the real errors, or again and again with growing delays."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import select
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.disk import eventually
from tests.threads import Threads
from trio_chardev import cached_path, files
from trio_chardev.backends.socket import dialer
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.backends.socket.dialer import (
    QUIET_TIME,
    STEADY,
    Backoff,
    Nobody,
    Redialer,
    connect,
)
from trio_chardev.core.peer import Outlook
from trio_chardev.errors import BackendError
from trio_chardev.testing import CancelAtStep


def unused_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return str(sock.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (UnixAddress("/nonexistent/s"), "'/nonexistent/s': No such file or directory"),
        (UnixAddress("/dev/null"), "'/dev/null': Connection refused"),
        (UnixAddress("no-such-name", abstract=True), "'no-such-name': Connection refused"),
        (InetAddress("127.0.0.1", "PORT"), "'127.0.0.1:PORT': Connection refused"),
        (InetAddress("localhost", "PORT"), "'localhost:PORT': Connection refused"),
        (InetAddress("::1", "PORT"), "'::1:PORT': Connection refused"),
    ],
)
async def test_failures_are_in_qemus_words(address: SocketAddress, error: str) -> None:
    port = unused_port()
    if isinstance(address, InetAddress):
        address = InetAddress(address.host, port)
    with pytest.raises(BackendError) as caught, trio.fail_after(5):
        await connect(address)
    assert str(caught.value) == f"Failed to connect to {error}".replace("PORT", port)


async def test_connects_without_blocking_the_loop(tmp_path: Path) -> None:
    """A UNIX server's full queue answers EAGAIN, which no poll reports the end of."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        with socket.socket(socket.AF_UNIX) as first, trio.fail_after(5):
            first.connect(path)
            async with trio.open_nursery() as nursery:

                async def dial() -> None:
                    with await connect(UnixAddress(path)) as sock:
                        assert sock.getpeername() == path
                        assert not sock.getblocking()

                nursery.start_soon(dial)
                await trio.sleep(0.03)  # long enough to find the queue full more than once
                server.accept()[0].close()


async def test_cancelling_leaves_nothing_open(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            with trio.move_on_after(0.02):
                await connect(UnixAddress(path))
            server.accept()[0].close()
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()


@pytest.fixture
def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the kernel say that to look a path up may take long."""

    def refuse(function: str, *args: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(cached_path, "call", refuse)


@pytest.fixture
def everything_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' folder may be on an overlay, which is not known to be local."""
    monkeypatch.setattr(cached_path.LocalMounts, "have", lambda mounts, fd: True)


async def check_reaches(path: str) -> None:
    """Check that a server at *path* is reached, by that name."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        with await connect(UnixAddress(path)) as sock:
            assert sock.getpeername() == path
            assert not sock.getblocking()


@pytest.mark.parametrize("length", [50, 107])
@pytest.mark.usefixtures("everything_local")
async def test_a_path_that_the_kernel_has_in_memory_needs_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    threads = Threads(monkeypatch)
    threads.run_out()
    monkeypatch.chdir(tmp_path)
    await check_reaches("s" * length)
    assert threads.asked == 0


@pytest.mark.usefixtures("uncached")
async def test_a_path_that_is_not_in_memory_is_looked_up_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(monkeypatch)
    await check_reaches(str(tmp_path / "s"))
    assert threads.asked == 1


@pytest.mark.usefixtures("everything_local")
async def test_without_proc_a_path_is_looked_up_in_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(monkeypatch)
    monkeypatch.setattr(dialer, "path_of_open", lambda fd: b"%s/none/%d" % (bytes(tmp_path), fd))
    await check_reaches(str(tmp_path / "s"))
    assert threads.asked == 1


@pytest.mark.usefixtures("uncached")
async def test_a_path_that_hangs_holds_up_nobody_and_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a mount whose server is gone: connect(2) looks the path up, non-blocking or not."""
    monkeypatch.setattr(files, "FILE_TIMEOUT", 0.5)  # its thread may begin late
    path = str(tmp_path / "s")
    go, begun = threading.Event(), threading.Event()
    refused: list[BackendError] = []

    class Hanging(socket.socket):
        def connect_ex(self, address: Any) -> int:
            begun.set()
            go.wait(60)
            return super().connect_ex(address)

    async def dial() -> None:
        with pytest.raises(BackendError) as caught:
            await connect(UnixAddress(path))
        refused.append(caught.value)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        monkeypatch.setattr(socket, "socket", Hanging)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dial)
                await eventually(begun.is_set)
            assert str(refused[0]) == (
                f"Failed to connect to '{path}': its file takes longer than 0.5 s"
            )
            monkeypatch.undo()
            go.set()
            server.setblocking(False)
            with await trio.to_thread.run_sync(server_side, server) as late:
                assert late.recv(1) == b""


@pytest.mark.usefixtures("uncached")
async def test_one_that_is_cancelled_as_it_connects_has_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has taken it, and would see a client that comes and goes."""
    path = str(tmp_path / "s")
    connected, go = threading.Event(), threading.Event()

    class Slow(socket.socket):
        def connect_ex(self, address: Any) -> int:
            code = super().connect_ex(address)
            connected.set()
            go.wait(10)
            return code

    monkeypatch.setattr(socket, "socket", Slow)
    with socket.socket(socket.AF_UNIX) as server, trio.fail_after(5):
        server.bind(path)
        server.listen(1)
        redialer = Redialer("x", UnixAddress(path), Backoff(60.0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(redialer.wait)
            await eventually(connected.is_set)
            nursery.cancel_scope.cancel()
            go.set()
        await redialer.wait()
        sock = redialer.take()
        assert sock is not None
        sock.close()


def server_side(server: socket.socket) -> socket.socket:
    """Who has come at last."""
    select.select([server], [], [], 5)
    client = server.accept()[0]
    client.settimeout(5)
    return client


async def test_all_endpoints_of_a_host_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def both_families(host: str, port: str, *args: object) -> list[object]:
        tcp = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [
            (socket.AF_INET6, *tcp, ("::1", int(port), 0, 0)),
            (socket.AF_INET, *tcp, ("127.0.0.1", int(port))),
        ]

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(socket, "getaddrinfo", both_families)
        with await connect(InetAddress("board", str(port))) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)


def test_delays_are_constant_unless_they_may_grow() -> None:
    backoff = Backoff(1.0, jitter=lambda: 1.0)
    assert [backoff.next() for _ in range(4)] == [1, 1, 1, 1]
    assert backoff.words() == "every 1 s"


def test_delays_that_grow_double_up_to_the_longest_with_jitter_below() -> None:
    backoff = Backoff(1.0, 60.0, jitter=lambda: 0.0)
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next() == 1
    assert backoff.words() == "after 1 s, then after longer, every 60 s at last"
    jittery = Backoff(1.0, 4.0, jitter=lambda: 1.0)
    assert [jittery.next() for _ in range(4)] == [1, 1, 2, 2]


def test_delays_after_short_connections_grow_even_if_those_after_failures_do_not() -> None:
    backoff = Backoff(1.0, jitter=lambda: 0.0)
    assert [backoff.next(was_short=True) for _ in range(7)] == [1, 2, 4, 8, 16, 32, 32]
    assert backoff.words(was_short=True) == "after 1 s, then after longer, every 32 s at last"
    assert [backoff.next() for _ in range(2)] == [1, 1]  # it is not there, as QEMU has it
    assert [backoff.next(was_short=True) for _ in range(2)] == [1, 2]


def test_a_longest_delay_that_is_given_holds_for_short_connections_too() -> None:
    assert [Backoff(1.0, 1.0).next(was_short=True) for _ in range(3)] == [1, 1, 1]
    backoff = Backoff(1.0, 60.0, jitter=lambda: 0.0)
    assert [backoff.next(was_short=True) for _ in range(7)] == [1, 2, 4, 8, 16, 32, 60]


def spoken(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.message for record in caplog.records]
    caplog.clear()
    return lines


async def tried(redialer: Redialer, seconds: float) -> socket.socket | None:
    """What comes of trying for so long."""
    with trio.move_on_after(seconds):
        await redialer.wait()
    return redialer.take()


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Of nobody else."""
    return str(tmp_path)


def serving(name: str) -> socket.socket:
    """At an abstract name, which is looked up in no folder, so that no thread has to."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"\0{name}")
    server.listen(5)
    return server


async def test_that_it_is_tried_again_is_said_once_and_that_it_is_back(
    name: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """The clock is a fake, and a UNIX socket connects, or not, at once."""
    redialer = Redialer("x", UnixAddress(name, abstract=True), Backoff(1.0))
    caplog.set_level(logging.WARNING)
    assert await tried(redialer, 10.5) is None
    assert spoken(caplog) == [
        f"Unable to connect character device x: Failed to connect to '{name}': "
        "Connection refused; trying again every 1 s"
    ]
    for _ in range(2):
        with serving(name):
            sock = await tried(redialer, 10)
            assert sock is not None
            redialer.connected()
            assert spoken(caplog) == [f"chardev 'x': connected to '{name}' again"]
            await trio.sleep(STEADY)
            sock.close()
        assert await tried(redialer, 10.5) is None
        assert spoken(caplog) == [
            f"chardev 'x': the connection to '{name}' has ended; trying again every 1 s"
        ]
    redialer.close()


async def test_connections_that_end_at_once_do_not_flood_the_log(
    name: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    redialer = Redialer("x", UnixAddress(name, abstract=True), Backoff(1.0))
    caplog.set_level(logging.WARNING)
    with serving(name) as server:
        for _ in range(100):
            sock = await tried(redialer, 40)
            assert sock is not None
            redialer.connected()
            await trio.sleep(0.1)
            sock.close()
            server.accept()[0].close()
    lines = spoken(caplog)
    assert lines[0] == (
        f"chardev 'x': the connection to '{name}' has ended after 0.1 s; trying again "
        "after 1 s, then after longer, every 32 s at last"
    )
    assert 1 <= len(lines) <= 1 + trio.current_time() / QUIET_TIME


async def test_first_attempt_is_at_once_the_next_after_the_delay(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The clock is a fake, and the server is there: nothing waits for the kernel."""
    with serving(name):
        redialer = Redialer(
            "x", UnixAddress(name, abstract=True), Backoff(7.0, 60.0, jitter=lambda: 0.0)
        )
        socks = [await tried(redialer, 1)]
        assert trio.current_time() == 0
        socks.append(await tried(redialer, 100))
        assert trio.current_time() == 7
        socks.append(await tried(redialer, 100))  # the handshakes of the one before have failed
        assert trio.current_time() == 7 + 14
        redialer.connected()
        await trio.sleep(STEADY)
        socks.append(await tried(redialer, 100))
        assert trio.current_time() == 21 + STEADY + 7
        redialer.close()
        for sock in socks:
            assert sock is not None
            sock.close()


async def test_a_connection_that_ends_at_once_does_not_begin_again_with_the_first_delay(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    with serving(name) as server:
        redialer = Redialer(
            "x", UnixAddress(name, abstract=True), Backoff(1.0, 8.0, jitter=lambda: 0.0)
        )
        times = []
        for lived in (0, 0, 0, STEADY, 0, 0):
            before = trio.current_time()
            sock = await tried(redialer, 100)
            times.append(trio.current_time() - before)
            assert sock is not None
            redialer.connected()
            await trio.sleep(lived)
            sock.close()
            server.accept()[0].close()
    assert times == [0, 1, 2, 4, 1, 2]


async def accepted_and_closed(redialer: Redialer, server: socket.socket) -> None:
    """A server that is busy: it accepts, perhaps says so, and closes."""
    sock = await tried(redialer, 100)
    assert sock is not None
    redialer.connected()
    server.accept()[0].close()
    sock.close()


async def test_a_server_that_accepts_and_closes_is_dialled_ever_less_often(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Though the delay is constant while it can't be connected to."""
    redialer = Redialer("x", UnixAddress(name, abstract=True), Backoff(1.0, jitter=lambda: 0.0))
    with serving(name) as server:
        times = []
        for _ in range(10):
            await accepted_and_closed(redialer, server)
            times.append(trio.current_time())
        between = [after - before for before, after in itertools.pairwise(times)]
        assert between == [1, 2, 4, 8, 16, 32, 32, 32, 32]
        sock = await tried(redialer, 100)
        assert sock is not None
        redialer.connected()
        await trio.sleep(STEADY)  # that one was steady
        sock.close()
        ended = trio.current_time()
        await accepted_and_closed(redialer, server)
        assert trio.current_time() - ended == 1
    redialer.close()


async def test_a_connection_that_fails_before_its_peer_is_there_was_short(
    name: str, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """As one whose TLS or telnet ends: `connected` is not called for it."""
    caplog.set_level(logging.WARNING)
    redialer = Redialer("x", UnixAddress(name, abstract=True), Backoff(1.0, jitter=lambda: 0.0))
    times = []
    with serving(name):
        for _ in range(5):
            sock = await tried(redialer, 100)
            assert sock is not None
            sock.close()
            redialer.failed("no handshake in 10 seconds")
            assert redialer.take() is None
            times.append(trio.current_time())
        assert await tried(redialer, 1) is None
    assert times == [0, 1, 3, 7, 15]
    assert redialer.outlook.last_error == (
        f"the connection to '{name}' has failed: no handshake in 10 seconds"
    )
    assert spoken(caplog)[0] == (
        f"chardev 'x': the connection to '{name}' has failed: no handshake in 10 seconds; "
        "trying again after 1 s, then after longer, every 32 s at last"
    )


async def test_waiting_that_is_interrupted_goes_on_to_the_same_time(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    """It is whenever the chardev's user takes something."""
    redialer = Redialer("x", UnixAddress(name, abstract=True), Backoff(10.0))
    assert await tried(redialer, 1) is None
    for _ in range(8):
        assert await tried(redialer, 1) is None
    with serving(name):
        sock = await tried(redialer, 100)
        assert trio.current_time() == 10
        assert sock is not None
        sock.close()


async def test_the_outlook_is_the_last_error_and_when_it_is_tried_again(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    redialer = Redialer("x", UnixAddress(name, abstract=True), Backoff(10.0))
    assert redialer.outlook == Outlook(may_come=True)
    assert await tried(redialer, 1) is None
    refused = f"Failed to connect to '{name}': Connection refused"
    assert redialer.outlook == Outlook(may_come=True, last_error=refused, next_try=10)
    assert await tried(redialer, 10) is None
    assert redialer.outlook == Outlook(may_come=True, last_error=refused, next_try=20)
    with serving(name):
        sock = await tried(redialer, 10)
        assert sock is not None
        redialer.connected()
        await trio.sleep(STEADY)
        sock.close()
        assert await tried(redialer, 1) is None
    assert redialer.outlook == Outlook(
        may_come=True, last_error=f"the connection to '{name}' has ended", next_try=20 + STEADY + 10
    )


async def test_retry_dials_now(name: str, autojump_clock: trio.testing.MockClock) -> None:
    redialer = Redialer("x", UnixAddress(name, abstract=True), Backoff(1000.0))
    assert await tried(redialer, 1) is None
    with serving(name):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(redialer.wait)
            await trio.sleep(5)
            redialer.retry()
        assert trio.current_time() == 6
        redialer.close()
        assert await tried(redialer, 1) is None
        redialer.retry()  # while nobody waits
        sock = await tried(redialer, 1)
        assert trio.current_time() == 7
        assert sock is not None
        redialer.connected()
        redialer.retry()  # of one that is connected does nothing
        await trio.sleep(STEADY)
        sock.close()
        assert await tried(redialer, 999) is None


async def test_retry_does_not_make_the_delays_short_again(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    redialer = Redialer(
        "x", UnixAddress(name, abstract=True), Backoff(1.0, 64.0, jitter=lambda: 0.0)
    )
    assert await tried(redialer, 10) is None  # at 0, 1, 3, 7
    redialer.retry()
    assert await tried(redialer, 1) is None
    assert redialer.outlook.next_try == 10 + 16


async def test_retry_gives_up_an_attempt_that_hangs(
    name: str, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Such as one to a host that was not up when it began: TCP looks again ever less often."""
    attempts: list[float] = []

    async def hang(address: SocketAddress, sandbox: object) -> socket.socket:
        attempts.append(trio.current_time())
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(dialer, "connect", hang)
    redialer = Redialer("x", UnixAddress(name, abstract=True), Backoff(10.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(redialer.wait)
        await trio.sleep(3)
        assert redialer.outlook == Outlook(may_come=True)
        redialer.retry()
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert attempts == [0, 3]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_cancelled_at_any_step_it_goes_on_and_no_connection_is_lost(
    name: str, when: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Failures, a retry, a connection: as many as the server sees are there to be taken."""
    for step in itertools.count(1):
        redialer = Redialer("x", UnixAddress(f"{name}{step}", abstract=True), Backoff(10.0))
        injector = CancelAtStep(step, when, trio.CancelScope())
        trio.lowlevel.add_instrument(injector)
        begun = trio.current_time()
        try:
            with injector.scope:
                injector.armed = True
                assert await tried(redialer, 15) is None
                redialer.retry()
                assert await tried(redialer, 5) is None
        finally:
            trio.lowlevel.remove_instrument(injector)
        with serving(f"{name}{step}") as server:
            sock = await tried(redialer, 11)
            assert sock is not None
            assert trio.current_time() - begun <= 31
            server.accept()[0].close()
            sock.close()
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
        if not injector.fired:
            assert step > 5
            return


async def test_nobody_never_comes() -> None:
    nobody = Nobody()
    with trio.move_on_after(0) as scope:
        await nobody.wait()
    assert scope.cancelled_caught
    nobody.take()
    nobody.connected()
    nobody.activate()
    nobody.close()
