"""A service with a console, a board and listeners, as processes of their own, for tests."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.services import TIMEOUT, Qmp, Running, running

SIZE = 1 << 16


@attrs.define
class Served:
    """A service with the console "users", and the board "board" at its bridge "b"."""

    folder: Path
    service: Running
    qmp: Qmp
    watcher: Qmp
    """Which is told of what the other's commands cause."""
    board: socket.socket
    """The device's end."""

    def port(self, listener: str) -> int:
        """The port that the system has chosen for that listener."""
        rows = {row["id"]: row for row in self.qmp("query-devices")}
        return int(rows[listener]["address"].rpartition(":")[2])

    def come(self, listener: str) -> socket.socket:
        """Connect to a listener that has a path, and wait until the console has the client."""
        before = len(self.events("CHARDEV_CLIENT_ATTACHED"))
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(TIMEOUT)
        sock.connect(str(self.folder / listener))
        self.wait_event("CHARDEV_CLIENT_ATTACHED", before + 1)
        return sock

    def events(self, name: str) -> list[dict[str, Any]]:
        """The data of those that have come by now."""
        return [event["data"] for event in self.watcher.events if event["event"] == name]

    def wait_event(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until there are *count* of them."""
        while len(self.events(name)) < count:
            message = self.watcher.read()
            assert message is not None, f"the service ended, and there are {self.watcher.events}"
            self.watcher.events.append(message)
        return self.events(name)

    def change(self, id: str, kind: str, **data: Any) -> None:
        """Do chardev-change."""
        backend = {"type": kind, "data": data}
        assert isinstance(self.qmp("chardev-change", id=id, backend=backend), dict)


@contextmanager
def served(
    folder: Path, *listeners: str, console: str = "", bridge: str = "", device: str = ""
) -> Iterator[Served]:
    """Run a service; *listeners* are ``id,options``, with the path of that name if they have none."""
    device = device or f"socket,path={folder}/board,server=on,wait=off"
    arguments = ["--chardev", f"{device},id=board"]
    arguments += ["--chardev", f"console,id=users{',' * bool(console)}{console}"]
    more = f",{bridge}" if bridge else ""
    arguments += ["--device", f"bridge,id=b,chardev=board,peer=users{more}"]
    for listener in listeners:
        id, _, rest = listener.partition(",")
        where = "" if "host=" in rest else f",path={folder}/{id}"
        more = f",{rest}" if rest else ""
        arguments += ["--device", f"listener,id={id},console=users{where}{more}"]
    qmp_path = folder / "qmp"
    arguments += ["--qmp", f"unix:{qmp_path},server=on,wait=off"]
    with (
        running(*arguments) as service,
        Qmp(qmp_path) as qmp,
        Qmp(qmp_path) as watcher,
        socket.socket(socket.AF_UNIX) as board,
    ):
        it = Served(folder, service, qmp, watcher, board)
        if "path=" in device and "socket" in device:
            board.settimeout(TIMEOUT)
            board.connect(str(folder / "board"))
            it.wait_event("CHARDEV_MARK")  # that the device is there
        yield it


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Read until *end* has come, or nothing more comes."""
    return read_while(sock, lambda got: end not in got)


def read_all(sock: socket.socket) -> bytes:
    """Read to the end."""
    return read_while(sock, lambda got: True)


def read_while(sock: socket.socket, condition: Callable[[bytes], bool]) -> bytes:
    """Read as long as *condition* holds for what has come, and something comes."""
    got = b""
    while condition(got) and (data := sock.recv(SIZE)):
        got += data
    return got
