"""The page at an address: who gets it, who gets something else, and what that costs others."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import trio_chardev as tc
from tests.metrics.pages import OPENMETRICS, Samples, samples_of
from tests.services import until
from trio_chardev.metrics import endpoint, rows
from trio_chardev.metrics.endpoint import MAX_CLIENTS, Pages, serve_metrics
from trio_chardev.metrics.options import MetricsOptions, parse_metrics
from trio_chardev.registry import Registry

LIMIT = 10.0  # seconds, of a test


@attrs.frozen
class Served:
    """A registry with a chardev, and the page about it at a UNIX socket."""

    registry: Registry
    path: str

    async def connect(self) -> trio.SocketStream:
        return await trio.open_unix_socket(self.path)

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send *request*, and read what is answered."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            return await read_answer(stream)

    async def get(self, accept: str = "*/*") -> Samples:
        request = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
        status, headers, body = await self.ask(request.encode())
        assert status == 200
        return samples_of(headers["Content-Type"], body)


async def read_answer(stream: trio.SocketStream) -> tuple[int, dict[str, str], bytes]:
    answer = b"".join([data async for data in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


def is_hung_up(stream: trio.SocketStream) -> bool:
    poll = select.poll()
    poll.register(stream.socket.fileno(), 0)
    return bool(poll.poll(0))


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[Served]:
    path = str(folder / "m")
    with trio.fail_after(LIMIT):
        async with tc.open_registry() as registry, trio.open_nursery() as nursery:
            await registry.add("c", tc.NullOptions())
            serve = partial(serve_metrics, registry, MetricsOptions(path=path, **options))
            await nursery.start(serve)
            yield Served(registry, path)
            nursery.cancel_scope.cancel()


async def test_the_page_is_there_for_who_asks(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        key = ("trio_chardev_changes_total", "c")
        assert (await served.get())[key] == 0
        await served.registry.change("c", tc.NullOptions())
        assert (await served.get(OPENMETRICS))[key] == 1


async def test_a_head_has_the_length_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        status, headers, body = await served.ask(b"HEAD /metrics HTTP/1.0\r\n\r\n")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + b"-" * 9000, 405),
        (b"hello\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000, 431),
    ],
)
async def test_all_else_gets_an_answer_that_can_be_read(
    tmp_path: Path, request_: bytes, status: int
) -> None:
    async with serving(tmp_path) as served:
        found, headers, body = await served.ask(request_)
        assert found == status
        assert body.endswith(b"\n")
        assert headers["Connection"] == "close"
        await served.get()


async def test_a_request_that_comes_in_pieces_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, await served.connect() as stream:
        for piece in (b"GET /met", b"rics HTTP/1.1\r\nHo", b"st: x\r\n\r\n"):
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        assert (await read_answer(stream))[0] == 200


async def test_who_says_nothing_is_let_go_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "TIMEOUT", 0.05)
    async with serving(tmp_path) as served, await served.connect() as stream:
        assert await stream.receive_some() == b""


async def test_who_reads_nothing_is_let_go_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as served:
        for number in range(300):
            await served.registry.add(f"c{number}", tc.NullOptions())
        monkeypatch.setattr(endpoint, "TIMEOUT", 0.1)
        async with await served.connect() as stream:
            await stream.send_all(b"GET /metrics HTTP/1.0\r\n\r\n")
            await until(partial(is_hung_up, stream))
            got = sum([len(data) async for data in stream])
        monkeypatch.undo()
        _, headers, _ = await served.ask(b"HEAD /metrics HTTP/1.0\r\n\r\n")
        assert got < int(headers["Content-Length"])


async def test_the_oldest_of_too_many_gives_way(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        silent = [await served.connect() for _ in range(MAX_CLIENTS)]
        await served.get()
        assert await silent[0].receive_some() == b""
        for stream in silent:
            await stream.aclose()


async def test_those_who_come_meanwhile_share_a_page_that_is_begun_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = 0
    may_go_on = trio.Event()
    real = rows.look

    async def look(registry: Registry, *, clients: bool) -> Any:
        nonlocal looks
        looks += 1
        await may_go_on.wait()
        return await real(registry, clients=clients)

    monkeypatch.setattr(endpoint, "look", look)
    async with tc.open_registry() as registry:
        pages = Pages(registry, with_clients=False)
        await pages.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pages.get, "")
            await trio.testing.wait_all_tasks_blocked()
            assert looks == 1
            for _ in range(10):
                nursery.start_soon(pages.get, "")
            await trio.testing.wait_all_tasks_blocked()
            may_go_on.set()
        assert looks == 2


async def test_what_can_not_be_made_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "NEEDS_AN_EXTRA", "trio_chardev.metrics.nothing")
    async with serving(tmp_path) as served:
        status, _, body = await served.ask(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert (status, body) == (503, b"there are no metrics now; the log says why\n")
        monkeypatch.undo()
        await served.get()


# ---------------------------------------------------------------- where


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("evil.example", 421)])
async def test_by_tcp_a_web_page_can_not_read_it_by_a_name_of_its_own(
    host: str, status: int
) -> None:
    async with tc.open_registry() as registry, trio.open_nursery() as nursery:
        name = await nursery.start(serve_metrics, registry, parse_metrics("127.0.0.1:0"))
        port = int(name.rpartition(":")[2])
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert (await read_answer(stream))[0] == status
        nursery.cancel_scope.cancel()


async def test_an_inherited_socket_that_others_reach_is_refused() -> None:
    listening = (await trio.open_tcp_listeners(0, host="0.0.0.0"))[0].socket
    with listening:
        options = MetricsOptions(fd="m")
        async with tc.open_registry() as registry:
            with pytest.raises(tc.OptionsError, match=r"metrics at '0\.0\.0\.0' need a loopback"):
                await serve_metrics(
                    registry, options, take_fd=lambda name: listening.dup().detach()
                )


async def test_an_address_in_use_is_an_error_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        with pytest.raises(tc.BackendError, match="Failed to bind socket"):
            await serve_metrics(served.registry, MetricsOptions(path=str(tmp_path / "d" / "m")))


async def test_the_socket_is_gone_with_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert await trio.Path(served.path).is_socket()
    assert not await trio.Path(served.path).exists()


def test_prometheus_client_is_imported_only_where_there_are_metrics() -> None:
    text = "import sys, trio_chardev.cli.serve; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
