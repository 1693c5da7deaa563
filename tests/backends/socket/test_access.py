"""Which peers may use a monitor."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.certificates import client_certificate, peer_context, server_credentials
from tests.disk import eventually
from tests.services import until
from trio_chardev.backends.socket.access import Access, check_remote, is_loopback, peer_uid
from trio_chardev.backends.socket.addresses import FdAddress, InetAddress, UnixAddress, VsockAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.backends.stacked.mux import MuxOptions
from trio_chardev.backends.udp import UdpOptions
from trio_chardev.errors import BackendError, ChangeRefusedError, OptionsError
from trio_chardev.qmp.server import listener, monitor
from trio_chardev.service import Service, open_service

NOBODY = 65534
EVERYWHERE = InetAddress("0.0.0.0", "0")
LOCAL = InetAddress("127.0.0.1", "0")
EXPOSED = "needs TLS with 'verify-peer', a loopback address, or insecure=on"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be another user, for what is done in the block."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def abstract() -> UnixAddress:
    """A name that everybody of this machine can connect to."""
    return UnixAddress(f"trio-chardev-{secrets.token_hex(8)}", abstract=True)


def connected(address: UnixAddress) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(5)
    sock.connect(f"\0{address.path}")
    return sock


async def first_byte(sock: socket.socket) -> bytes:
    """Of the greeting; nothing if it is closed to us."""
    sock.setblocking(False)
    with trio.fail_after(5):
        return await trio.socket.from_stdlib_socket(sock).recv(1)


# ---------------------------------------------------------------- the rules


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("example.org", False),
    ],
)
def test_what_is_loopback(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local


def test_a_vsock_leads_to_other_machines() -> None:
    with pytest.raises(BackendError, match=EXPOSED):
        check_remote(VsockAddress("2", "1024"))


def test_our_own_user_may_and_another_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == os.geteuid()
        guard = Access("chardev 'm'")
        guard.check(ours)
        monkeypatch.setattr("trio_chardev.backends.socket.access.peer_uid", lambda sock: 12345)
        for _ in range(3):
            with pytest.raises(PermissionError, match="user 12345 may not use a monitor"):
                guard.check(ours)
    assert [r.message for r in caplog.records] == [
        "chardev 'm': user 12345 may not use a monitor; let go"
    ]


# ---------------------------------------------------------------- listeners for QMP


async def test_the_socket_file_is_ours_alone_from_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    listen = socket.socket.listen

    def note_mode(sock: socket.socket, *backlog: int) -> None:
        modes.append(stat.S_IMODE(os.stat(sock.getsockname()).st_mode))
        listen(sock, *backlog)

    monkeypatch.setattr(socket.socket, "listen", note_mode)
    before = os.umask(0)
    try:
        async with open_service() as service:
            await service.listen_qmp(SocketOptions(addr=UnixAddress(str(tmp_path / "q"))))
            await service.listen_qmp(
                SocketOptions(addr=UnixAddress(str(tmp_path / "open"))), insecure=True
            )
            assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o777
    finally:
        os.umask(before)
    assert modes == [0o600, 0o600, 0o777, 0o777]  # bound, and with the backlog for many


@pytest.mark.parametrize("insecure", [False, True])
async def test_another_user_is_let_go_without_a_greeting(insecure: bool) -> None:
    address = abstract()
    async with open_service() as service:
        await service.listen_qmp(SocketOptions(addr=address), insecure=insecure)
        with as_nobody():
            stranger = connected(address)
        with stranger, connected(address) as friend:
            assert await first_byte(stranger) == (b"{" if insecure else b"")
            assert await first_byte(friend) == b"{"


async def test_tcp_without_tls_stays_on_this_machine() -> None:
    async with open_service() as service:
        for options in (SocketOptions(addr=EVERYWHERE), SocketOptions(addr=InetAddress("", "0"))):
            with pytest.raises(BackendError, match=EXPOSED):
                await service.listen_qmp(options)
        await service.listen_qmp(SocketOptions(addr=LOCAL))
        await service.listen_qmp(SocketOptions(addr=EVERYWHERE), insecure=True)


async def test_tls_that_proves_who_comes_may_be_anywhere(tmp_path: Path) -> None:
    async with open_service() as service:
        service.registry.objects["open"] = server_credentials(tmp_path, verify_peer=False)
        with pytest.raises(BackendError, match=EXPOSED):
            await service.listen_qmp(SocketOptions(addr=EVERYWHERE, tls_creds="open"))
        service.registry.objects["tls"] = server_credentials(tmp_path)
        name = await service.listen_qmp(SocketOptions(addr=EVERYWHERE, tls_creds="tls"))
        port = int(name.rpartition(":")[2])
        with trio.fail_after(5):
            with pytest.raises((ssl.SSLError, trio.BrokenResourceError)):
                await greeted(port, peer_context(server=False))
            certificate = client_certificate()
            assert await greeted(port, peer_context(server=False, certificate=certificate)) == b"{"


async def greeted(port: int, context: ssl.SSLContext) -> bytes:
    """The first byte that a client with *context* reads. Raises SSLError, BrokenResourceError."""
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    async with trio.SSLStream(tcp, context, server_hostname="localhost") as stream:
        try:
            return bytes(await stream.receive_some(1))
        except trio.BrokenResourceError as exc:
            raise exc.__cause__ or exc from None


async def test_a_listener_without_its_credentials_does_not_begin(tmp_path: Path) -> None:
    async with open_service() as service:
        with pytest.raises(OptionsError, match="No TLS credentials with id 'tls'"):
            await service.listen_qmp(SocketOptions(addr=LOCAL, tls_creds="tls"))


# ---------------------------------------------------------------- monitors on chardevs


async def add_monitor(service: Service, addr: UnixAddress | InetAddress, **more: bool) -> None:
    await service.registry.add("m", SocketOptions(addr=addr))
    await service.add_monitor("m", **more)


async def test_a_monitor_narrows_the_socket_file_of_its_chardev(tmp_path: Path) -> None:
    async with open_service() as service:
        await add_monitor(service, UnixAddress(str(tmp_path / "m")))
        await eventually(lambda: stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o600)


@pytest.mark.parametrize("insecure", [False, True])
async def test_another_user_is_no_client_of_a_monitor(insecure: bool) -> None:
    address = abstract()
    async with open_service() as service:
        await add_monitor(service, address, insecure=insecure)
        with as_nobody():
            stranger = connected(address)
        with stranger:
            assert await first_byte(stranger) == (b"{" if insecure else b"")


async def test_one_who_came_before_the_monitor_is_dropped_with_what_he_said() -> None:
    address = abstract()
    async with open_service() as service:
        await service.registry.add("m", SocketOptions(addr=address))
        with as_nobody():
            stranger = connected(address)
        with stranger:
            stranger.send(b'{"execute": "qmp_capabilities"}{"execute": "quit"}')
            with trio.fail_after(5):
                await until(lambda: service.registry["m"].is_open)
            await service.add_monitor("m")
            assert await first_byte(stranger) == b""
        with connected(address) as friend:
            assert await first_byte(friend) == b"{"


@contextmanager
def from_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of TCP; each is told that the other is on another machine."""
    monkeypatch.setattr("trio_chardev.backends.socket.access.is_loopback", lambda host: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("insecure", [False, True])
async def test_a_peer_that_came_as_a_descriptor_is_looked_at_too(
    insecure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with from_elsewhere(monkeypatch) as (ours, theirs):
        async with open_service() as service:
            options = SocketOptions(addr=FdAddress(str(ours.detach())), server=False)
            await service.registry.add("m", options)
            if not insecure:
                with pytest.raises(BackendError, match=f"'127.0.0.1' {EXPOSED}"):
                    await service.add_monitor("m")
            else:
                await service.add_monitor("m", insecure=True)
                assert await first_byte(theirs) == b"{"


@pytest.mark.parametrize("insecure", [False, True])
async def test_a_peer_that_add_client_gives_is_looked_at_too(
    insecure: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with from_elsewhere(monkeypatch) as (ours, theirs):
        async with open_service() as service:
            await add_monitor(service, UnixAddress(str(tmp_path / "m")), insecure=insecure)
            backend = service.registry["m"].backend
            assert isinstance(backend, SocketBackend)
            if not insecure:
                with pytest.raises(BackendError, match="failed to add client"):
                    backend.add_client(ours)
                assert not backend.is_open
            else:
                backend.add_client(ours.dup())
                assert await first_byte(theirs) == b"{"


async def test_a_peer_who_proves_who_it_is_may_come_from_anywhere_however_it_came(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with from_elsewhere(monkeypatch) as (ours, theirs):
        async with open_service() as service:
            service.registry.objects["tls"] = server_credentials(tmp_path)
            options = SocketOptions(addr=UnixAddress(str(tmp_path / "m")), tls_creds="tls")
            await service.registry.add("m", options)
            await service.add_monitor("m")
            backend = service.registry["m"].backend
            assert isinstance(backend, SocketBackend)
            backend.add_client(ours.dup())
            context = peer_context(server=False, certificate=client_certificate())
            theirs.setblocking(False)
            stream = trio.SSLStream(
                trio.SocketStream(trio.socket.from_stdlib_socket(theirs.dup())),
                context,
                server_hostname="localhost",
            )
            with trio.fail_after(5):
                assert await stream.receive_some(1) == b"{"
            await trio.aclose_forcefully(stream)


async def test_a_monitor_on_tcp_stays_on_this_machine_also_behind_a_mux() -> None:
    async with open_service() as service:
        await service.registry.add("base", SocketOptions(addr=EVERYWHERE))
        await service.registry.add("mux", MuxOptions(chardev="base"))
        with pytest.raises(BackendError, match=EXPOSED):
            await service.add_monitor("mux")
        assert not service.registry["mux"].frontends
        await service.registry.add("udp", UdpOptions(remote=InetAddress("192.0.2.1", "9")))
        with pytest.raises(BackendError, match=EXPOSED):
            await service.add_monitor("udp")
        redialing = SocketOptions(addr=InetAddress("192.0.2.1", "9"), server=False, reconnect=60)
        await service.registry.add("client", redialing)
        with pytest.raises(BackendError, match=EXPOSED):
            await service.add_monitor("client")


async def test_what_a_monitor_stands_on_cannot_be_exposed_later(tmp_path: Path) -> None:
    async with open_service() as service:
        await service.registry.add("base", SocketOptions(addr=LOCAL))
        await service.registry.add("mux", MuxOptions(chardev="base"))
        await service.add_monitor("mux")
        with pytest.raises(ChangeRefusedError, match="does not support chardev hotswap"):
            await service.registry.change("mux", SocketOptions(addr=EVERYWHERE))
        before = service.registry["base"].backend
        with pytest.raises(BackendError, match=EXPOSED):
            await service.registry.change("base", SocketOptions(addr=EVERYWHERE))
        assert service.registry["base"].backend is before
        await service.registry.change("base", SocketOptions(addr=UnixAddress(str(tmp_path / "m"))))
        assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o600


# ---------------------------------------------------------------- those who say nothing


async def test_a_silent_client_gives_way_when_all_places_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "MAX_CLIENTS", 2)
    address = abstract()
    async with open_service() as service:
        await service.listen_qmp(SocketOptions(addr=address))
        with connected(address) as first, connected(address) as second:
            assert await first_byte(first) + await first_byte(second) == b"{{"
            with connected(address) as third:
                assert await first_byte(third) == b""  # they have had too little time
            monkeypatch.setattr(monitor, "SILENCE", 0.0)
            with connected(address) as third:
                assert await first_byte(third) == b"{"
            with trio.fail_after(5):
                while await trio.socket.from_stdlib_socket(first).recv(4096):
                    pass


async def test_a_silent_client_of_a_monitor_gives_way_when_another_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor, "SILENCE", 0.01)
    address = abstract()
    async with open_service() as service:
        await add_monitor(service, address)
        with connected(address) as first:
            assert await first_byte(first) == b"{"
            await trio.sleep(0.05)  # nobody else wants its place, so it may be silent
            first.sendall(b'{"execute": "nonsense"}')
            assert await first_byte(first) != b""
            with connected(address) as second:
                assert await first_byte(second) == b"{"


async def test_a_client_that_has_negotiated_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "SILENCE", 0.01)
    address = abstract()
    async with open_service() as service:
        await add_monitor(service, address)
        with connected(address) as first:
            first.sendall(b'{"execute": "qmp_capabilities"}')
            assert await first_byte(first) == b"{"
            with connected(address) as second:
                second.setblocking(False)
                with trio.move_on_after(0.05) as waited:
                    await trio.socket.from_stdlib_socket(second).recv(1)
                assert waited.cancelled_caught
