"""A failed command leaves nothing for the garbage collector, which runs rarely in a service.

An error's traceback, and what a client has sent with the command, may be large.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_chardev.backends.socket.addresses import UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.options.backend import BackendOptions
from trio_chardev.service import open_service

MARK = "no-such-name"
PATH = f"/{MARK}/x"
UNIX = {"type": "unix", "data": {"path": PATH}}
INET = {"type": "inet", "data": {"host": MARK * 100, "port": "1"}}


def add(kind: str, **data: Any) -> tuple[str, dict[str, Any]]:
    return "chardev-add", {"id": "x", "backend": {"type": kind, "data": data}}


FAILING = {
    "socket: server": add("socket", server=True, wait=False, addr=UNIX),
    "socket: client": add("socket", server=False, addr=UNIX),
    "socket: name": add("socket", server=False, addr=INET),
    "socket: websocket": add("socket", server=True, wait=False, websocket=True, addr=UNIX),
    "socket: tls": add("socket", server=True, wait=False, addr=UNIX, **{"tls-creds": MARK}),
    "socket: fd": add("socket", wait=False, addr={"type": "fd", "data": {"str": MARK}}),
    "udp": add("udp", remote=INET),
    "udp: local": add(
        "udp", remote={"type": "inet", "data": {"host": "", "port": "1"}}, local=INET
    ),
    "file": add("file", out=PATH),
    "file: in": add("file", out="/dev/null", **{"in": PATH}),
    "pipe": add("pipe", device=PATH),
    "serial": add("serial", device=PATH),
    "parallel": add("parallel", device=PATH),
    "pty": add("pty", path=PATH),
    "ringbuf": add("ringbuf", path=PATH),
    "replay": add("replay", path=PATH),
    "mux": add("mux", chardev=MARK),
    "hub": add("hub", chardevs=[MARK]),
    "log": add("null", logfile=PATH),
    "record": add("null", record=PATH),
    "a kind": add(MARK),
    "a type": add("file", out={MARK: 1}),
    "a change": ("chardev-change", {"id": "c", "backend": {"type": "file", "data": {"out": PATH}}}),
    "a command": (MARK, {}),
    "an argument": ("chardev-remove", {MARK: 1}),
    "a secret": ("object-add", {"qom-type": "secret", "id": "s", "file": PATH}),
    "credentials": (
        "object-add",
        {"qom-type": "tls-creds-x509", "id": "s", "dir": PATH, "endpoint": "server"},
    ),
    "a device": ("device_add", {"driver": "discard", "id": "d", "chardev": MARK}),
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def ask(stream: trio.SocketStream, command: str, arguments: dict[str, Any]) -> bytes:
    """The answer; `QmpClient` would make an error of it, in this process."""
    await stream.send_all(json.dumps({"execute": command, "arguments": arguments}).encode())
    answer = b""
    while not answer.endswith(b"\n"):
        answer += await stream.receive_some()
    return answer


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", FAILING)
async def test_of_a_command_that_failed_nothing_is_left(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "qmp")
    async with open_service() as service:
        await service.listen_qmp(SocketOptions(addr=UnixAddress(path)))
        async with await trio.open_unix_socket(path) as stream:
            await stream.receive_some()  # the greeting
            await ask(stream, "qmp_capabilities", {})
            await ask(stream, "chardev-add", {"id": "c", "backend": {"type": "null", "data": {}}})
            assert b'"error"' in await ask(stream, *FAILING[name])
            await ask(stream, "query-version", {})
    assert not [
        one
        for one in gc.get_objects()
        if isinstance(one, (BackendOptions, BaseException)) and MARK in f"{one!r}"
    ]
