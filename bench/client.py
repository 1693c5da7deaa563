"""A QMP client as thin as can be: what it costs itself is the same for every server."""

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
    """A command as it goes over the wire."""
    return json.dumps({"execute": name, "arguments": arguments}).encode() + b"\r\n"


QUERY = command("query-chardev")


@attrs.define
class QmpConnection:
    """A blocking client. Every reply that is an error raises BenchmarkError."""

    sock: socket.socket
    buffer: bytes = b""

    def read_line(self) -> bytes:
        """The next message. Raises EOFError."""
        while b"\n" not in self.buffer:
            data = self.sock.recv(1 << 20)
            if not data:
                raise EOFError("the server has left")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def negotiate(self) -> None:
        """Take the greeting and leave negotiation."""
        self.read_line()
        self.time(command("qmp_capabilities"))

    def execute(self, message: bytes) -> bytes:
        """Send *message* and give the line of its reply, events aside."""
        self.sock.sendall(message)
        while True:
            line = self.read_line()
            if b'"event"' not in line[:120]:
                break
        if b'"error"' in line[:100]:
            raise BenchmarkError(line.decode())
        return line

    def time(self, message: bytes) -> float:
        """Seconds from sending *message* to its reply."""
        begin = time.perf_counter()
        self.execute(message)
        return time.perf_counter() - begin

    def time_all(self, messages: bytes) -> float:
        """Seconds for messages written without waiting, until the last one's reply."""
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
        """Add *count* chardevs, c0 to c(count-1), each with the backend that is its own."""
        adds = [
            command("chardev-add", id=f"{prefix}{n}", backend=backend_of(n)) for n in range(count)
        ]
        self.time_all(b"".join(adds))
