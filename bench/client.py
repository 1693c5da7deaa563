"""A minimal QMP client: what it costs itself is the same for every server."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import attrs

from bench.model import BenchmarkError

Backend = dict[str, Any]

NULL: Backend = {"type": "null", "data": {}}


def command(name: str, **arguments: Any) -> bytes:
    """Encode a command for the wire."""
    return json.dumps({"execute": name, "arguments": arguments}).encode() + b"\r\n"


QUERY = command("query-chardev")


@attrs.define
class QmpConnection:
    """A blocking client. Raises BenchmarkError for every error reply."""

    sock: socket.socket
    buffer: bytes = b""

    def read_line(self) -> bytes:
        """Read the next message. Raises EOFError."""
        while b"\n" not in self.buffer:
            data = self.sock.recv(1 << 20)
            if not data:
                raise EOFError("the server has left")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def negotiate(self) -> None:
        """Read the greeting and end the negotiation."""
        self.read_line()
        self.time(command("qmp_capabilities"))

    def wait_started(self) -> None:
        """Wait until the server has started whole: ours, until it has imported what commands need.

        Otherwise the first command waits for that. This one fails, in every server.
        """
        self.sock.sendall(command("chardev-remove", id="nonesuch"))
        while b'"error"' not in self.read_line():  # there may be events
            pass

    def execute(self, message: bytes) -> bytes:
        """Send *message* and return the line of its reply, skipping events."""
        self.sock.sendall(message)
        while True:
            line = self.read_line()
            if b'"event"' not in line[:120]:
                break
        if b'"error"' in line[:100]:
            raise BenchmarkError(line.decode())
        return line

    def time(self, message: bytes) -> float:
        """Measure the seconds from sending *message* to its reply."""
        begin = time.perf_counter()
        self.execute(message)
        return time.perf_counter() - begin

    def time_all(self, messages: bytes) -> float:
        """Measure the seconds from writing *messages* at once to the last reply."""
        count = messages.count(b"\n")
        begin = time.perf_counter()
        rest = memoryview(messages)
        replies = []
        seen = 0
        self.sock.setblocking(False)
        try:
            while seen < count:
                select.select([self.sock], [self.sock] if rest else [], [])
                with contextlib.suppress(BlockingIOError):
                    if rest:
                        rest = rest[self.sock.send(rest[: 1 << 18]) :]
                with contextlib.suppress(BlockingIOError):
                    data = self.sock.recv(1 << 20)
                    if not data:
                        raise EOFError("the server has left")
                    replies.append(data)
                    seen += data.count(b"\n")
        finally:
            self.sock.setblocking(True)
        seconds = time.perf_counter() - begin
        text = b"".join(replies)
        if b'"error"' in text or text.count(b'"return"') != count:
            raise BenchmarkError(f"not {count} good replies: ... {text[-200:].decode()}")
        return seconds

    def fill(
        self, count: int, backend_of: Callable[[int], Backend] = lambda _: NULL, prefix: str = "c"
    ) -> None:
        """Add *count* chardevs, c0 to c(count-1), each with its own backend."""
        adds = [
            command("chardev-add", id=f"{prefix}{n}", backend=backend_of(n)) for n in range(count)
        ]
        self.time_all(b"".join(adds))
