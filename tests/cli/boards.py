"""A board at a service: a socket, its console, and clients of that."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.calls import Call, wait_for
from tests.services import TIMEOUT, Qmp


@contextmanager
def board(call: Call, path: Path, folder: Path, options: str = "") -> Iterator[socket.socket]:
    """Add 'board', with the console 'board-console'; gives the board's socket."""
    call("add", "board", f"socket,path={folder}/board,server=on,wait=off")
    call("add", "board-console", f"console,history=64k{options}")
    assert call("bridge", "board", "board-console") == (0, "", "")
    with socket.socket(socket.AF_UNIX) as board, Qmp(path) as qmp:
        board.settimeout(TIMEOUT)
        board.connect(f"{folder}/board")
        wait_for(lambda: qmp("query-devices")[0]["state"] == "open")
        try:
            yield board
        finally:
            for row in qmp("query-devices"):
                qmp("device_del", id=row["id"])


@contextmanager
def watching(call: Call, folder: Path) -> Iterator[socket.socket]:
    """Be a client of 'board-console', by a listener that is made for it."""
    call("qmp", "device_add", "driver=listener", "console=board-console", f"path={folder}/l")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        client.connect(f"{folder}/l")
        wait_for(lambda: bool(json.loads(call("clients", "--json")[1])))
        yield client


def read(sock: socket.socket, size: int) -> bytes:
    """Read *size* bytes."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, data
        data += more
    return data


def say(call: Call, sock: socket.socket, data: bytes) -> None:
    """Print *data* at the board, and wait until the console has it."""
    before = _printed(call)
    sock.sendall(data)
    wait_for(lambda: _printed(call) == before + len(data))


def _printed(call: Call) -> int:
    end: int = json.loads(call("show", "board", "--json")[1])["console"]["end"]
    return end
