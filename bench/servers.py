"""QMP servers to be measured, each a process of its own, and a client as thin as can be."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

OURS = "trio-chardev"
PEER = "qemu-storage-daemon"
COMMANDS = {
    OURS: [sys.executable, "-c", "from trio_chardev.cli import main; main()", "serve"],
    PEER: [PEER],
}


@attrs.define
class Client:
    """A blocking QMP client: what it costs itself is the same for every server."""

    sock: socket.socket
    buffer: bytes = b""

    def read_line(self) -> bytes:
        """The next message."""
        while b"\n" not in self.buffer:
            data = self.sock.recv(1 << 20)
            if not data:
                raise EOFError("the server has left")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def round_trip(self, command: bytes) -> float:
        """Seconds from sending *command* to its reply, events aside. Raises on an error."""
        begin = time.perf_counter()
        self.sock.sendall(command)
        while True:
            line = self.read_line()
            if b'"event"' not in line[:120]:
                break
        seconds = time.perf_counter() - begin
        if b'"error"' in line[:100]:
            raise RuntimeError(line.decode())
        return seconds

    def pipeline(self, command: bytes, count: int) -> float:
        """Seconds for *count* commands written without waiting, until the last reply."""
        begin = time.perf_counter()
        data = memoryview(command * count)
        seen = 0
        self.sock.setblocking(False)
        try:
            while seen < count:
                with contextlib.suppress(BlockingIOError):
                    if data:
                        data = data[self.sock.send(data[: 1 << 18]) :]
                with contextlib.suppress(BlockingIOError):
                    got = self.sock.recv(1 << 20)
                    if not got:
                        raise EOFError("the server has left")
                    seen += got.count(b"\n")
        finally:
            self.sock.setblocking(True)
        return time.perf_counter() - begin


def command(name: str, **arguments: Any) -> bytes:
    """A command as it goes over the wire."""
    return json.dumps({"execute": name, "arguments": arguments}).encode() + b"\r\n"


@contextlib.contextmanager
def server(name: str) -> Iterator[Client]:
    """Start the server *name* on a UNIX socket and connect to it."""
    folder = tempfile.mkdtemp(prefix="bench")
    path = f"{folder}/qmp.sock"
    chardev = f"socket,id=qmp0,path={path},server=on,wait=off"
    process = subprocess.Popen(
        [*COMMANDS[name], "--chardev", chardev, "--monitor", "chardev=qmp0"],
        stdin=subprocess.DEVNULL,
    )
    try:
        with connect(path, process) as sock:
            client = Client(sock)
            client.read_line()
            client.round_trip(command("qmp_capabilities"))
            yield client
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def connect(path: str, process: subprocess.Popen[bytes]) -> socket.socket:
    """Connect as soon as somebody listens."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        if Path(path).exists():
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(path)
            except OSError:
                sock.close()
            else:
                return sock
        time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} does not listen")
