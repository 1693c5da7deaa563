"""monitor: as a driver of devices; its commands are tested in ``qmp/commands/test_device.py``."""

from __future__ import annotations

import pytest

from tests.devices.fakes import open_fakes
from trio_chardev.core.chardev import Chardev
from trio_chardev.devices.base import AttachedMonitor
from trio_chardev.devices.monitor import MonitorOptions
from trio_chardev.errors import BackendError, NotSupportedError
from trio_chardev.testing import FakeDevice

OPTIONS = MonitorOptions(id="d", chardev="c")


async def test_a_registry_without_a_service_has_none() -> None:
    async with open_fakes(FakeDevice("c")) as registry:
        with pytest.raises(NotSupportedError, match=r"^a monitor needs a service, "):
            registry.devices.add(OPTIONS)
        assert registry["c"].frontends == []
        assert list(registry.devices) == []


async def test_one_that_may_not_be_there_leaves_its_chardev() -> None:
    async with open_fakes(FakeDevice("c")) as registry:

        def refuse(chardev: Chardev, pretty: bool, insecure: bool) -> AttachedMonitor:
            raise BackendError("anybody could come")

        registry.devices.attach_monitor = refuse
        with pytest.raises(BackendError, match=r"^anybody could come$"):
            registry.devices.add(OPTIONS)
        assert registry["c"].frontends == []
        assert list(registry.devices) == []
