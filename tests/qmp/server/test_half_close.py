"""``printf COMMANDS | nc -N``: a client that has shut down its side gets its answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.peers import need
from tests.services import until
from trio_chardev.backends.socket.addresses import InetAddress, SocketAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketBackend, SocketOptions
from trio_chardev.qmp.server import dispatcher
from trio_chardev.service import Service, open_service

KINDS = ["tcp", "unix"]


@asynccontextmanager
async def served(
    place: str, kind: str, folder: Path, linger_ms: int = 60_000
) -> AsyncIterator[tuple[Service, SocketAddress]]:
    """A service with QMP at an address, by a *place*: a listener or a monitor on a chardev."""
    path = str(folder / "q")
    address: SocketAddress = UnixAddress(path) if kind == "unix" else InetAddress("127.0.0.1", "0")
    options = SocketOptions(addr=address, linger_ms=linger_ms)
    with trio.fail_after(20):
        async with open_service() as service:
            if place == "listener":
                name = await service.listen_qmp(options)
                if kind == "tcp":
                    address = InetAddress("127.0.0.1", name.rpartition(":")[2])
            else:
                await service.registry.add("q", options)
                await service.add_monitor("q")
                backend = service.registry["q"].backend
                assert isinstance(backend, SocketBackend)
                address = backend.address
            yield service, address


def target(address: SocketAddress) -> list[str]:
    if isinstance(address, UnixAddress):
        return ["-U", address.path]
    assert isinstance(address, InetAddress)
    return [address.host, address.port]


async def asked(address: SocketAddress, *commands: dict[str, Any]) -> list[Any]:
    """The answers to *commands*, with the greeting, that ``nc -N`` prints."""
    stdin = b"".join(
        json.dumps(command).encode() + b"\n"
        for command in ({"execute": "qmp_capabilities"}, *commands)
    )
    command = [need("nc"), "-N", *target(address)]
    result = await trio.run_process(command, stdin=stdin, capture_stdout=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def hanging(path: Path) -> dict[str, Any]:
    """A chardev-add that waits for a client at *path*."""
    addr = {"type": "unix", "data": {"path": str(path)}}
    backend = {"type": "socket", "data": {"addr": addr, "wait": True}}
    return {"execute": "chardev-add", "arguments": {"id": "h", "backend": backend}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["listener", "monitor"])
async def test_it_gets_large_answers_whole_and_then_the_end(
    place: str, kind: str, tmp_path: Path
) -> None:
    schema = {"execute": "query-qmp-schema", "id": 1}
    async with served(place, kind, tmp_path) as (_, address):
        for _ in range(2):
            answers = await asked(address, *[schema] * 20, {"execute": "query-chardev", "id": 2})
            assert "QMP" in answers[0]
            assert [answer.get("id") for answer in answers[1:]] == [None, *[1] * 20, 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["listener", "monitor"])
async def test_it_gets_the_answer_of_a_command_that_takes_long(
    place: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "PATIENCE", 0.01)
    async with served(place, kind, tmp_path) as (service, address):
        answers: list[Any] = []

        async def ask() -> None:
            answers.extend(await asked(address, hanging(tmp_path / "h")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until((tmp_path / "h").exists)
            await trio.sleep(0.2)  # its end is seen: that must not matter
            async with await trio.open_unix_socket(str(tmp_path / "h")):
                await until(lambda: len(answers) == 3)
        assert answers[2] == {"return": {}}
        assert "h" in service.registry


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["listener", "monitor"])
async def test_a_command_ends_when_its_client_was_let_go(
    place: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "PATIENCE", 0.01)
    async with served(place, kind, tmp_path, linger_ms=100) as (service, address):
        answers = await asked(address, hanging(tmp_path / "h"))
        assert len(answers) == 2
        await until(lambda: not (tmp_path / "h").exists())
        assert "h" not in service.registry
        assert len(await asked(address, {"execute": "query-chardev"})) == 3
