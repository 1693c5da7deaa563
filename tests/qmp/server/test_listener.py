"""Many QMP clients at once."""

from __future__ import annotations

import socket
import stat
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from tests.certificates import client_certificate, peer_context, server_credentials
from tests.services import until
from trio_chardev.backends.socket import handshaking as handshaking
from trio_chardev.backends.socket.addresses import InetAddress, UnixAddress
from trio_chardev.backends.socket.handshaking import MAX_NEWCOMERS
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.socket.tls import TlsConnection
from trio_chardev.errors import BackendError, OptionsError
from trio_chardev.qmp.client.client import QmpConnectionError, QmpError, open_qmp_client
from trio_chardev.qmp.server import dispatcher, listener
from trio_chardev.service import Service, open_service


async def listen(service: Service, path: Path) -> str:
    return await service.listen_qmp(SocketOptions(addr=UnixAddress(str(path))))


def hanging(id: str, path: Path) -> dict[str, object]:
    """The arguments of a chardev-add that waits for a client."""
    addr = {"type": "unix", "data": {"path": str(path)}}
    return {"id": id, "backend": {"type": "socket", "data": {"addr": addr, "wait": True}}}


async def test_clients_have_sessions_of_their_own(tmp_path: Path) -> None:
    async with open_service() as service:
        await listen(service, tmp_path / "q")
        async with (
            open_qmp_client(tmp_path / "q") as one,
            open_qmp_client(tmp_path / "q", negotiate=False) as other,
        ):
            assert await one.execute("query-chardev") == []
            with pytest.raises(QmpError, match="Expecting capabilities negotiation"):
                await other.execute("query-chardev")
            await other.execute("qmp_capabilities")
            assert await other.execute("query-chardev") == []


async def test_a_slow_command_of_one_does_not_delay_another(tmp_path: Path) -> None:
    async with open_service() as service:
        await listen(service, tmp_path / "q")
        with trio.fail_after(5):
            async with (
                open_qmp_client(tmp_path / "q") as one,
                open_qmp_client(tmp_path / "q") as other,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(one.execute, "chardev-add", hanging("h", tmp_path / "h"))
                await other.execute("chardev-add", id="n", backend={"type": "null", "data": {}})
                assert list(service.registry) == ["n"]
                with socket.socket(socket.AF_UNIX) as peer:
                    await until(lambda: peer.connect_ex(str(tmp_path / "h")) == 0)
                    while len(service.registry) < 2:
                        await other.execute("query-chardev")


async def test_a_client_that_leaves_cancels_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "PATIENCE", 0.05)
    async with open_service() as service:
        await listen(service, tmp_path / "q")
        with trio.fail_after(5):
            async with (
                open_qmp_client(tmp_path / "q") as one,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(one.execute, "chardev-add", hanging("h", tmp_path / "h"))
                await until((tmp_path / "h").exists)
                nursery.cancel_scope.cancel()
            await until(lambda: not (tmp_path / "h").exists())
        assert not service.registry


async def test_more_clients_than_the_limit_are_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "MAX_CLIENTS", 2)
    async with open_service() as service:
        await listen(service, tmp_path / "q")
        with trio.fail_after(5):
            async with open_qmp_client(tmp_path / "q") as one:
                async with open_qmp_client(tmp_path / "q"):
                    with pytest.raises(QmpConnectionError):
                        async with open_qmp_client(tmp_path / "q"):
                            pass
                    assert await one.execute("query-chardev") == []
                while True:  # there is a place again, as soon as the service has heard of it
                    try:
                        async with open_qmp_client(tmp_path / "q"):
                            break
                    except QmpConnectionError:
                        await trio.sleep(0.001)


async def test_at_the_end_clients_are_let_go_and_the_socket_file_is_gone(tmp_path: Path) -> None:
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            ended = trio.Event()

            async def client() -> None:
                async with open_qmp_client(tmp_path / "q") as qmp:
                    with qmp.open_events() as events:
                        ready.set()
                        async for _ in events:
                            pass
                ended.set()

            async with open_service() as service:
                await listen(service, tmp_path / "q")
                assert stat.S_ISSOCK((tmp_path / "q").stat().st_mode)
                ready = trio.Event()
                nursery.start_soon(client)
                await ready.wait()
            assert not (tmp_path / "q").exists()
            await ended.wait()


async def test_a_client_that_left_before_it_was_taken_is_no_trouble(tmp_path: Path) -> None:
    async with open_service() as service:
        await listen(service, tmp_path / "q")
        for _ in range(20):
            (await trio.open_unix_socket(str(tmp_path / "q"))).socket.close()
        with trio.fail_after(5):
            async with open_qmp_client(tmp_path / "q") as qmp:
                assert await qmp.execute("query-chardev") == []


async def test_it_listens_on_tcp_too_and_tells_the_port() -> None:
    async with open_service() as service:
        name = await service.listen_qmp(SocketOptions(addr=InetAddress("127.0.0.1", "0")))
        _, host, port = name.removesuffix(",server=on").split(":")
        async with open_qmp_client((host, int(port))) as qmp:
            assert await qmp.execute("query-chardev") == []


async def test_what_it_cannot_be(tmp_path: Path) -> None:
    async with open_service() as service:
        with pytest.raises(OptionsError, match=r"^a QMP listener needs server=on$"):
            await service.listen_qmp(
                SocketOptions(addr=UnixAddress(str(tmp_path / "q")), server=False)
            )
        with pytest.raises(BackendError, match="No such file or directory"):
            await listen(service, tmp_path / "missing" / "q")
        await listen(service, tmp_path / "q")


# ---------------------------------------------------------------- handshakes


async def listen_by_tls(service: Service, folder: Path) -> int:
    service.registry.objects["tls"] = server_credentials(folder)
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), tls_creds="tls")
    return int((await service.listen_qmp(options)).removesuffix(",server=on").rpartition(":")[2])


async def greeting_by_tls(port: int, certificate: trustme.LeafCert) -> bytes:
    """What a client reads first; nothing if it is let go."""
    context = peer_context(server=False, certificate=certificate)
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    async with trio.SSLStream(
        tcp, context, server_hostname="localhost", https_compatible=True
    ) as stream:
        try:
            return bytes(await stream.receive_some(1))
        except trio.BrokenResourceError:
            return b""


async def test_those_who_shake_hands_for_ever_keep_no_client_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "MAX_CLIENTS", 2)
    async with open_service() as service:
        port = await listen_by_tls(service, tmp_path)
        with trio.fail_after(20):
            async with AsyncExitStack() as silent:
                for _ in range(MAX_NEWCOMERS + 8):
                    stream = await trio.open_tcp_stream("127.0.0.1", port)
                    await silent.enter_async_context(stream)
                for _ in range(3):
                    assert await greeting_by_tls(port, client_certificate()) == b"{"
    assert not caplog.messages


async def test_who_shakes_hands_for_too_long_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshaking, "HANDSHAKE_TIMEOUT", 0.05)
    async with open_service() as service:
        port = await listen_by_tls(service, tmp_path)
        with trio.fail_after(20):
            async with await trio.open_tcp_stream("127.0.0.1", port) as silent:
                assert await silent.receive_some() == b""


async def test_a_client_that_makes_the_protocols_raise_is_let_go_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_service() as service:
        port = await listen_by_tls(service, tmp_path)
        with trio.fail_after(20):
            with monkeypatch.context() as broken:

                def receive_data(codec: TlsConnection, wire: bytes) -> None:
                    raise UnicodeDecodeError("utf-8", wire, 0, 1, "no text")

                broken.setattr(TlsConnection, "receive_data", receive_data)
                assert await greeting_by_tls(port, client_certificate()) == b""
            assert await greeting_by_tls(port, client_certificate()) == b"{"
    assert "a newcomer is let go: UnicodeDecodeError" in caplog.text


async def test_a_client_of_a_listener_without_its_credentials_is_let_go_alone(
    tmp_path: Path,
) -> None:
    async with open_service() as service:
        port = await listen_by_tls(service, tmp_path)
        credentials = service.registry.objects.pop("tls")
        with trio.fail_after(20):
            assert await greeting_by_tls(port, client_certificate()) == b""
            service.registry.objects["tls"] = credentials
            assert await greeting_by_tls(port, client_certificate()) == b"{"


# ---------------------------------------------------------------- web pages


@pytest.mark.parametrize(
    ("host", "origins", "status"),
    [
        ("evil.example", (), b"403"),  # its name leads here by now
        ("evil.example", ("http://evil.example:*",), b"101"),
        ("127.0.0.1", (), b"101"),
        (socket.gethostname(), (), b"101"),
    ],
)
async def test_a_web_page_must_know_the_machine_by_its_own_name(
    host: str, origins: tuple[str, ...], status: bytes
) -> None:
    options = SocketOptions(addr=InetAddress("127.0.0.1", "0"), websocket=True, origins=origins)
    async with open_service() as service:
        name = await service.listen_qmp(options)
        port = int(name.removesuffix(",server=on").rpartition(":")[2])
        head = (
            f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: http://{host}:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        with trio.fail_after(20):
            async with await trio.open_tcp_stream("127.0.0.1", port) as page:
                await page.send_all(head.encode())
                assert (await page.receive_some()).split()[1] == status
