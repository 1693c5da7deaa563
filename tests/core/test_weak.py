"""Calls that do not keep their objects alive."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from trio_chardev.backends.file import FileOptions
from trio_chardev.backends.null import NullOptions
from trio_chardev.backends.pipe import PipeOptions
from trio_chardev.backends.pty.pty import PtyOptions
from trio_chardev.backends.replay import ReplayOptions
from trio_chardev.backends.ringbuf.ringbuf import RingbufOptions
from trio_chardev.backends.socket.addresses import InetAddress, UnixAddress
from trio_chardev.backends.socket.socket import SocketOptions
from trio_chardev.backends.udp import UdpOptions
from trio_chardev.core.weak import weakly
from trio_chardev.options.backend import BackendOptions
from trio_chardev.protocols.asciicast import header
from trio_chardev.registry import open_registry


class Listener:
    """Anybody."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def hear(self, word: str) -> None:
        self.heard.append(word)


def test_it_calls_while_who_is_called_is_there() -> None:
    listener = Listener()
    call = weakly(Listener.hear, listener)
    call("once")
    assert listener.heard == ["once"]
    gone = weakref.ref(listener)
    del listener
    assert gone() is None
    call("more")


# Not mux and hub, which have little: each and its part in a base's users keep each other.
OPTIONS: dict[str, BackendOptions] = {
    "null": NullOptions(),
    "log": NullOptions(logfile="log", record="record"),
    "ringbuf": RingbufOptions(),
    "ringbuf: file": RingbufOptions(path="ring"),
    "file": FileOptions(out="file"),
    "pipe": PipeOptions(device="fifo"),
    "pty": PtyOptions(),
    "unix": SocketOptions(addr=UnixAddress("socket"), server=True, wait=False),
    "websocket": SocketOptions(
        addr=InetAddress("127.0.0.1", 0), server=True, wait=False, websocket=True
    ),
    "reconnecting": SocketOptions(addr=UnixAddress("nobody"), server=False, reconnect_ms=1000),
    "udp": UdpOptions(remote=InetAddress("127.0.0.1", 9)),
    "replay": ReplayOptions(path="recording"),
}


@pytest.mark.parametrize("way", ["remove", "change"])
@pytest.mark.parametrize("name", OPTIONS)
async def test_a_backend_that_is_closed_is_freed_at_once(
    name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recording").write_bytes(header("x", 0))  # noqa: ASYNC240
    os.mkfifo("fifo")
    gc.collect()
    gc.disable()
    try:
        async with open_registry() as registry:
            await registry.add("base", NullOptions())
            await registry.add("c", OPTIONS[name])
            gone: list[weakref.ref[Any]] = [weakref.ref(registry["c"].backend)]
            if way == "remove":
                gone.append(weakref.ref(registry["c"]))
                await registry.remove("c")
            else:
                await registry.change("c", NullOptions())
            await trio.testing.wait_all_tasks_blocked()  # its tasks have ended
            # There Cancelled's traceback has the frame of a context manager's generator, whose f_back
            # is contextlib's __aexit__, which has Cancelled.
            if sys.version_info >= (3, 12):
                gc.collect()
            assert [reference() for reference in gone] == [None] * len(gone)
    finally:
        gc.enable()
