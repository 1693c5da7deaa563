"""Registries with fakes besides the real kinds, and helpers for the tests of mux and hub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trio.testing import wait_all_tasks_blocked

from trio_chardev.backends.table import opener_of
from trio_chardev.core.backend import Backend, Opener, OpenRequest
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.tap import Tap
from trio_chardev.options.backend import BackendOptions
from trio_chardev.registry import Registry
from trio_chardev.testing import FakeDevice, FakeFrontend, FakeOptions, fake_opener


def any_opener(options: BackendOptions) -> Opener:
    """Return the opener of any options, those of fakes as well."""
    return fake_opener(options) if isinstance(options, FakeOptions) else opener_of(options)


def attach(chardev: Chardev, user: FakeFrontend) -> Frontend:
    """Attach *user*, which takes bytes and events as they come."""
    return chardev.attach(
        be_change=user.be_change, on_event=user.on_event, on_receive=user.on_receive
    )


class FakeLog(Tap):
    """Keeps what a log file would show of the output to *device*."""

    def __init__(self, device: FakeDevice | None = None) -> None:
        self.data = b""
        if device is not None:
            assert device.backend is not None, f"{device.name} is not open"
            device.backend.taps += (self,)

    @classmethod
    def of(cls, backend: Backend) -> FakeLog:
        """Make one for another kind of backend."""
        log = cls()
        backend.taps += (log,)
        return log

    def sent(self, data: memoryview) -> None:
        self.data += data

    refused = sent


async def type_in(device: FakeDevice, data: bytes) -> None:
    """Let *data* arrive, and go as far as it goes."""
    device.feed(data)
    await wait_all_tasks_blocked()


def bytes_of(user: FakeFrontend) -> bytes:
    """Return what *user* has received."""
    return b"".join(item for item in user.seen if isinstance(item, bytes))


def rows(registry: Registry) -> dict[str, tuple[str, bool]]:
    """Return what query-chardev shows: id -> file name and frontend-open."""
    return {info.label: (info.filename, info.frontend_open) for info in registry.query()}


def open_feeding(new: FakeDevice, old: FakeDevice, data: bytes) -> Opener:
    """Return *new*'s opener, whose activation makes *data* come to *old* just before the drain."""

    @asynccontextmanager
    async def opener(request: OpenRequest) -> AsyncIterator[Backend]:
        async with new.open(request) as backend:
            activate = backend.activate

            def activate_and_feed() -> None:
                activate()
                old.feed(data)

            backend.activate = activate_and_feed  # type: ignore[method-assign]
            yield backend

    return opener
