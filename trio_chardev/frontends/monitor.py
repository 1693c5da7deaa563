"""monitor: QMP on a chardev, for one client at a time; as ``--monitor``, but it can be deleted.

What it runs is not known here, for QMP stands above: the service gives it (`DeviceRequest`).
"""

from __future__ import annotations

import attrs

from trio_chardev.core.device import (
    AttachedMonitor,
    Device,
    DeviceInfo,
    DeviceOptions,
    DeviceRequest,
)
from trio_chardev.errors import NotSupportedError


@attrs.frozen(kw_only=True)
class MonitorOptions(DeviceOptions):
    """Has QMP on a chardev, for one client at a time."""

    chardev: str
    """Id of the chardev to use."""

    pretty: bool = False
    """Indent what is sent."""

    insecure: bool = False
    """Take whoever comes, not only clients of our own user."""


@attrs.frozen(kw_only=True)
class MonitorInfo(DeviceInfo):
    """What query-devices tells of a monitor."""

    chardev: str
    pretty: bool


class MonitorDevice(Device):
    """Made by device_add."""

    options: MonitorOptions

    def __init__(self, options: MonitorOptions, request: DeviceRequest) -> None:
        super().__init__(options, request)
        self._attach_monitor = request.attach_monitor
        self._monitor: AttachedMonitor

    def start(self) -> None:
        if self._attach_monitor is None:
            raise NotSupportedError("a monitor needs a service, which this registry is not of")
        with self.taking("chardev") as chardev:
            self._monitor = self._attach_monitor(
                chardev, self.options.pretty, self.options.insecure
            )

    async def run(self) -> None:
        await self._monitor.serve()

    def close(self) -> None:
        if hasattr(self, "_monitor"):
            self._monitor.detach()

    @property
    def info(self) -> MonitorInfo:
        return MonitorInfo(id=self.id, chardev=self.options.chardev, pretty=self.options.pretty)
