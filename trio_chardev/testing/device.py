"""Opening a fake backend, and the options that do it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import attrs
import trio

from trio_chardev.core.at_once import AtOnce
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.errors import BackendError
from trio_chardev.events import BackendEvent
from trio_chardev.options.backend import BackendOptions
from trio_chardev.testing.backend import FakeBackend
from trio_chardev.testing.world import FakeWorld


@attrs.define(eq=False, repr=False)
class FakeDevice(FakeWorld):
    """A fake device, on which a backend can be opened."""

    def say(self, event: BackendEvent) -> None:
        """Have the backend report *event*."""
        assert isinstance(self.backend, FakeBackend), f"{self.name} is not open"
        self.backend.say(event)

    def open(self, request: OpenRequest) -> AbstractAsyncContextManager[Backend]:
        """Give what opens a backend (an `Opener`); it can be cancelled at every step."""
        if self.at_once:
            return AtOnce(partial(self._open_at_once, request), self._let_go)
        return self._open(request)

    def _open_at_once(self, request: OpenRequest) -> Backend:
        self._hold(request)
        return self._make(request)

    def _hold(self, request: OpenRequest) -> None:
        if not self.opens:
            raise BackendError(f"{self.name} does not open")
        shares = isinstance(request.replaces, FakeBackend) and request.replaces.device is self
        assert shares or not self.is_held_open, f"{self.name} is open already"
        self.holders += 1
        self.is_held_open = True

    def _make(self, request: OpenRequest) -> Backend:
        self.backend = backend = FakeBackend(request, self)
        backend.set_open(self.connected)
        return backend

    def _let_go(self, backend: Backend | None) -> None:
        self.holders -= 1
        self.is_held_open = self.holders > 0
        self.is_leaving = False
        if backend is self.backend:
            self.backend = None

    @asynccontextmanager
    async def _open(self, request: OpenRequest) -> AsyncIterator[Backend]:
        await trio.lowlevel.checkpoint()
        if self.opens_late:
            await trio.sleep_forever()
        self._hold(request)
        backend: Backend | None = None
        try:
            await trio.lowlevel.checkpoint()
            backend = self._make(request)
            if self.dies_early:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._die)
                    yield backend
            else:
                yield backend
        except ExceptionGroup as group:  # no group may cross the interface
            raise BackendError(f"{self.name} died") from group
        finally:
            with trio.move_on_after(5 + self.close_seconds, shield=self.slow_close):
                try:
                    await trio.sleep(self.close_seconds)  # noqa: ASYNC102 - the scope has one, and may shield
                finally:
                    self._let_go(backend)

    async def _die(self) -> None:
        await trio.lowlevel.checkpoint()
        raise BackendError(f"{self.name} died")


@attrs.frozen(kw_only=True)
class FakeOptions(BackendOptions):
    """Options for opening *device*, so that a `trio_chardev.registry.Registry` can have fakes."""

    device: FakeDevice


def fake_opener(options: BackendOptions) -> Opener:
    """Give the opener for `FakeOptions`; see `trio_chardev.core.backend.OpenerOf`."""
    assert isinstance(options, FakeOptions)
    return options.device.open
