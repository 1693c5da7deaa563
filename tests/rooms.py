"""A console with listeners and a user, for tests."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

import trio_chardev as tc
from trio_chardev.backends.console.client import Client
from trio_chardev.backends.console.console import ConsoleBackend
from trio_chardev.backends.console.crowd import Crowd
from trio_chardev.core.frontend import Frontend
from trio_chardev.devices.listener import ListenerDevice, ListenerOptions

LIMIT = 10.0  # seconds, of each wait


@attrs.define(eq=False)
class Room:
    """A console, and the device's side of it."""

    registry: tc.Registry
    folder: Path
    notices: list[object]
    device: Frontend
    """What it writes is printed, and what clients type can be read from it."""
    has_news: trio.Event = attrs.Factory(trio.Event)
    _numbers: int = 0
    _streams: list[trio.SocketStream] = attrs.Factory(list)

    @property
    def backend(self) -> ConsoleBackend:
        backend = self.registry["users"].backend
        assert isinstance(backend, ConsoleBackend)
        return backend

    @property
    def crowd(self) -> Crowd:
        return self.backend.crowd

    @property
    def clients(self) -> list[Client]:
        return list(self.crowd.clients.values())

    async def listen(self, **options: Any) -> ListenerDevice:
        """Open a listener, at a UNIX socket unless *options* say otherwise.

        One with a mock clock must be abstract: while a thread makes a file, the clock jumps.
        """
        self._numbers += 1
        if not {"host", "path", "fd", "vsock"} & set(options):
            options["path"] = str(self.folder / f"l{self._numbers}")
        listener = await self.registry.devices.open(
            ListenerOptions(id=f"l{self._numbers}", console="users", **options)
        )
        assert isinstance(listener, ListenerDevice)
        return listener

    async def come(self, listener: ListenerDevice) -> trio.SocketStream:
        """Connect, and wait until the console has the client."""
        before = len(self.told(tc.ChardevClientAttached))
        stream = await self.connect(listener)
        await self.wait_told(tc.ChardevClientAttached, before + 1)
        return stream

    async def wait_told(self, kind: type, count: int) -> list[Any]:
        """Wait until there are *count* notices of that class, and return them."""
        with trio.fail_after(LIMIT):
            while len(self.told(kind)) < count:
                await self.has_news.wait()
        return self.told(kind)

    def note(self, notice: object) -> None:
        """Keep a notice of the registry."""
        self.notices.append(notice)
        before, self.has_news = self.has_news, trio.Event()
        before.set()

    async def connect(self, listener: ListenerDevice) -> trio.SocketStream:
        """Connect; the stream is closed at the end at the latest."""
        if listener.options.path is not None:
            name = listener.options.path
            stream = await trio.open_unix_socket(f"\0{name}" if listener.options.abstract else name)
        else:
            assert listener.port is not None
            stream = await trio.open_tcp_stream("127.0.0.1", listener.port)
        self._streams.append(stream)
        return stream

    def close(self) -> None:
        """Close the streams."""
        for stream in self._streams:
            stream.socket.close()

    async def typed(self, size: int) -> bytes:
        """Return what the device gets, *size* bytes."""
        data = b""
        with trio.fail_after(LIMIT):
            while len(data) < size:
                data += await self.device.receive_some(size - len(data))
        return data

    def told(self, kind: type) -> list[Any]:
        """The notices of that class."""
        return [notice for notice in self.notices if isinstance(notice, kind)]


@asynccontextmanager
async def room(folder: Path, **options: Any) -> AsyncIterator[Room]:
    """Open a console 'users' with *options*, and a user at it."""
    async with tc.open_registry() as registry:
        await registry.add("users", tc.ConsoleOptions(**options))
        device = registry["users"].attach(be_change=tc.stateless)
        it = Room(registry, folder, [], device)
        registry.on_notice = it.note
        try:
            yield it
        finally:
            it.close()


async def read(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """Read *size* bytes; fewer at the end."""
    data = b""
    with trio.fail_after(LIMIT):
        while len(data) < size and (more := await stream.receive_some(size - len(data))):
            data += more
    return data


async def read_until(stream: trio.abc.ReceiveStream, end: bytes) -> bytes:
    """Read until *end* has come, or nothing more comes."""
    data = b""
    with trio.fail_after(LIMIT):
        while end not in data and (more := await stream.receive_some()):
            data += more
    return data


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Read to the end."""
    data = b""
    with trio.fail_after(LIMIT):
        while more := await stream.receive_some():
            data += more
    return data


def shrink(stream: trio.SocketStream, size: int = 4096) -> None:
    """Let the kernel keep little of what *stream* does not read."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
