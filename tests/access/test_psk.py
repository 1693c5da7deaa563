"""Pre-shared keys: the file, which peers get through a handshake, programs that are not ours.

Python's ssl has them since 3.13. CI has 3.11: there only the file and the refusal are tested.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.certificates import peer_context
from tests.peers import need
from tests.services import TIMEOUT, until
from trio_chardev.access.authz import AuthzSimple
from trio_chardev.access.psk import IS_HAD, MAX_FILE, MAX_KEY, PskCredentials, parse_keys
from trio_chardev.access.sandbox import Sandbox
from trio_chardev.access.tls_creds import TlsCredsPsk
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.socket.addresses import InetAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.socket.tls import TlsConnection
from trio_chardev.errors import BackendError, ChardevError, OptionsError
from trio_chardev.registry import Registry, open_registry
from trio_chardev.service import open_service

needs_psk = pytest.mark.skipif(not IS_HAD, reason="Python's ssl has pre-shared keys since 3.13")

KEY = "0123456789abcdef" * 4
KEYS = f"qemu:{'00ff' * 8}\nbob:{KEY}\n"


def write_keys(folder: Path, text: str = KEYS) -> str:
    (folder / "keys.psk").write_text(text)
    return str(folder)


def credentials(folder: Path, endpoint: Any = "server", **options: Any) -> PskCredentials:
    made = TlsCredsPsk(id="psk", dir=str(folder), endpoint=endpoint, **options)
    return made.create({})


# ---------------------------------------------------------------- the file


def test_keys_and_names() -> None:
    content = b"bob:00ff\r\n\n  \n#626f62:11\na:b:AB\n#c3bc:01\n\xc3\xa9:02\nbob:33"
    assert parse_keys(content, "p") == {
        "bob": b"\x00\xff",
        "a:b": b"\xab",
        "\u00fc": b"\1",
        "\u00e9": b"\2",
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"secret", "it is not of the form NAME:KEY"),
        (b"bob:secret", "the key is not in hexadecimal"),
        (b"bob:abc", "the key is not in hexadecimal"),
        (b"bob:\xff", "the key is not in hexadecimal"),
        (b"bob:", f"a key has 1 to {MAX_KEY} bytes"),
        (b"bob:" + b"00" * (MAX_KEY + 1), f"a key has 1 to {MAX_KEY} bytes"),
        (b":00", "a name has 1 to 128 bytes, and no NUL"),
        (b"n" * 129 + b":00", "a name has 1 to 128 bytes, and no NUL"),
        (b"#00:00", "a name has 1 to 128 bytes, and no NUL"),
        (b"#xy:00", "the name is no text in UTF-8"),
        (b"#ff:00", "the name is no text in UTF-8"),
        (b"\xff:00", "the name is no text in UTF-8"),
    ],
)
def test_a_bad_line_is_told_by_its_number_and_not_repeated(line: bytes, words: str) -> None:
    with pytest.raises(BackendError) as raised:
        parse_keys(b"ok:00\n" + line, "/p")
    assert str(raised.value) == f"PSK file /p: line 2: {words}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dir": None}, "Missing 'dir' property value"),
        ({"priority": "NORMAL"}, "'priority' is of GnuTLS, which is not used"),
        ({"verify_peer": False}, "'verify-peer' can't be off with pre-shared keys"),
        ({"username": "bob"}, "username should not be set when endpoint=server"),
    ],
)
def test_what_does_not_fit_together(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    made = {"id": "psk", "dir": write_keys(tmp_path), "endpoint": "server"} | options
    with pytest.raises(OptionsError, match=words):
        TlsCredsPsk(**made).create({})


@pytest.mark.skipif(IS_HAD, reason="this Python has pre-shared keys")
def test_where_it_cannot_be_it_is_refused(tmp_path: Path) -> None:
    words = r"^tls-creds-psk needs Python 3\.13 or later, with .*; this is Python 3\.\d+$"
    with pytest.raises(BackendError, match=words):
        credentials(Path(write_keys(tmp_path)))


@needs_psk
def test_the_file(tmp_path: Path) -> None:
    words = f"^Unable to access credentials {tmp_path}/keys.psk: No such file or directory$"
    with pytest.raises(BackendError, match=words):
        credentials(tmp_path)
    write_keys(tmp_path)
    assert credentials(tmp_path, "client").keys == {"qemu": b"\0\xff" * 8}
    assert credentials(tmp_path, "client", username="bob").keys == {"bob": bytes.fromhex(KEY)}
    assert set(credentials(tmp_path).keys) == {"qemu", "bob"}
    assert KEY not in repr(credentials(tmp_path))
    assert "\\xcd" not in repr(credentials(tmp_path))
    words = f"^Username eve not found in PSK file {tmp_path}/keys.psk$"
    with pytest.raises(BackendError, match=words):
        credentials(tmp_path, "client", username="eve")


@needs_psk
@pytest.mark.parametrize("kind", ["fifo", "endless", "large"])
def test_what_is_no_small_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.psk"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"x" * (MAX_FILE + 1))
    with pytest.raises(BackendError, match=f"^Unable to access credentials {path}: "):
        credentials(tmp_path)


@needs_psk
def test_a_sandboxed_client_may_not_name_any_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    options = TlsCredsPsk(id="psk", dir=write_keys(tmp_path), endpoint="server")
    with pytest.raises(BackendError, match="outside of the sandbox$"):
        options.create({}, Sandbox([str(tmp_path / "in")]))


# ---------------------------------------------------------------- in memory


def shake_hands(ours: TlsConnection, theirs: TlsConnection) -> tuple[str | None, str | None]:
    """What ended each of them."""
    for _ in range(8):
        for one, other in ((theirs, ours), (ours, theirs)):
            if (wire := one.data_to_send()) and other.end is None:
                other.receive_data(wire)
    return ours.end, theirs.end


def client_of(name: str, key: str) -> TlsConnection:
    return TlsConnection(PskCredentials(endpoint="client", keys={name: bytes.fromhex(key)}))


@needs_psk
def test_who_knows_the_key_gets_through_and_is_known_by_its_name(tmp_path: Path) -> None:
    names: list[str] = []
    server = credentials(Path(write_keys(tmp_path)))

    def allows(name: str) -> bool:
        names.append(name)
        return True

    ours = TlsConnection(server, allows=allows)
    theirs = client_of("bob", KEY)
    assert shake_hands(ours, theirs) == (None, None)
    assert ours.is_established
    assert theirs.is_established
    assert ours.receive_data(theirs.encode(b"hello")) == [b"hello"]
    assert names == ["bob"]


@needs_psk
@pytest.mark.parametrize(("name", "key"), [("bob", "00" * 32), ("eve", KEY), ("qemu", KEY)])
def test_who_does_not_know_it_is_refused(name: str, key: str, tmp_path: Path) -> None:
    ours = TlsConnection(credentials(Path(write_keys(tmp_path))), allows=lambda name: True)
    ends = shake_hands(ours, client_of(name, key))
    assert ends[0] is not None
    assert ends[0].startswith("TLS handshake failed: ")
    assert not ours.is_established


@needs_psk
def test_names_of_two_that_shake_hands_at_once_are_not_mixed_up(tmp_path: Path) -> None:
    names: dict[int, str] = {}
    server = credentials(Path(write_keys(tmp_path)))

    def codec(number: int) -> TlsConnection:
        def allows(name: str) -> bool:
            names[number] = name
            return True

        return TlsConnection(server, allows=allows)

    pairs = [
        (codec(0), client_of("bob", KEY)),
        (codec(1), client_of("qemu", "00ff" * 8)),
    ]
    for _ in range(8):
        for ours, theirs in pairs:
            for one, other in ((theirs, ours), (ours, theirs)):
                if wire := one.data_to_send():
                    other.receive_data(wire)
    assert names == {0: "bob", 1: "qemu"}


@needs_psk
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_with_a_certificate_but_without_the_key_is_refused(
    version: ssl.TLSVersion,
) -> None:
    """It would do for a client that looks at certificates, and this one looks at none."""
    context = peer_context(server=True)
    context.minimum_version = context.maximum_version = version
    to_it, from_it = ssl.MemoryBIO(), ssl.MemoryBIO()
    rogue = context.wrap_bio(to_it, from_it, True)
    ours = client_of("bob", KEY)
    for _ in range(8):
        to_it.write(ours.data_to_send())
        with suppress(ssl.SSLError):
            rogue.do_handshake()
        if (wire := from_it.read()) and ours.end is None:
            ours.receive_data(wire)
    assert ours.end is not None
    assert not ours.is_established


@needs_psk
def test_a_client_without_a_key_is_refused(tmp_path: Path) -> None:
    ours = TlsConnection(credentials(Path(write_keys(tmp_path))))
    context = peer_context(server=False)
    context.check_hostname = False
    to_it, from_it = ssl.MemoryBIO(), ssl.MemoryBIO()
    rogue = context.wrap_bio(to_it, from_it)
    for _ in range(4):
        with suppress(ssl.SSLError):
            rogue.do_handshake()
        if (wire := from_it.read()) and ours.end is None:
            ours.receive_data(wire)
        to_it.write(ours.data_to_send())
    assert ours.end is not None
    assert not ours.is_established


# ---------------------------------------------------------------- chardevs


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[tuple[Registry, int]]:
    """A chardev "c" that listens, and its port."""
    async with open_registry() as registry:
        registry.objects["psk"] = credentials(Path(write_keys(folder)))
        addr = InetAddress("127.0.0.1", "0")
        await registry.add("c", SocketOptions(addr=addr, tls_creds="psk", wait=False, **options))
        yield registry, int(registry["c"].backend.filename.rsplit(":", 1)[1].split(",")[0])


async def receive(registry: Registry, id: str, data: bytes) -> None:
    """*data*, and no more, comes from chardev *id*."""
    async with registry[id].attach() as frontend:
        got = b""
        with trio.fail_after(TIMEOUT):
            while len(got) < len(data):
                got += await frontend.receive_some()
        assert got == data


@needs_psk
async def test_two_of_ours(tmp_path: Path) -> None:
    async with serving(tmp_path, tls_authz="who") as (registry, port):
        registry.objects["who"] = AuthzSimple(id="who", identity="bob")
        registry.objects["bob"] = credentials(tmp_path, "client", username="bob")
        addr = InetAddress("127.0.0.1", str(port))
        await registry.add("d", SocketOptions(addr=addr, tls_creds="bob", server=False))
        async with registry["d"].attach() as frontend:
            await frontend.send_all(b"hello")
            await receive(registry, "c", b"hello")


@needs_psk
async def test_who_is_not_on_the_list_is_let_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(tmp_path, tls_authz="who") as (registry, port):
        registry.objects["who"] = AuthzSimple(id="who", identity="alice")
        registry.objects["bob"] = credentials(tmp_path, "client", username="bob")
        addr = InetAddress("127.0.0.1", str(port))
        await registry.add("d", SocketOptions(addr=addr, tls_creds="bob", server=False))
        with trio.fail_after(TIMEOUT):
            await until(lambda: "TLS PSK authz check for bob is denied" in caplog.text)
        assert not registry["c"].is_open


@needs_psk
async def test_a_clients_list_is_refused(tmp_path: Path) -> None:
    async with open_registry() as registry:
        registry.objects["psk"] = credentials(Path(write_keys(tmp_path)), "client")
        options = SocketOptions(
            addr=InetAddress("127.0.0.1", "1"), tls_creds="psk", tls_authz="a", server=False
        )
        with pytest.raises(ChardevError, match="of a client requires certificates$"):
            await registry.add("c", options)


@needs_psk
async def test_it_guards_a_monitor_off_loopback(tmp_path: Path) -> None:
    async with open_service() as service:
        service.registry.objects["psk"] = credentials(Path(write_keys(tmp_path)))
        addr = InetAddress("0.0.0.0", "0")
        with pytest.raises(BackendError, match="needs TLS"):
            await service.listen_qmp(SocketOptions(addr=addr))
        await service.listen_qmp(SocketOptions(addr=addr, tls_creds="psk"))
        await service.registry.add("c", NullOptions())


@contextmanager
def openssl(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [need("openssl"), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@needs_psk
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl_s_client(version: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as (registry, port):
        client = ("s_client", "-quiet", version, "-connect", f"127.0.0.1:{port}")
        with openssl(*client, "-psk_identity", "bob", "-psk", KEY) as process:
            assert process.stdin is not None
            process.stdin.write(b"hello")
            process.stdin.flush()
            await receive(registry, "c", b"hello")


@needs_psk
@pytest.mark.parametrize("identity", [b"eve", b"\xff\xfe", b"n" * 200, b"\xed\xa0\x80"])
@pytest.mark.parametrize("version", [b"-tls1_2", b"-tls1_3"])
async def test_a_name_that_nobody_has_ends_nobody_else(
    version: bytes, identity: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(tmp_path) as (registry, port):
        address = f"127.0.0.1:{port}".encode()
        await trio.to_thread.run_sync(
            lambda: subprocess.run(
                [
                    *(need("openssl").encode(), b"s_client", version, b"-connect", address),
                    *(b"-psk_identity", identity, b"-psk", KEY.encode()),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT,
            )
        )
        with trio.fail_after(TIMEOUT):
            await until(lambda: "TLS handshake failed" in caplog.text)
        registry.objects["bob"] = credentials(tmp_path, "client", username="bob")
        addr = InetAddress("127.0.0.1", str(port))
        await registry.add("d", SocketOptions(addr=addr, tls_creds="bob", server=False))


@needs_psk
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_openssl_s_server(version: str, tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    server = ("s_server", "-quiet", version, "-nocert", "-accept", f"127.0.0.1:{port}")
    with openssl(*server, "-psk_identity", "bob", "-psk", KEY) as process:
        async with open_registry() as registry:
            registry.objects["psk"] = credentials(
                Path(write_keys(tmp_path)), "client", username="bob"
            )
            addr = InetAddress("127.0.0.1", str(port))
            options = SocketOptions(addr=addr, tls_creds="psk", server=False, reconnect_ms=50)
            await registry.add("c", options)
            async with registry["c"].attach() as frontend:
                with trio.fail_after(TIMEOUT):
                    await until(lambda: frontend.is_open)
                await frontend.send_all(b"hello\n")
                assert process.stdout is not None
                with trio.fail_after(TIMEOUT):
                    line = await trio.to_thread.run_sync(
                        process.stdout.readline, abandon_on_cancel=True
                    )
                assert line == b"hello\n"
