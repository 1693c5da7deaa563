"""A disk that can be slow or broken, for files that are written in the background."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from trio_chardev.backends.taps.output import Output


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what a worker thread does, which is not reported."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.001)


def is_held_open(path: Path) -> bool:
    """Does this process have a descriptor of that file?"""
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the descriptor of this very listing
            if os.readlink(f"/proc/self/fd/{fd}") == str(path):
                return True
    return False


async def wait_written(path: Path, size: int) -> None:
    await eventually(lambda: path.stat().st_size >= size)


def hang_in(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[threading.Event, threading.Event]:
    """Make os's function *name* hang; returns events that end that, and that say it has begun."""
    go, begun = threading.Event(), threading.Event()
    real = getattr(os, name)

    def hang(*arguments: Any, **more: Any) -> Any:
        begun.set()
        go.wait(10)
        return real(*arguments, **more)

    monkeypatch.setattr(os, name, hang)
    return go, begun


class Disk:
    """Stands between a background file and its file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.go.set()
        self.calls = 0
        self.error: OSError | None = None
        write = Output.write

        def slow(output: Output, data: bytearray) -> None:
            error = self.error
            self.calls += 1
            self.go.wait()
            if error is not None:
                raise error
            write(output, data)

        monkeypatch.setattr(Output, "write", slow)

    async def wait_calls(self, calls: int) -> None:
        await eventually(lambda: self.calls >= calls)
