"""Listeners: how they give clients, how they share an address, and when accepting fails."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.disk import eventually, hang_in
from trio_chardev import files
from trio_chardev.backends.socket import listener as listener_module
from trio_chardev.backends.socket.addresses import (
    InetAddress,
    SocketAddress,
    UnixAddress,
)
from trio_chardev.backends.socket.listener import Listener
from trio_chardev.backends.socket.listening import listen
from trio_chardev.errors import BackendError


@asynccontextmanager
async def listening(
    address: SocketAddress, replaced: Listener | None = None
) -> AsyncIterator[Listener]:
    made = await listen(address, replaced)
    try:
        yield made
    finally:
        await made.remove_file()  # noqa: ASYNC102 - it shields itself
        made.close()


def port_of(listener: Listener) -> int:
    assert isinstance(listener.address, InetAddress)
    return int(listener.address.port)


def dial(listener: Listener) -> socket.socket:
    """A client of *listener*, which waits in its queue."""
    if isinstance(listener.address, InetAddress):
        return socket.create_connection((listener.address.host, port_of(listener)), timeout=5)
    assert isinstance(listener.address, UnixAddress)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    name = listener.address.path
    client.connect(f"\0{name}" if listener.address.abstract else name)
    return client


async def next_client(listener: Listener) -> socket.socket:
    with trio.fail_after(5):
        while True:
            await listener.wait()
            if (sock := listener.take()) is not None:
                return sock


# ---------------------------------------------------------------- TCP


async def test_clients_are_non_blocking_and_come_in_order() -> None:
    async with listening(InetAddress("127.0.0.1", "0")) as listener:
        assert listener.take() is None
        with dial(listener) as first, dial(listener) as second:
            for client in (first, second):
                with await next_client(listener) as peer:
                    assert peer.getpeername() == client.getsockname()
                    assert not peer.getblocking()
        assert listener.take() is None


@contextlib.contextmanager
def resolving_to(*hosts: str) -> Iterator[None]:
    def getaddrinfo(host: str, port: str, *args: object) -> list[object]:
        tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*tcp, (host, int(port))) for host in hosts]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


async def test_several_addresses_are_waited_for_together() -> None:
    with resolving_to("127.0.0.1", "127.0.0.2"):
        async with listening(InetAddress("board", "0")) as listener:
            for host in ("127.0.0.2", "127.0.0.1"):
                with socket.create_connection((host, port_of(listener)), timeout=5):
                    (await next_client(listener)).close()
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(listener.wait)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
async def test_closing_wakes_who_waits_and_leaves_no_descriptor(hosts: list[str]) -> None:
    before = os.listdir("/proc/self/fd")
    with resolving_to(*hosts):
        listener = await listen(InetAddress("board", "0"), None)
    woken = False

    async def wait() -> None:
        nonlocal woken
        with pytest.raises(trio.ClosedResourceError):
            await listener.wait()
        woken = True

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            listener.close()
    assert woken
    assert os.listdir("/proc/self/fd") == before


# ---------------------------------------------------------------- UNIX and vsock


async def test_backlog_lets_two_wait_as_qemus(tmp_path: Path) -> None:
    async with listening(UnixAddress(str(tmp_path / "s"))) as listener:
        with dial(listener), dial(listener), socket.socket(socket.AF_UNIX) as third:
            third.setblocking(False)
            assert third.connect_ex(str(tmp_path / "s")) == errno.EAGAIN
            (await next_client(listener)).close()
            assert third.connect_ex(str(tmp_path / "s")) == 0


@pytest.mark.parametrize("tight", [True, False])
async def test_abstract_names_need_no_file(tight: bool) -> None:
    name = f"trio-chardev-{secrets.token_hex(8)}"
    address = UnixAddress(name, abstract=True, tight=tight)
    async with listening(address) as listener:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"\0{name}" if tight else f"\0{name}".ljust(108, "\0"))
            (await next_client(listener)).close()
        assert name not in os.listdir()
        with pytest.raises(BackendError) as caught:
            await listen(address, None)
        assert str(caught.value) == f"Failed to bind socket to {name}: Address already in use"


async def test_an_abstract_listener_unlinks_no_file_of_that_name(tmp_path: Path) -> None:
    """QEMU does."""
    path = tmp_path / "precious"
    path.touch()
    async with listening(UnixAddress(str(path), abstract=True)):
        pass
    assert path.exists()


# ---------------------------------------------------------------- taking over


def same_address(kind: str, tmp_path: Path) -> SocketAddress:
    if kind == "path":
        return UnixAddress(str(tmp_path / "s"))
    if kind == "abstract":
        return UnixAddress(f"trio-chardev-{secrets.token_hex(8)}", abstract=True)
    return InetAddress("127.0.0.1", "0")


@pytest.mark.parametrize("kind", ["tcp", "abstract", "path"])
async def test_the_same_address_is_taken_over_at_the_commit(kind: str, tmp_path: Path) -> None:
    async with (
        listening(same_address(kind, tmp_path)) as old,
        listening(old.address, old) as new,
    ):
        assert new.is_taking_over
        assert new.address == old.address
        with dial(old), await next_client(old):
            pass  # until then they are the old one's
        new.activate()
        assert not new.is_taking_over
        with dial(new) as client:
            assert old.take() is None
            with await next_client(new) as peer:
                client.send(b"x")
                assert peer.recv(1) == b"x"
        old.close()
        with dial(new), await next_client(new):
            pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["tcp", "abstract", "path"])
async def test_a_change_that_fails_leaves_the_old_one_its_address(
    kind: str, tmp_path: Path
) -> None:
    async with listening(same_address(kind, tmp_path)) as old:
        async with listening(old.address, old):
            pass
        with dial(old), await next_client(old):
            pass
        assert os.listdir(tmp_path) == (["s"] if kind == "path" else [])


async def test_a_path_that_somebody_takes_before_the_commit_stays_his(tmp_path: Path) -> None:
    """As behind it: the commit looks at no disk. Who waited is served all the same."""
    path = tmp_path / "s"
    async with listening(UnixAddress(str(path))) as old, listening(old.address, old) as new:
        with dial(old) as client:
            path.unlink()
            path.write_bytes(b"somebody else's by now")
            new.activate()
            with await next_client(new) as peer:
                client.send(b"x")
                assert peer.recv(1) == b"x"
    assert path.read_bytes() == b"somebody else's by now"


async def test_a_path_of_which_the_socket_is_gone_is_bound_anew(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with listening(UnixAddress(str(path))) as old:
        path.unlink()
        async with listening(old.address, old) as new:
            assert not new.is_taking_over
            new.activate()
            await old.remove_file()
            with dial(new), await next_client(new):
                pass


@pytest.mark.parametrize("hangs", ["stat", "unlink"])
async def test_a_folder_that_hangs_holds_up_the_end_for_a_while_and_nobody_else(
    hangs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "CLOSE_TIMEOUT", 0.05)
    path = tmp_path / "s"
    listener = await listen(UnixAddress(str(path)), None)
    go, begun = hang_in(monkeypatch, hangs)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.remove_file)
            await eventually(begun.is_set)
        assert [record.message for record in caplog.records] == [
            f"socket {path}: its file takes longer than 0.05 s, and is left"
        ]
        listener.close()
        go.set()
        await eventually(lambda: not path.exists())


@pytest.mark.parametrize("kind", ["tcp", "abstract", "path"])
async def test_clients_in_a_shared_queue_survive_the_change(kind: str, tmp_path: Path) -> None:
    async with listening(same_address(kind, tmp_path)) as old:
        with dial(old) as client:
            client.send(b"early")
            async with listening(old.address, old) as new:
                new.activate()
                old.close()
                with await next_client(new) as peer:
                    assert peer.recv(10) == b"early"


async def test_one_that_was_replaced_waits_for_nobody(tmp_path: Path) -> None:
    """It may have been woken for a client just before the commit."""
    async with (
        listening(InetAddress("127.0.0.1", "0")) as old,
        listening(old.address, old) as new,
    ):
        with dial(old):
            await old.wait()
            new.activate()
            assert old.take() is None
            with trio.move_on_after(0.01) as scope:
                await old.wait()
            assert scope.cancelled_caught
            (await next_client(new)).close()


async def test_a_path_is_not_taken_over_from_another_chardev(tmp_path: Path) -> None:
    async with (
        listening(UnixAddress(str(tmp_path / "a"))) as old,
        listening(UnixAddress(str(tmp_path / "b"))),
    ):
        with pytest.raises(BackendError, match="somebody listens there"):
            await listen(UnixAddress(str(tmp_path / "b")), old)


# ---------------------------------------------------------------- trouble


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(2)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_descriptors_accepting_pauses_and_goes_on_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client stays in the queue, so that waiting for it alone would spin."""
    monkeypatch.setattr(listener_module, "ACCEPT_PAUSE", 0.03)
    async with listening(InetAddress("127.0.0.1", "0")) as listener:
        with dial(listener) as client:
            begun = trio.current_time()
            with no_descriptors_left():
                for _ in range(4):
                    await listener.wait()
                    assert listener.take() is None
            assert trio.current_time() - begun >= 3 * 0.03
            with await next_client(listener) as peer:
                assert peer.getpeername() == client.getsockname()
    assert [record.message for record in caplog.records] == [
        f"can't accept a client of tcp:127.0.0.1:{port_of(listener)}: "
        "[Errno 24] Too many open files"
    ]


async def test_no_descriptor_to_wait_for_two_sockets_is_an_error_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: int) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("select.epoll", fail)
    with resolving_to("127.0.0.1", "127.0.0.2"), pytest.raises(BackendError, match="Too many"):
        await listen(InetAddress("board", "0"), None)
