"""A chardev in use: its user, and the peer of the backend in place."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from tests.places import Place
from trio_chardev.backends.stdio import StdioOptions, open_stdio
from trio_chardev.backends.table import opener_of
from trio_chardev.core.backend import Opener
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.handlers import BeChange, stateless
from trio_chardev.events import BackendEvent
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry, open_registry_with

PATIENCE = 5  # seconds

Seen = list[BackendEvent | bytes]
"""What has happened to a user, in order."""


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks run until *condition* holds."""
    with trio.fail_after(PATIENCE):
        while not condition():
            await wait_all_tasks_blocked(0.0005)


@attrs.define
class User:
    """A chardev's user, with the peer of the backend in place."""

    registry: Registry
    frontend: Frontend
    peer: trio.abc.AsyncResource | None = None

    @property
    def filename(self) -> str:
        """Return what query-chardev shows."""
        return self.registry["c"].info.filename

    async def change(self, place: Place) -> None:
        with trio.fail_after(PATIENCE):
            await place.add_bases(self.registry)
            await self.registry.change("c", place.options, take_fd=place.take_fd)

    async def meet(self, place: Place) -> None:
        """Let the peer of *place* come."""
        self.peer = None
        if place.join is not None:
            self.peer = await place.join(self.frontend.backend)
            await until(lambda: self.frontend.is_open)

    async def write(self, data: bytes) -> bytes:
        """Write; returns what has come to the peer, or *data* if there is no peer."""
        await self.frontend.send_all(data)
        if not isinstance(self.peer, trio.abc.ReceiveStream):
            return data
        got = b""
        with trio.fail_after(PATIENCE):
            while len(got) < len(data):
                got += await self.peer.receive_some()
        return got

    async def send(self, data: bytes) -> bytes:
        """Let the peer send *data*; returns what it can send of it."""
        if not isinstance(self.peer, trio.abc.SendStream):
            return b""
        with trio.fail_after(PATIENCE):
            await self.peer.send_all(data)
        return data

    async def read(self, size: int) -> bytes:
        data = b""
        with trio.fail_after(PATIENCE):
            while len(data) < size:
                data += await self.frontend.receive_some()
        return data

    async def talk(self) -> None:
        """Send a few bytes each way."""
        assert await self.write(b"ping") == b"ping"
        sent = await self.send(b"pong")
        assert await self.read(len(sent)) == sent


@attrs.define
class Refuser:
    """A frontend that refuses the first backend that it is asked to take."""

    asked: list[str] = attrs.Factory(list)

    async def be_change(self, backend: Controls) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append(backend.filename)
        if len(self.asked) == 1:
            raise ValueError("the frontend does not want this backend")


@asynccontextmanager
async def using(
    place: Place, be_change: BeChange = stateless, fds: tuple[int, int] = (0, 1)
) -> AsyncIterator[User]:
    """Make a chardev "c" at *place*, with its peer; *fds* are standard input and output."""

    def opener(options: BackendOptions) -> Opener:
        if isinstance(options, StdioOptions):
            return lambda request: open_stdio(options, request, fds)
        return opener_of(options)

    async with open_registry_with(opener) as registry:
        await place.add_bases(registry)
        await registry.add("c", place.options, take_fd=place.take_fd)
        async with registry["c"].attach(be_change=be_change) as frontend:
            user = User(registry, frontend)
            await user.meet(place)
            try:
                yield user
            finally:
                if user.peer is not None:
                    await trio.aclose_forcefully(user.peer)


def join(items: Iterable[BackendEvent | bytes]) -> Seen:
    """Join neighbouring bytes among *items*."""
    joined: Seen = []
    for item in items:
        if isinstance(item, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += item
        elif item:
            joined.append(item)
    return joined
