"""A registry of fakes for the tests of devices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from trio_chardev.devices.table import driver_of
from trio_chardev.registry import Registry, open_registry_with
from trio_chardev.testing import FakeDevice, FakeOptions, fake_opener


@asynccontextmanager
async def open_fakes(*devices: FakeDevice) -> AsyncIterator[Registry]:
    """Open a registry with a chardev on each of *devices*, under its name."""
    async with open_registry_with(fake_opener, driver_of) as registry:
        for device in devices:
            await registry.add(device.name, FakeOptions(device=device))
        yield registry


class Journal(list[object]):
    """Replaces a device's `line_calls`: keeps each call with what had been sent before it."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        device.line_calls = self

    def append(self, call: Any) -> None:
        super().append((call, bytes(self._device.sent)))
