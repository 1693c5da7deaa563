"""``trio-chardev serve`` as a process of its own, and QMP by hand."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import trio

PROGRAM = [sys.executable, "-c", "from trio_chardev.cli import main; main()"]
TIMEOUT = 60.0  # seconds, as the machine may be busy


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what only the kernel knows."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await trio.sleep(0.001)


class Qmp:
    """A client over a UNIX socket; it keeps the events that come in between."""

    def __init__(self, path: Path, *, negotiate: bool = True) -> None:
        self.events: list[dict[str, Any]] = []
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(TIMEOUT)
        deadline = time.monotonic() + TIMEOUT
        while self._sock.connect_ex(str(path)) != 0:
            assert time.monotonic() < deadline, f"nobody listens at {path}"
            time.sleep(0.005)
        self._wire = self._sock.makefile("rwb")
        self.greeting = self.read()
        if negotiate:
            self("qmp_capabilities")

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._wire.close()
        self._sock.close()

    def write(self, data: bytes) -> None:
        self._wire.write(data)
        self._wire.flush()

    def read(self) -> Any:
        """Read the next message; None at the end."""
        line = self._wire.readline()
        return json.loads(line) if line else None

    def __call__(self, name: str, /, **arguments: Any) -> Any:
        """Return what the command returns, or the text of its error."""
        self.write(json.dumps({"execute": name, "arguments": arguments}).encode())
        while "event" in (message := self.read()):
            self.events.append(message)
        return message["return"] if "return" in message else message["error"]["desc"]

    def wait_opened(self, *ids: str) -> None:
        """Wait until each of these chardevs has been opened since the connection was made."""
        while set(ids) - {e["data"]["id"] for e in self.events if e["event"] == "CHARDEV_OPENED"}:
            self.events.append(self.read())

    def add(self, id: str, kind: str, **data: Any) -> Any:
        return self("chardev-add", id=id, backend={"type": kind, "data": data})


class Running:
    """A service that is running."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def wait_line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float, str]:
        """Return the exit status, the seconds that it took, and its standard error."""
        begin = time.monotonic()
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, time.monotonic() - begin, said


@contextmanager
def running(*arguments: str, **environ: str) -> Iterator[Running]:
    """Start ``trio-chardev serve``."""
    process = subprocess.Popen(
        [*PROGRAM, "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
    )
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()
