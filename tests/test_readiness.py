"""epoll without room costs only time: no chardev, no client, not the service."""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.services import until
from trio_chardev import readiness
from trio_chardev.backends.pty.pty import PtyBackend, PtyOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufBackend, RingbufOptions
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.core.handlers import stateless
from trio_chardev.devices.bridge import BridgeOptions
from trio_chardev.qmp.client.client import open_qmp_client
from trio_chardev.readiness import Shortage, wait_readable, wait_writable
from trio_chardev.registry import Registry, open_registry
from trio_chardev.service import open_service


@attrs.define
class Epoll:
    """Stands in for Trio's, until it has *room* again."""

    error: int = errno.ENOSPC
    has_room: bool = False
    attempts: int = 0

    def wait(self, real: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        async def wait(file: Any) -> None:
            self.attempts += 1
            if not self.has_room:
                raise OSError(self.error, os.strerror(self.error))
            await real(file)

        return wait


@pytest.fixture(params=[errno.ENOSPC, errno.ENOMEM], ids=["ENOSPC", "ENOMEM"])
def full(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Epoll:
    """Trio's epoll, which has no room."""
    epoll = Epoll(request.param)
    for name in ("wait_readable", "wait_writable"):
        monkeypatch.setattr(trio.lowlevel, name, epoll.wait(getattr(trio.lowlevel, name)))
    monkeypatch.setattr(readiness, "LONGEST_PAUSE", 0.01)
    return epoll


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


Ends = tuple[socket.socket, socket.socket]


async def test_what_comes_is_noticed_and_the_trouble_is_told_of_once(
    full: Epoll, ends: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(5):
        for data in (b"a", b"b"):
            async with trio.open_nursery() as nursery:
                before = full.attempts
                nursery.start_soon(wait_readable, ends[0])
                await until(lambda before=before: full.attempts > before)  # type: ignore[misc]
                assert len(nursery.child_tasks) == 1
                ends[1].send(data)
            assert ends[0].recv(1) == data
        await wait_writable(ends[0])
    assert [record.message for record in caplog.records] == [
        f"epoll has no room ([Errno {full.error}] {os.strerror(full.error)}): "
        "what has none is looked at now and then"
    ]


async def test_it_is_tried_again(full: Epoll, ends: Ends) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_readable, ends[0])
            await until(lambda: full.attempts > 2)
            full.has_room = True
            attempts = full.attempts
            await until(lambda: full.attempts > attempts)
            ends[1].send(b"a")
    assert full.attempts == attempts + 1


async def test_one_that_was_closed_meanwhile_is_not_taken_for_another(full: Epoll) -> None:
    one, other = socket.socketpair()
    number = one.fileno()
    readable = os.open("/dev/zero", os.O_RDONLY)
    was_told = trio.Event()

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wait_readable(one)
        was_told.set()

    with other, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until(lambda: full.attempts > 0)
            one.close()
            assert os.dup2(readable, number) == number
            await was_told.wait()
    os.close(number)
    os.close(readable)


async def test_a_closed_epoll_is_told_as_a_closed_socket_is() -> None:
    epoll = select.epoll()
    epoll.close()
    with pytest.raises(trio.ClosedResourceError):
        await wait_readable(epoll)


async def test_other_errors_are_the_callers(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w") as file, pytest.raises(PermissionError):
        await wait_readable(file)


async def test_to_wait_twice_is_a_bug_as_ever(ends: Ends) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_readable, ends[0])
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await wait_readable(ends[0])
        nursery.cancel_scope.cancel()


# ---------------------------------------------------------------- what uses it


async def echoed(registry: Registry, id: str, send: Callable[[bytes], object]) -> None:
    """What *send* sends to *id* comes to its user, who has it back."""
    frontend = registry[id].attach(be_change=stateless)
    send(b"there")
    assert await frontend.receive_some() == b"there"
    await frontend.send_all(b"and back")
    await frontend.aclose()


async def test_a_pty_goes_on(full: Epoll) -> None:
    with trio.fail_after(10):
        async with open_registry() as registry:
            await registry.add("p", PtyOptions())
            backend = registry["p"].backend
            assert isinstance(backend, PtyBackend)
            user = os.open(backend.pty, os.O_RDWR | os.O_NOCTTY)
            await echoed(registry, "p", lambda data: os.write(user, data))
            os.set_blocking(user, False)
            read = b""
            while read != b"and back":
                try:
                    read += os.read(user, 100)
                except BlockingIOError:
                    await trio.sleep(0.001)
            os.close(user)
            await until(lambda: not registry["p"].is_open)


async def test_whoever_cannot_be_told_of_opens_looks_for_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is that the wait for inotify fails with, it is no error of a system task."""

    real = trio.lowlevel.wait_readable

    async def fail(file: Any) -> None:
        await trio.lowlevel.checkpoint()
        monkeypatch.setattr(trio.lowlevel, "wait_readable", real)
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(trio.lowlevel, "wait_readable", fail)
    with trio.fail_after(5):
        async with open_registry() as registry:
            await registry.add("p", PtyOptions())
            backend = registry["p"].backend
            assert isinstance(backend, PtyBackend)
            await until(lambda: "opens of PTYs are looked for now and then: " in caplog.text)
            user = os.open(backend.pty, os.O_RDWR | os.O_NOCTTY)
            await until(lambda: registry["p"].is_open)
            os.close(user)


@pytest.mark.parametrize("where", ["unix", "tcp", "both families"])
async def test_a_server_and_its_clients_go_on(full: Epoll, where: str, tmp_path: Path) -> None:
    addresses: dict[str, SocketAddress] = {
        "unix": UnixAddress(str(tmp_path / "s")),
        "tcp": InetAddress("127.0.0.1", "0"),
    }
    options = SocketOptions(addr=addresses.get(where, InetAddress("localhost", "0")), wait=False)
    with trio.fail_after(10):
        async with open_registry() as registry:
            await registry.add("s", options)
            backend = registry["s"].backend
            assert isinstance(backend, SocketBackend)
            for _ in range(2):
                stream = await connect(backend.address)
                with stream:
                    await echoed(registry, "s", stream.send)
                    stream.setblocking(True)
                    assert await trio.to_thread.run_sync(stream.recv, 100) == b"and back"
                await until(lambda: not registry["s"].is_open)


async def connect(address: object) -> socket.socket:
    if isinstance(address, UnixAddress):
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(address.path)
        return stream
    assert isinstance(address, InetAddress)
    return socket.create_connection((address.host, int(address.port)))


async def test_a_client_connects_and_goes_on(full: Epoll) -> None:
    with trio.fail_after(10), socket.create_server(("127.0.0.1", 0)) as server:
        async with open_registry() as registry:
            addr = InetAddress("127.0.0.1", str(server.getsockname()[1]))
            await registry.add("c", SocketOptions(addr=addr, server=False))
            with server.accept()[0] as peer:
                await echoed(registry, "c", peer.send)


async def test_a_qmp_listener_goes_on(
    full: Epoll, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose clients here use the same epoll."""
    with trio.fail_after(10):
        async with open_service() as service:
            await service.listen_qmp(SocketOptions(addr=UnixAddress(str(tmp_path / "q"))))
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(tmp_path / "q"))
            with sock:
                assert b"QMP" in await trio.to_thread.run_sync(sock.recv, 1000)


async def test_a_listener_that_cannot_be_waited_for_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trio_chardev.backends.socket.listener.ACCEPT_PAUSE", 0.01)
    real = trio.lowlevel.wait_readable
    failing = 3

    async def fail_at_first(file: Any) -> None:
        nonlocal failing
        if isinstance(file, int) and failing and is_listening(file):
            failing -= 1
            await trio.lowlevel.checkpoint()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        await real(file)

    monkeypatch.setattr(trio.lowlevel, "wait_readable", fail_at_first)
    with trio.fail_after(10):
        async with open_service() as service:
            await service.listen_qmp(SocketOptions(addr=UnixAddress(str(tmp_path / "q"))))
            async with open_qmp_client(tmp_path / "q") as qmp:
                assert await qmp.execute("query-chardev") == []
    assert not failing
    assert caplog.text.count("can't accept a client of ") == 1


def is_listening(fd: int) -> bool:
    with socket.socket(fileno=os.dup(fd)) as sock:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


async def test_a_bridge_moves_all_that_comes(full: Epoll, tmp_path: Path) -> None:
    data = bytes(range(256)) * 2000
    with trio.fail_after(20):
        async with open_registry() as registry:
            await registry.add(
                "s", SocketOptions(addr=UnixAddress(str(tmp_path / "s")), wait=False)
            )
            await registry.add("r", RingbufOptions(size=1 << 20))
            registry.devices.add(BridgeOptions(id="b", chardev="s", peer="r"))
            ring = registry["r"].backend
            assert isinstance(ring, RingbufBackend)
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(str(tmp_path / "s"))
                await trio.to_thread.run_sync(peer.sendall, data)
                await until(lambda: ring.count == len(data))
                assert ring.read(1 << 20) == data


# ---------------------------------------------------------------- no memory


async def test_no_memory_is_as_if_it_would_block_for_a_second(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    shortage = Shortage()
    shortage.meet(OSError(errno.EPIPE, "the end"), "x")
    assert not shortage.is_met
    begin = trio.current_time()
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            shortage.meet(OSError(errno.ENOBUFS, "no buffers"), "x")
        assert shortage.is_met
        await shortage.wait()
        assert not shortage.is_met
    assert trio.current_time() - begin == 2 * readiness.RETRY_INTERVAL
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, "x: [Errno 105] no buffers; trying again each second")
    ]
