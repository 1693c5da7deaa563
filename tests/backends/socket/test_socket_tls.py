"""The socket backend under TLS: who is served, what is reported and counted, and real peers."""

from __future__ import annotations

import functools
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.certificates import (
    client_certificate,
    client_credentials,
    peer_context,
    server_certificate,
    server_credentials,
    unreadable_certificate,
    write_folder,
)
from tests.peers import need
from tests.steps import steps
from trio_chardev.access.authz import AuthzList, AuthzSimple
from trio_chardev.access.credentials import TlsCredentials
from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.socket import handshaking as handshaking
from trio_chardev.backends.socket.addresses import (
    FdAddress,
    InetAddress,
    SocketAddress,
    UnixAddress,
    VsockAddress,
)
from trio_chardev.backends.socket.codec import RECORD_SIZE
from trio_chardev.backends.socket.layer import Layer
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions, open_socket
from trio_chardev.backends.table import opener_of
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.environment import Environment
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    NotSupportedError,
    OptionsError,
)
from trio_chardev.events import BackendEvent, Event
from trio_chardev.testing import CancelAtStep, Pair, check_backend
from trio_chardev.testing.pair import receive_some

OPENED, CLOSED = Event.OPENED, Event.CLOSED
LOOPBACK = InetAddress("127.0.0.1", "0")
SMALL_BUFFER = 4096  # bytes; so that a sender is soon stuck


@pytest.fixture
def server(tmp_path: Path) -> TlsCredentials:
    """Anybody may come."""
    return server_credentials(tmp_path, verify_peer=False)


def request(
    objects: dict[str, object] | None = None, events: list[BackendEvent] | None = None
) -> OpenRequest:
    on_event = (events if events is not None else []).append
    return OpenRequest(id="x", on_event=on_event, environment=Environment(objects=objects or {}))


@asynccontextmanager
async def opened(
    objects: dict[str, object], addr: SocketAddress = LOOPBACK, **options: Any
) -> AsyncIterator[tuple[SocketBackend, list[BackendEvent]]]:
    events: list[BackendEvent] = []
    with trio.fail_after(10):
        socket_options = SocketOptions(addr=addr, tls_creds="tls", **options)
        async with open_socket(socket_options, request(objects, events)) as backend:
            assert isinstance(backend, SocketBackend)
            backend.activate()
            yield backend, events


@asynccontextmanager
async def reading(backend: Backend) -> AsyncIterator[bytearray]:
    """A task that reads all the time, as a chardev's does."""
    got = bytearray()

    async def read() -> None:
        while True:
            got.extend(await receive_some(backend, 4096))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        yield got
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


def dial(backend: Backend) -> socket.socket:
    assert isinstance(backend, SocketBackend)
    address = backend.address
    if isinstance(address, UnixAddress):
        client = socket.socket(socket.AF_UNIX)
        client.connect(address.path)
    else:
        assert isinstance(address, InetAddress)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        client.connect((address.host, int(address.port)))
    client.setblocking(False)
    return client


def over_tls(
    sock: socket.socket, context: ssl.SSLContext, *, server: bool = False
) -> trio.SSLStream[trio.SocketStream]:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    name = None if server else "localhost"
    return trio.SSLStream(stream, context, server_hostname=name, server_side=server)


@asynccontextmanager
async def client_of(
    backend: Backend, context: ssl.SSLContext | None = None
) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    stream = over_tls(dial(backend), context or peer_context(server=False))
    try:
        await stream.do_handshake()
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


# ---------------------------------------------------------------- options


@pytest.fixture
def objects(tmp_path: Path) -> dict[str, object]:
    return {
        "server": server_credentials(tmp_path / "s"),
        "client": client_credentials(tmp_path / "c"),
        "lax": server_credentials(tmp_path / "l", verify_peer=False),
        "list": AuthzList(id="o"),
    }


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tls_creds": "nosuch"}, "No TLS credentials with id 'nosuch'"),
        ({"tls_creds": ""}, "No TLS credentials with id ''"),
        ({"tls_creds": "list"}, "Object with id 'list' is not TLS credentials"),
        ({"tls_creds": "client"}, "Expected TLS credentials for a server endpoint"),
        (
            {"tls_creds": "server", "server": False},
            "Expected TLS credentials for a client endpoint",
        ),
        (
            {"tls_creds": "nosuch", "addr": FdAddress("3"), "reconnect": 1},
            "No TLS credentials with id 'nosuch'",
        ),
        (
            {"tls_creds": "client", "server": False, "addr": FdAddress("3"), "reconnect": 1},
            "'reconnect' option is incompatible with 'fd' address type",
        ),
        (
            {"tls_creds": "client", "server": False, "addr": FdAddress("3")},
            "'tls_creds' option is incompatible with 'fd' address type as client",
        ),
        (
            {"tls_creds": "server", "addr": VsockAddress("1", "2"), "reconnect": 1},
            "'tls_creds' option is incompatible with 'vsock' address type",
        ),
        (
            {"tls_authz": "list", "reconnect": 1},
            "'tls_authz' option requires 'tls_creds' option",
        ),
        (
            {"tls_authz": "list", "tls_creds": "lax"},
            "'tls_authz' option requires 'tls_creds' with 'verify-peer'",
        ),
        (
            {"tls_creds": "server", "reconnect": 1},
            "'reconnect' option is incompatible with socket in server listen mode",
        ),
        ({"binary_only": True}, "'binary-only' option requires 'websocket' option"),
        ({"ws_path": "/"}, "'ws-path' option requires 'websocket' option"),
        (
            {"ws_path": "x", "websocket": True},
            "'ws-path' must be a path such as '/websockify'",
        ),
        (
            {"ws_path": "/?x", "websocket": True},
            "'ws-path' must be a path such as '/websockify'",
        ),
        (
            {"ws_path": "x?y", "websocket": True, "server": False},
            "'ws-path' must be a path, perhaps with a query, such as '/websockify'",
        ),
        ({"origins": ("*",)}, "'origins' option requires 'websocket' option of a server"),
        (
            {"origins": ("*", "console.example"), "websocket": True},
            "'origins': 'console.example' is none, such as 'https://console.example'",
        ),
    ],
)
async def test_options_are_refused_in_qemus_words(
    objects: dict[str, object], options: dict[str, Any], error: str
) -> None:
    socket_options = SocketOptions(**{"addr": LOOPBACK, **options})
    with pytest.raises(OptionsError) as caught:
        async with open_socket(socket_options, request(objects)):
            pass
    assert str(caught.value) == error


# ---------------------------------------------------------------- a server


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_server_reports_a_client_after_its_handshake(
    server: TlsCredentials, tmp_path: Path, kind: str
) -> None:
    addr = LOOPBACK if kind == "tcp" else UnixAddress(str(tmp_path / "socket"))
    async with opened({"tls": server}, addr) as (backend, events), reading(backend) as got:
        sock = dial(backend)
        await until(lambda: len(backend.entrance.newcomers) == 1)
        assert events == []
        assert backend.filename == f"disconnected:{backend.address.name},server=on"
        stream = over_tls(sock, peer_context(server=False))
        await stream.send_all(b"hello")
        await until(lambda: got == b"hello")
        assert events == [OPENED]
        assert backend.filename.startswith(f"{backend.address.name},server=on")
        await backend.send_some(memoryview(b"there"))
        assert await stream.receive_some() == b"there"
        await stream.send_all(b", bye")
        await stream.aclose()
        await until(lambda: events == [OPENED, CLOSED])
        assert got == b"hello, bye"


async def test_failed_handshake_is_no_event_and_the_next_is_served(server: TlsCredentials) -> None:
    async with opened({"tls": server}) as (backend, events), reading(backend) as got:
        with dial(backend) as bad, dial(backend) as gone:  # the queue has room for two
            bad.send(b"GET / HTTP/1.1\r\n\r\n")
            gone.close()
            await trio.lowlevel.wait_readable(bad)
        async with client_of(backend) as stream:
            await stream.send_all(b"x")
            await until(lambda: got == b"x")
            assert events == [OPENED]


SAN, CDP, AIA = "2.5.29.17", "2.5.29.31", "1.3.6.1.5.5.7.1.1"
NO_TEXT = b"http://\xff\xfe"


def der(tag: int, value: bytes) -> bytes:
    assert len(value) < 128
    return bytes((tag, len(value))) + value


UNREADABLE = {
    "san": (SAN, der(0x30, der(0x82, NO_TEXT))),
    "cdp": (CDP, der(0x30, der(0x30, der(0xA0, der(0xA0, der(0x86, NO_TEXT)))))),
    "aia": (AIA, der(0x30, der(0x30, bytes.fromhex("06082b06010505073001") + der(0x86, NO_TEXT)))),
}


@pytest.mark.parametrize("where", UNREADABLE)
async def test_a_certificate_that_is_no_text_ends_who_has_it_and_the_next_is_served(
    where: str, tmp_path: Path
) -> None:
    everybody = AuthzList(id="who", policy="allow").create({})
    objects = {"tls": server_credentials(tmp_path), "who": everybody}
    context = peer_context(server=False, certificate=unreadable_certificate(*UNREADABLE[where]))
    good = peer_context(server=False, certificate=client_certificate())
    async with opened(objects, tls_authz="who") as (backend, _), reading(backend):
        with dial(backend) as sock:
            stream = over_tls(sock, context)
            with suppress(trio.BrokenResourceError):
                await stream.do_handshake()
                assert await stream.receive_some() == b""
        async with client_of(backend, good) as stream:
            await stream.do_handshake()
            await until(lambda: backend.is_open)


async def test_slow_handshake_is_ended(
    server: TlsCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshaking, "HANDSHAKE_TIMEOUT", 0.02)
    async with opened({"tls": server}) as (backend, events), reading(backend):
        with dial(backend) as slow:
            await trio.lowlevel.wait_readable(slow)
            assert slow.recv(10) == b""
        assert events == []


async def test_slow_handshake_keeps_nobody_out(server: TlsCredentials) -> None:
    async with opened({"tls": server}) as (backend, events), reading(backend) as got:
        with dial(backend) as slow:
            await until(lambda: len(backend.entrance.newcomers) == 1)
            async with client_of(backend) as stream:
                await stream.send_all(b"x")
                await until(lambda: got == b"x")
                assert events == [OPENED]
            await until(lambda: events == [OPENED, CLOSED])
            late = over_tls(slow.dup(), peer_context(server=False))  # it wakes up at last
            await late.send_all(b"y")
            await until(lambda: got == b"xy")
            await trio.aclose_forcefully(late)


async def test_handshake_goes_on_in_spite_of_cancelled_readers(server: TlsCredentials) -> None:
    async with opened({"tls": server}) as (backend, events), trio.open_nursery() as nursery:

        async def be_client() -> None:
            async with client_of(backend) as stream:
                await stream.send_all(b"x")
                await stream.receive_some()

        nursery.start_soon(be_client)
        data = b""
        while not data:
            with trio.move_on_after(0.0005):
                data = await receive_some(backend, 10)
        assert data == b"x"
        nursery.cancel_scope.cancel()
    assert events == [OPENED]


async def test_unread_input_comes_before_closed(server: TlsCredentials) -> None:
    """Also when the peer writes and leaves at once, and the frontend is slow."""
    async with opened({"tls": server}) as (backend, events):
        async with trio.open_nursery() as nursery:

            async def write_and_leave() -> None:
                async with client_of(backend) as stream:
                    await stream.send_all(bytes(range(100)))
                    await stream.aclose()

            nursery.start_soon(write_and_leave)
            got = await receive_some(backend, 1)
        while len(got) < 100:
            assert events == [OPENED]
            got += await receive_some(backend, 7)
        assert got == bytes(range(100))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_some, backend, 7)
            await until(lambda: events == [OPENED, CLOSED])
            nursery.cancel_scope.cancel()


async def connect_soon(path: str) -> socket.socket:
    """Connect as soon as a server listens at *path*: a thread makes the file before that."""
    with trio.fail_after(5):
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                await trio.sleep(0.001)
            else:
                sock.setblocking(False)
                return sock


async def test_wait_opens_with_the_first_handshake(server: TlsCredentials, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def be_client() -> None:
        for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), peer_context(server=False)):
            stream = over_tls(await connect_soon(path), context)
            try:
                with suppress(trio.BrokenResourceError):  # the first knows no authority
                    await stream.receive_some()
            finally:
                await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_client)
        async with opened({"tls": server}, UnixAddress(path), wait=True) as (backend, events):
            assert events == [OPENED]
            assert backend.is_open
        nursery.cancel_scope.cancel()


async def test_added_client_shakes_hands_too(server: TlsCredentials) -> None:
    async with opened({"tls": server}, FdAddress("")) as (backend, events), reading(backend) as got:
        await trio.testing.wait_all_tasks_blocked()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        silent, its_peer = socket.socketpair()
        backend.add_client(silent)
        backend.add_client(ours)
        assert events == []
        stream = over_tls(theirs, peer_context(server=False))
        await stream.send_all(b"x")
        await until(lambda: got == b"x")
        assert events == [OPENED]
        refused = pytest.raises(BackendError, match="failed to add client")
        with its_peer, its_peer.dup() as other, refused:
            backend.add_client(other)
        with pytest.raises(NotSupportedError, match="can't pass file descriptors"):
            backend.peer.send_fds([0])
        await trio.aclose_forcefully(stream)


async def test_disconnect_is_a_goodbye(server: TlsCredentials) -> None:
    async with (
        opened({"tls": server}) as (backend, events),
        reading(backend) as got,
        client_of(backend) as stream,
    ):
        await stream.send_all(b"x")
        await until(lambda: got == b"x")
        backend.peer.disconnect()
        assert await stream.receive_some() == b""  # else it were a BrokenResourceError
        with pytest.raises(BackendDisconnectedError):
            await backend.send_some(memoryview(b"x"))
        await until(lambda: events == [OPENED, CLOSED])


async def test_disconnect_ends_a_handshake(server: TlsCredentials) -> None:
    async with opened({"tls": server}) as (backend, events), reading(backend):
        with dial(backend) as sock:
            await until(lambda: len(backend.entrance.newcomers) == 1)
            backend.peer.disconnect()
            await until(lambda: len(backend.entrance.newcomers) == 0)
            assert sock.recv(10) == b""
    assert events == []


async def test_who_may_is_looked_up_for_each_client(tmp_path: Path) -> None:
    objects: dict[str, object] = {"tls": server_credentials(tmp_path)}
    certificate = client_certificate()
    context = peer_context(server=False, certificate=certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # the server speaks last
    subject = certificate_subject(certificate.cert_chain_pems[0].bytes(), tmp_path)
    async with opened(objects, tls_authz="who") as (backend, events), reading(backend) as got:
        for who in (None, AuthzList(id="o"), "nobody", AuthzSimple(id="o", identity=f"{subject}x")):
            objects["who"] = who
            async with client_of(backend, context) as stream:
                assert await stream.receive_some() == b""
        del objects["who"]
        async with client_of(backend, context) as stream:
            assert await stream.receive_some() == b""
        assert events == []
        objects["who"] = AuthzSimple(id="o", identity=subject)
        async with client_of(backend, context) as stream:
            await stream.send_all(b"x")
            await until(lambda: got == b"x")


def certificate_subject(pem: bytes, folder: Path) -> str:
    """As openssl spells it, in the order of the certificate."""
    path = folder / "subject.pem"
    path.write_bytes(pem)
    command = [need("openssl"), "x509", "-noout", "-subject", "-in", str(path)]
    command += ["-nameopt", "esc_2253,utf8,sep_comma_plus,sname"]
    output = subprocess.check_output(command, text=True)
    return output.removeprefix("subject=").strip()


# ---------------------------------------------------------------- a client


@contextmanager
def listening() -> Iterator[tuple[socket.socket, InetAddress]]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock, InetAddress("localhost", str(sock.getsockname()[1]), ipv4=True)


async def accept(sock: socket.socket) -> socket.socket:
    await trio.lowlevel.wait_readable(sock)
    peer, _ = sock.accept()
    peer.setblocking(False)
    return peer


@pytest.mark.parametrize("reconnect_ms", [None, 60_000])
async def test_client_is_connected_after_the_handshake(
    tmp_path: Path, reconnect_ms: int | None
) -> None:
    objects: dict[str, object] = {"tls": client_credentials(tmp_path, client_certificate())}
    context = peer_context(server=True)
    context.verify_mode = ssl.CERT_REQUIRED
    with listening() as (sock, addr):

        async def serve() -> None:
            stream = over_tls(await accept(sock), context, server=True)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"there"
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            options = {"server": False, "reconnect_ms": reconnect_ms}
            async with opened(objects, addr, **options) as (backend, events):
                assert events == ([OPENED] if reconnect_ms is None else [])
                async with reading(backend) as got:
                    await until(lambda: got == b"hello")
                    assert events == [OPENED]
                    await backend.send_some(memoryview(b"there"))
                    await until(lambda: events == [OPENED, CLOSED])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_that_dials_again_says_that_its_certificate_was_refused(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """In TLS 1.3 the client's handshake is over when it is told that."""
    objects: dict[str, object] = {"tls": client_credentials(tmp_path)}
    context = peer_context(server=True)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    with listening() as (sock, addr):

        def refuse(peer: socket.socket) -> None:  # Trio's stream would not say why
            peer.settimeout(5)
            with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"), peer:
                context.wrap_socket(peer, server_side=True)

        async def serve() -> None:
            await trio.to_thread.run_sync(refuse, await accept(sock))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with (
                opened(objects, addr, server=False, reconnect_ms=60_000) as (backend, _),
                reading(backend),
            ):
                await until(lambda: backend.peer.outlook.last_error is not None)
                assert "alert" in (backend.peer.outlook.last_error or "")
                assert backend.peer.outlook.next_try is not None


async def test_client_does_not_open_with_a_server_of_another_name(tmp_path: Path) -> None:
    objects: dict[str, object] = {"tls": client_credentials(tmp_path)}
    with listening() as (sock, addr):
        addr = InetAddress("127.0.0.2", addr.port)
        with socket.create_server(("127.0.0.2", int(addr.port))) as sock:
            sock.setblocking(False)

            async def serve() -> None:
                stream = over_tls(await accept(sock), peer_context(server=True), server=True)
                with pytest.raises(trio.BrokenResourceError):
                    await stream.do_handshake()
                await trio.aclose_forcefully(stream)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve)
                with pytest.raises(BackendError) as caught:
                    async with opened(objects, addr, server=False):
                        pass
    assert str(caught.value) == (
        f"Failed to connect to '{addr}': TLS handshake failed: "
        "IP address mismatch, certificate is not valid for '127.0.0.2'."
    )


async def test_client_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshaking, "HANDSHAKE_TIMEOUT", 0.02)
    objects: dict[str, object] = {"tls": client_credentials(tmp_path)}
    with listening() as (_, addr), pytest.raises(BackendError) as caught:
        async with opened(objects, addr, server=False):
            pass
    assert str(caught.value) == f"Failed to connect to '{addr}': no handshake in 0.02 seconds"


async def test_client_on_a_unix_socket_needs_no_name(tmp_path: Path) -> None:
    objects: dict[str, object] = {"tls": client_credentials(tmp_path)}
    path = str(tmp_path / "peer")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        sock.setblocking(False)

        async def serve() -> None:
            stream = over_tls(await accept(sock), peer_context(server=True), server=True)
            await stream.send_all(b"x")
            await trio.aclose_forcefully(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            async with opened(objects, UnixAddress(path), server=False) as (backend, events):
                assert events == [OPENED]
                assert await receive_some(backend, 1) == b"x"


# ---------------------------------------------------------------- what is counted


async def test_what_was_counted_is_sent_though_nobody_reads_or_writes(
    server: TlsCredentials,
) -> None:
    async with opened({"tls": server}) as (backend, _), trio.open_nursery() as nursery:

        async def let_in() -> None:
            while not backend.is_open:
                await backend.wait_readable()

        nursery.start_soon(let_in)
        async with client_of(backend) as stream:
            await until(lambda: backend.is_open)
            sent = 0
            while more := backend.send_nowait(memoryview(bytes(50_000))):
                sent += more
            link = backend.there.link
            assert link is not None
            assert isinstance(link, Layer)
            while not link.unsent:  # as with a kernel that is short of memory
                link._unsent += link._codec.encode(bytes(RECORD_SIZE))
                link.flush()
                sent += RECORD_SIZE
            assert backend.send_nowait(memoryview(b"x")) == 0
            got = 0
            while got < sent:
                got += len(await stream.receive_some())
            assert not link.unsent


Open = Callable[[OpenRequest], AbstractAsyncContextManager[Backend]]


@asynccontextmanager
async def chardev_on(opener: Open) -> AsyncIterator[Chardev]:
    chardev = Chardev("x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(chardev.run)
        try:
            await chardev.open(opener, timeout=5)
            yield chardev
        finally:
            await chardev.aclose()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_change_under_a_writer_cancelled_at_any_step_loses_no_byte(
    server: TlsCredentials, tmp_path: Path, when: str
) -> None:
    """What was written comes to the old peer, that reads late, or to the new one, in order."""
    data = bytes(range(256)) * 3000
    address, new = UnixAddress(str(tmp_path / "socket")), tmp_path / "new"
    options = SocketOptions(addr=address, tls_creds="tls")

    def open_old(asked: OpenRequest) -> AbstractAsyncContextManager[Backend]:
        return open_socket(
            options, attrs.evolve(asked, environment=Environment(objects={"tls": server}))
        )

    for k in steps(100, share=when == "after", shares=3):
        new.unlink(missing_ok=True)
        async with chardev_on(open_old) as chardev, client_of(chardev.backend) as stream:
            await until(functools.partial(_is_open, chardev))
            frontend = chardev.attach(be_change=_no_set_up)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(frontend.send_all, data)
                await trio.testing.wait_all_tasks_blocked()
                injector = await _change_and_cancel(chardev, new, k, when)
                got = bytearray()
                with trio.fail_after(5):
                    while len(got) < len(data) and (more := await stream.receive_some()):
                        got += more
        kept = new.read_bytes() if new.exists() else b""
        assert got
        assert bytes(got) + kept == data, f"step {k}"
        if not injector.fired:
            break
    assert kept
    assert k > 5


def _is_open(chardev: Chardev) -> bool:
    return chardev.is_open


async def _no_set_up(backend: Controls) -> None:
    await trio.lowlevel.checkpoint()


async def _change_and_cancel(chardev: Chardev, new: Path, k: int, when: str) -> CancelAtStep:
    with trio.CancelScope() as scope:
        injector = CancelAtStep(k, when, scope)
        trio.lowlevel.add_instrument(injector)
        injector.armed = True
        try:
            await chardev.change(opener_of(FileOptions(out=str(new))), timeout=5)
        finally:
            trio.lowlevel.remove_instrument(injector)
    return injector


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_contract_of_a_server(server: TlsCredentials, tmp_path: Path, kind: str) -> None:
    addr = LOOPBACK if kind == "tcp" else UnixAddress(str(tmp_path / "socket"))
    options = SocketOptions(addr=addr, tls_creds="tls")

    async def join(backend: Backend) -> trio.abc.AsyncResource:
        stream = over_tls(dial(backend), peer_context(server=False))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.do_handshake)
            while not backend.is_open:
                await backend.wait_readable()
        return stream

    @asynccontextmanager
    async def open_pair() -> AsyncIterator[Pair]:
        def open_it(asked: OpenRequest) -> AbstractAsyncContextManager[Backend]:
            return open_socket(
                options, attrs.evolve(asked, environment=Environment(objects={"tls": server}))
            )

        yield Pair(open=open_it, join=join)

    await check_backend(open_pair)


async def test_contract_of_a_client(tmp_path: Path) -> None:
    credentials = client_credentials(tmp_path)

    @asynccontextmanager
    async def open_pair() -> AsyncIterator[Pair]:
        send, receive = trio.open_memory_channel[trio.abc.AsyncResource](1)
        with listening() as (sock, addr):

            async def serve(*, task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                stream = over_tls(await accept(sock), peer_context(server=True), server=True)
                await stream.do_handshake()
                await send.send(stream)

            async def join(backend: Backend) -> trio.abc.AsyncResource:
                return await receive.receive()

            @asynccontextmanager
            async def open_it(asked: OpenRequest) -> AsyncIterator[Backend]:
                options = SocketOptions(addr=addr, tls_creds="tls", server=False)
                with_objects = attrs.evolve(
                    asked, environment=Environment(objects={"tls": credentials})
                )
                try:
                    async with open_socket(options, with_objects) as backend:
                        yield backend
                finally:
                    with suppress(trio.WouldBlock):  # whom nobody has joined
                        await trio.aclose_forcefully(receive.receive_nowait())

            async with trio.open_nursery() as nursery:
                await nursery.start(serve)
                yield Pair(open=open_it, join=join)
                nursery.cancel_scope.cancel()

    await check_backend(open_pair)


# ---------------------------------------------------------------- openssl


@asynccontextmanager
async def openssl(*argv: str) -> AsyncIterator[trio.Process]:
    process = await trio.lowlevel.open_process(
        [need("openssl"), *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.fail_after(5, shield=True):
            await process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.stdout.aclose()


async def read_line(process: trio.Process) -> bytes:
    assert process.stdout is not None
    data = b""
    with trio.fail_after(5):
        while not data.endswith(b"\n"):
            data += await process.stdout.receive_some()
    return data


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl_is_served_and_may_renew_its_keys(tmp_path: Path, version: str) -> None:
    """TLS 1.3's KeyUpdate is done; 1.2's renegotiation is refused, which s_client does not bear."""
    folder = write_folder(tmp_path / "peer", client=client_certificate())
    objects: dict[str, object] = {"tls": server_credentials(tmp_path / "ours")}
    async with opened(objects) as (backend, events), reading(backend) as got:
        assert isinstance(backend.address, InetAddress)
        async with openssl(
            *("s_client", "-connect", f"127.0.0.1:{backend.address.port}", version),
            *("-CAfile", f"{folder}/ca-cert.pem", "-verify_return_error", "-brief"),
            *("-cert", f"{folder}/client-cert.pem", "-key", f"{folder}/client-key.pem"),
        ) as process:
            assert process.stdin is not None
            await process.stdin.send_all(b"one\n")
            await until(lambda: got == b"one\n")
            await backend.send_some(memoryview(b"two\n"))
            assert await read_line(process) == b"two\n"
            if version == "-tls1_2":
                await process.stdin.send_all(b"R\n")
            else:
                await process.stdin.send_all(b"K\n")
                await backend.send_some(memoryview(b"three\n"))
                assert await read_line(process) == b"three\n"
                await process.stdin.send_all(b"Q\n")
            await until(lambda: events == [OPENED, CLOSED])


async def test_openssl_is_a_server(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "peer", server=server_certificate())
    objects: dict[str, object] = {"tls": client_credentials(tmp_path / "ours")}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    async with openssl(
        *("s_server", "-accept", f"127.0.0.1:{port}", "-quiet", "-naccept", "1"),
        *("-cert", f"{folder}/server-cert.pem", "-key", f"{folder}/server-key.pem"),
    ) as process:
        addr = InetAddress("localhost", port, ipv4=True)
        options = {"server": False, "reconnect_ms": 5}
        async with opened(objects, addr, **options) as (backend, _), reading(backend) as got:
            await until(lambda: backend.is_open)
            await backend.send_some(memoryview(b"ping\n"))
            assert await read_line(process) == b"ping\n"
            assert process.stdin is not None
            await process.stdin.send_all(b"pong\n")
            await until(lambda: got == b"pong\n")
