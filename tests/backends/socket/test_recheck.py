"""Connected peers are checked again: by keep-peer, and by chardev-recheck-peers."""

from __future__ import annotations

import contextlib
import datetime
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.access.test_credentials import Chain, revocations
from tests.certificates import (
    authority,
    client_certificate,
    peer_context,
    server_credentials,
    write_folder,
)
from tests.services import TIMEOUT, until
from trio_chardev.access.authz import AuthzList, AuthzSimple
from trio_chardev.access.credentials import TlsCredentials
from trio_chardev.access.psk import PskCredentials, PskObject, refusal_of_key
from trio_chardev.access.reproof import refusal_of_chain
from trio_chardev.access.tls_creds import TlsCredsX509
from trio_chardev.backends.socket.addresses import InetAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.errors import BackendError, ChardevNotFoundError
from trio_chardev.protocols.websocket import websocket_connection
from trio_chardev.qmp.client.client import open_qmp_client
from trio_chardev.qmp.commands.context import Context, Host
from trio_chardev.qmp.commands.table import COMMANDS
from trio_chardev.registry import Registry, open_registry
from trio_chardev.service import open_service

NAME = "O=Acme\\, Inc."
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


async def come(
    port: int, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, chain: Chain | None = None
) -> trio.SSLStream[trio.SocketStream]:
    """Be a client, of the test's authority or of *chain*."""
    if chain is None:
        context = peer_context(server=False, certificate=client_certificate())
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        chain.root.configure_trust(context)
        chain.client.configure_cert(context)
    context.maximum_version = version
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


@attrs.define(eq=False)
class Served:
    """A chardev "c" with a client by TLS."""

    registry: Registry
    options: SocketOptions
    port: int
    peer: trio.SSLStream[trio.SocketStream]

    @property
    def backend(self) -> SocketBackend:
        backend = self.registry["c"].backend
        assert isinstance(backend, SocketBackend)
        return backend

    async def keep(self, **options: Any) -> None:
        await self.registry.change("c", attrs.evolve(self.options, **options), keep_peer=True)

    async def recheck(self, **arguments: Any) -> list[dict[str, str]]:
        context = Context(Host(self.registry, lambda reason: None))
        found: list[dict[str, str]] = await COMMANDS["chardev-recheck-peers"].run(
            context, {name.replace("_", "-"): value for name, value in arguments.items()}
        )
        return found

    async def is_left(self) -> bool:
        """Has the peer met its end, and the chardev closed?"""
        with trio.fail_after(TIMEOUT):
            await until(lambda: not self.registry["c"].is_open)
            try:
                return await self.peer.receive_some() == b""
            except trio.BrokenResourceError:
                return True


@asynccontextmanager
async def serving(
    credentials: TlsCredentials,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    chain: Chain | None = None,
    **options: Any,
) -> AsyncIterator[Served]:
    async with open_registry() as registry:
        registry.objects["s"] = credentials
        registry.objects["who"] = AuthzList(id="who", policy="allow")
        addr = InetAddress("127.0.0.1", "0")
        made = SocketOptions(addr=addr, tls_creds="s", wait=False, **options)
        await registry.add("c", made)
        backend = registry["c"].backend
        assert isinstance(backend, SocketBackend)
        assert isinstance(backend.address, InetAddress)
        port = int(backend.address.port)
        peer = await come(port, version, chain)
        with trio.fail_after(TIMEOUT):
            await until(lambda: registry["c"].is_open)
        made = attrs.evolve(made, addr=backend.address)
        try:
            yield Served(registry, made, port, peer)
        finally:
            await trio.aclose_forcefully(peer)


def stricter(chain: Chain, folder: Path) -> TlsCredentials:
    """By which the chain's client is not let in: its authority was revoked."""
    return chain.credentials(
        folder, revocations(chain.root, chain.middle), revocations(chain.middle)
    )


def of_another_authority(chain: Chain, folder: Path) -> TlsCredentials:
    other = authority("Somebody else")
    write_folder(folder, server=other.issue_cert("localhost"), ca=other)
    return TlsCredsX509(id="o", dir=str(folder), endpoint="server").create({})


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("replacement", "reason"),
    [
        (stricter, "TLS: certificate revoked"),
        (of_another_authority, "TLS: unable to get local issuer certificate"),
    ],
)
async def test_other_credentials_end_whom_they_would_refuse(
    replacement: Callable[[Chain, Path], TlsCredentials],
    reason: str,
    version: ssl.TLSVersion,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chain = Chain()
    async with serving(chain.credentials(tmp_path / "a"), version, chain) as served:
        name = served.backend.filename
        assert await served.recheck() == []
        served.registry.objects["s"] = replacement(chain, tmp_path / "b")
        row = {"id": "c", "peer": name, "reason": reason}
        assert await served.recheck(dry_run=True) == [row]
        assert served.registry["c"].is_open
        assert await served.recheck() == [row]
        assert await served.is_left()
        assert f"{name} would not be let in now: {reason}; it is let go" in caplog.text
        assert await served.recheck() == []
        with pytest.raises(trio.BrokenResourceError):  # and it does not come again
            await come(served.port, ssl.TLSVersion.TLSv1_2, chain)


async def test_who_is_still_good_stays(tmp_path: Path) -> None:
    """Also as one that was loaded anew."""
    async with serving(server_credentials(tmp_path), tls_authz="who") as served:
        served.registry.objects["s"] = server_credentials(tmp_path)
        assert await served.recheck() == []
        async with served.registry["c"].attach() as frontend:
            await frontend.send_all(b"still here")
            with trio.fail_after(TIMEOUT):
                assert await served.peer.receive_some() == b"still here"


def test_a_certificate_that_has_expired_is_refused(tmp_path: Path) -> None:
    """Also by the credentials by which it was let in while it was good."""
    past = datetime.datetime(2001, 1, 1), datetime.datetime(2002, 1, 1)
    leaf = authority().issue_cert("laptop.example", not_before=past[0], not_after=past[1])
    chain = [ssl.PEM_cert_to_DER_cert(pem.bytes().decode()) for pem in leaf.cert_chain_pems]
    why = refusal_of_chain(server_credentials(tmp_path), chain, None)
    assert why == "certificate has expired"


@pytest.mark.parametrize("replacement", [AuthzSimple(id="who", identity="CN=other"), None])
async def test_another_list_ends_whom_it_denies(replacement: object, tmp_path: Path) -> None:
    async with serving(server_credentials(tmp_path), tls_authz="who") as served:
        assert await served.recheck() == []
        del served.registry.objects["who"]
        if replacement is not None:
            served.registry.objects["who"] = replacement
        [row] = await served.recheck(id="c")
        assert row["reason"].startswith(f"TLS x509 authz check for {NAME}")
        assert await served.is_left()


async def test_a_client_asks_again_whether_its_server_is_good(tmp_path: Path) -> None:
    """Also by its name."""
    chain = Chain()
    folder = chain.folder(tmp_path / "a", [])
    async with serving(chain.credentials(folder), chain=chain) as served:
        objects = served.registry.objects
        objects["good"] = TlsCredsX509(id="o", dir=str(folder)).create({})
        await trio.aclose_forcefully(served.peer)
        options = SocketOptions(
            addr=InetAddress("127.0.0.1", str(served.port)), tls_creds="good", server=False
        )
        await served.registry.add("d", options)
        assert await served.recheck(id="d") == []
        lists = [revocations(chain.root, chain.server)]
        revoked = TlsCredsX509(
            id="o", dir=str(chain.folder(tmp_path / "b", lists)), sanity_check=False
        )
        objects["good"] = revoked.create({})
        [row] = await served.recheck(id="d")
        assert row["reason"] == "TLS: certificate revoked"


def test_a_server_of_another_name_is_refused(tmp_path: Path) -> None:
    chain = Chain()
    credentials = TlsCredsX509(id="o", dir=str(chain.folder(tmp_path, []))).create({})
    shown = [ssl.PEM_cert_to_DER_cert(pem.bytes().decode()) for pem in chain.server.cert_chain_pems]
    assert refusal_of_chain(credentials, shown, "127.0.0.1") is None
    why = refusal_of_chain(credentials, shown, "elsewhere")
    assert why == "Hostname mismatch, certificate is not valid for 'elsewhere'."


@pytest.mark.parametrize("shown", [[], [b"junk"], [b""]])
def test_who_shows_nothing_that_can_be_read_is_refused(shown: list[bytes], tmp_path: Path) -> None:
    assert refusal_of_chain(server_credentials(tmp_path), shown, None) is not None
    lax = server_credentials(tmp_path, verify_peer=False)
    assert refusal_of_chain(lax, shown, None) is None


def test_a_pre_shared_key_must_be_the_one_of_its_name() -> None:
    tls = PskCredentials(endpoint="server", keys={"bob": b"1"}).start(
        ssl.MemoryBIO(), ssl.MemoryBIO(), None
    )
    assert isinstance(tls, PskObject)
    tls.name, tls.key = "bob", b"1"
    for keys, is_good in [({"bob": b"1"}, True), ({"bob": b"2"}, False), ({"eve": b"1"}, False)]:
        why = refusal_of_key(PskCredentials(endpoint="server", keys=keys), tls)
        assert why == (
            None if is_good else "the pre-shared key of 'bob' is another by now, or gone"
        )


async def test_who_shakes_hands_by_other_credentials_begins_again(tmp_path: Path) -> None:
    async with serving(server_credentials(tmp_path)) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as silent:
            await trio.aclose_forcefully(served.peer)
            with trio.fail_after(TIMEOUT):
                await until(lambda: len(served.backend.entrance.newcomers) == 1)
            assert await served.recheck() == []
            served.registry.objects["s"] = server_credentials(tmp_path)
            [row] = await served.recheck()
            assert row["reason"] == "the TLS credentials are others now"
            silent.setblocking(False)
            with trio.fail_after(TIMEOUT):
                await trio.lowlevel.wait_readable(silent)
                assert silent.recv(1) == b""


async def test_a_qmp_client_is_ended_too(tmp_path: Path) -> None:
    """By another one, who is told."""
    async with open_service() as service:
        service.registry.objects["s"] = server_credentials(tmp_path / "tls")
        service.registry.objects["who"] = AuthzList(id="who", policy="allow")
        addr = InetAddress("127.0.0.1", "0")
        filename = await service.listen_qmp(
            SocketOptions(addr=addr, tls_creds="s", tls_authz="who")
        )
        await service.listen_qmp(SocketOptions(addr=UnixAddress(str(tmp_path / "q"))))
        peer = await come(int(filename.rsplit(":", 1)[1].split(",")[0]))
        with trio.fail_after(TIMEOUT):
            assert b"QMP" in await peer.receive_some()
            async with open_qmp_client(str(tmp_path / "q")) as qmp:
                assert await qmp.execute("chardev-recheck-peers") == []
                service.registry.objects["who"] = AuthzList(id="who")
                [row] = await qmp.execute("chardev-recheck-peers", {"dry-run": True})
                assert row["id"] == f"{filename}#1"
                assert await qmp.execute("chardev-recheck-peers") == [row]
            with contextlib.suppress(trio.BrokenResourceError):
                while await peer.receive_some():
                    pass
        await trio.aclose_forcefully(peer)


async def test_who_asks_and_would_not_be_let_in_is_the_last_to_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without an answer; the others go all the same."""
    async with open_service() as service:
        registry = service.registry
        registry.objects["s"] = server_credentials(tmp_path / "tls")
        registry.objects["who"] = AuthzList(id="who", policy="allow")
        options = SocketOptions(
            addr=InetAddress("127.0.0.1", "0"), tls_creds="s", tls_authz="who", wait=False
        )
        qmp = int((await service.listen_qmp(options)).rsplit(":", 1)[1].split(",")[0])
        await registry.add("c", options)
        c = int(registry["c"].backend.filename.rsplit(":", 1)[1].split(",")[0])
        first, other = await come(qmp), await come(c)
        with trio.fail_after(TIMEOUT):
            await until(lambda: registry["c"].is_open)
            assert b"QMP" in await first.receive_some()
            await first.send_all(b'{"execute": "qmp_capabilities"}')
            assert b"return" in await first.receive_some()
            registry.objects["who"] = AuthzList(id="who")
            await first.send_all(b'{"execute": "chardev-recheck-peers"}')
            with contextlib.suppress(trio.BrokenResourceError):
                assert await first.receive_some() == b""
            await until(lambda: not registry["c"].is_open)
        gone = [record.message for record in caplog.records if "it is let go" in record.message]
        assert ["chardev 'c'" in line for line in gone] == [True, False]
        for stream in (first, other):
            await trio.aclose_forcefully(stream)


async def test_there_must_be_such_a_chardev() -> None:
    async with open_registry() as registry:
        context = Context(Host(registry, lambda reason: None))
        with pytest.raises(ChardevNotFoundError):
            await COMMANDS["chardev-recheck-peers"].run(context, {"id": "nosuch"})


# ---------------------------------------------------------------- what credentials newcomers meet


async def test_newcomers_meet_the_credentials_that_are_there_by_now(tmp_path: Path) -> None:
    async with serving(server_credentials(tmp_path)) as served:
        objects = served.registry.objects
        await trio.aclose_forcefully(served.peer)
        del objects["s"]
        await trio.aclose_forcefully(await come(served.port))  # those that were
        objects["s"] = server_credentials(tmp_path, verify_peer=False)  # prove less: not used
        context = peer_context(server=False)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        tcp = await trio.open_tcp_stream("127.0.0.1", served.port)
        stranger = trio.SSLStream(tcp, context, server_hostname="localhost")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(TIMEOUT):
            await stranger.do_handshake()
        await trio.aclose_forcefully(stranger)
        objects["s"] = of_another_authority(Chain(), tmp_path / "other")
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(TIMEOUT):
            await come(served.port)  # it does not know that server


# ---------------------------------------------------------------- keep-peer


@pytest.mark.parametrize("change", ["credentials", "list"])
async def test_keep_peer_keeps_nobody_whom_tls_would_refuse(change: str, tmp_path: Path) -> None:
    chain = Chain()
    async with serving(chain.credentials(tmp_path / "a"), chain=chain, tls_authz="who") as served:
        await served.keep(nodelay=True)
        if change == "list":
            served.registry.objects["who"] = AuthzList(id="who")
        else:
            served.registry.objects["s"] = stricter(chain, tmp_path / "b")
        before = served.backend
        with pytest.raises(BackendError, match="'keep-peer': .* would not be let in: TLS"):
            await served.keep(nodelay=False)
        assert served.backend is before
        assert served.registry["c"].is_open


@pytest.mark.parametrize(
    ("origins", "is_kept"),
    [
        (("https://console.example",), True),
        (("https://console.example", "https://other.example"), True),
        (("https://other.example",), False),
        ((), False),
    ],
)
async def test_keep_peer_keeps_no_page_that_narrower_origins_refuse(
    origins: tuple[str, ...], is_kept: bool, tmp_path: Path
) -> None:
    path = str(tmp_path / "s")
    options = SocketOptions(
        addr=UnixAddress(path), websocket=True, wait=False, origins=("https://console.example",)
    )
    async with open_registry() as registry:
        await registry.add("c", options)
        with socket.socket(socket.AF_UNIX) as page:
            page.connect(path)
            hello = websocket_connection(
                is_server=False, host="h", binary_only=False
            ).data_to_send()
            page.sendall(hello.replace(b"\r\n\r\n", b"\r\nOrigin: https://console.example\r\n\r\n"))
            with trio.fail_after(TIMEOUT):
                await until(lambda: registry["c"].is_open)
            narrower = attrs.evolve(options, origins=origins)
            if is_kept:
                await registry.change("c", narrower, keep_peer=True)
            else:
                with pytest.raises(BackendError, match="a page of 'https://console.example' may"):
                    await registry.change("c", narrower, keep_peer=True)
            assert registry["c"].is_open


async def test_one_that_comes_while_the_change_is_under_way_is_asked_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with serving(server_credentials(tmp_path), tls_authz="who") as served:

        async def deny(backend: object) -> None:
            served.registry.objects["who"] = AuthzList(id="who")

        served.registry["c"].attach(be_change=deny)
        before = served.backend
        with pytest.raises(BackendError, match="'keep-peer': .* would not be let in: TLS"):
            await served.keep(nodelay=True)
        assert served.backend is before
        assert served.registry["c"].is_open
