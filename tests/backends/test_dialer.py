"""Connecting: once with the real errors, or again and again with growing delays."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_chardev.backends.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.backends.dialer import Backoff, Nobody, Redialer, connect
from trio_chardev.errors import BackendError


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


def test_delays_double_up_to_a_minute_with_jitter() -> None:
    backoff = Backoff(1.0, jitter=lambda: 0.0)
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert backoff.next() == 1
    assert Backoff(1.0, jitter=lambda: 1.0).next() == 1.5


def test_a_delay_of_more_than_a_minute_is_kept() -> None:
    backoff = Backoff(100.0, jitter=lambda: 0.0)
    assert [backoff.next() for _ in range(3)] == [100, 100, 100]


async def test_redialing_is_logged_once_until_a_success(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    failures = 0
    enough = trio.Event()

    def jitter() -> float:  # is asked for before each retry
        nonlocal failures
        failures += 1
        if failures % 3 == 0:
            enough.set()
        return 0.0

    redialer = Redialer("x", UnixAddress(str(path)), Backoff(0.001, jitter))
    caplog.set_level(logging.WARNING)
    for round_ in (1, 2):
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(redialer.wait)
                await enough.wait()
                enough = trio.Event()
                assert redialer.take() is None
                server = socket.socket(socket.AF_UNIX)
                server.bind(str(path))
                server.listen()
        path.unlink()
        server.close()
        assert [record.message for record in caplog.records] == round_ * [
            f"Unable to connect character device x: Failed to connect to '{path}': "
            "No such file or directory"
        ]
        sock = redialer.take()
        assert sock is not None
        redialer.connected()
        sock.close()
    redialer.close()


async def test_first_attempt_is_at_once_the_next_after_the_delay(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The clock is a fake, and the server is there: nothing waits for the kernel."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(5)
        redialer = Redialer("x", UnixAddress(path), Backoff(7.0, jitter=lambda: 0.0))
        await redialer.wait()
        assert trio.current_time() == 0
        first = redialer.take()
        await redialer.wait()
        assert trio.current_time() == 7
        second = redialer.take()  # and its handshakes fail, too
        await redialer.wait()
        assert trio.current_time() == 7 + 14
        third = redialer.take()
        redialer.connected()
        await redialer.wait()
        assert trio.current_time() == 21 + 7
        redialer.close()
        for sock in (first, second, third):
            assert sock is not None
            sock.close()


async def test_nobody_never_comes() -> None:
    nobody = Nobody()
    with trio.move_on_after(0) as scope:
        await nobody.wait()
    assert scope.cancelled_caught
    nobody.take()
    nobody.connected()
    nobody.activate()
    nobody.close()
