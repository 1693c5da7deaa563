"""The memory that clients make a service use is bounded, for each and in all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from tests.services import Qmp, running, until
from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.qmp.client.client import open_qmp_client
from trio_chardev.qmp.json.codec import Decoder
from trio_chardev.qmp.server import quota as quota
from trio_chardev.service import Service, open_service

LIMIT = 400_000
SHARE = 50_000
ANSWER = b'{"execute":"qmp_capabilities"}' + b'{"execute":"query-qmp-schema"}' * 20
HANG = (
    b'{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}{"execute":"chardev-add",'
    b'"arguments":{"id":"h%d","backend":{"type":"socket","data":{"wait":true,'
    b'"addr":{"type":"unix","data":{"path":"%b"}}}}}}'
)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MEMORY_LIMIT", LIMIT)
    monkeypatch.setattr(quota, "FAIR_SHARE", SHARE)


@contextmanager
def clients(path: Path, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(count)]
        for sock in socks:
            sock.connect(str(path))
            sock.setblocking(False)
        yield socks


async def exceed(service: Service, sock: socket.socket, data: bytes) -> bool:
    """Send *data*; was the client let go?"""
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    try:
        await stream.send_all(data)
        await until_still(service)
        await stream.send_all(b" ")
        await until_still(service)
        await stream.send_all(b" ")
    except trio.BrokenResourceError:
        return True
    return False


async def until_still(service: Service) -> None:
    """Wait until the service has looked at what was sent."""
    before = -1
    while before != service._host.quota.total:
        before = service._host.quota.total
        await trio.sleep(0.01)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(
    "message",
    [
        b'{"execute":"' + b"a" * 100_000,
        b"[" + b"[]," * 2_000,
        ANSWER,
        None,
    ],
    ids=["a string without end", "an array without end", "answers that nobody reads", "a queue"],
)
async def test_all_together_have_a_limit_and_the_modest_stay(
    tmp_path: Path, message: bytes | None
) -> None:
    async with open_service() as service:
        total = service._host.quota
        await service.listen_qmp(SocketOptions(addr=UnixAddress(str(tmp_path / "q"))))
        with trio.fail_after(30), clients(tmp_path / "q", 12) as socks:
            async with open_qmp_client(tmp_path / "q") as modest:
                gone = 0
                for number, sock in enumerate(socks):
                    data = message
                    if data is None:
                        data = HANG % (number, bytes(tmp_path / f"h{number}"))
                        data += b'{"execute":"query-version","id":"%b"}' % (b"x" * 100_000)
                    gone += await exceed(service, sock, data)
                    assert total.total <= LIMIT + SHARE * 13
                    assert await modest.execute("query-version")
                assert gone > 0
                for sock in socks:
                    sock.close()
                await until(lambda: total.total == 0)


def test_what_an_unfinished_message_costs() -> None:
    decoder = Decoder()
    assert decoder.held == 0
    decoder.feed(b'{"a":"' + b"x" * 1000)
    assert 1000 < decoder.held < 1500
    decoder.feed(b'"}{"b":[1,')
    assert 0 < decoder.held < 500
    decoder.feed(b"2]}")
    assert decoder.held == 0
    decoder.feed(b"[" * 2000)
    assert decoder.held == 0  # too deep: it is skipped, and nothing of it kept


def test_a_process_stays_small_whatever_is_sent(tmp_path: Path) -> None:
    """With the real limits: eight clients try to have 50 MiB kept each, of one message."""
    with (
        running("--qmp", f"unix:{tmp_path}/q,server=on,wait=off") as service,
        Qmp(tmp_path / "q") as modest,
        clients(tmp_path / "q", 8) as socks,
    ):
        piece = b"x" * (1 << 20)
        for sock in socks:
            sock.settimeout(20)
            sock.sendall(b'{"execute":"')
            for _ in range(50):
                sock.sendall(piece)
        assert modest("query-version")
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0])  # KiB
        assert peak < 100 << 10
