"""monitor: QMP on a chardev, for one client at a time; as ``--monitor``, but it can be deleted.

It can be made as a device, and as QEMU 11.1's object monitor-qmp.

The imports go one way, and QMP is above this: the service passes in what it runs (`DeviceRequest`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from trio_chardev.access.sandbox import Sandbox
from trio_chardev.core.chardev import Chardev
from trio_chardev.devices.base import (
    AttachedMonitor,
    Device,
    DeviceInfo,
    DeviceOptions,
    DeviceRequest,
)
from trio_chardev.devices.registry import Driver
from trio_chardev.errors import (
    ChardevBusyError,
    ChardevNotFoundError,
    NotSupportedError,
    OptionsError,
)


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
    """What query-devices shows of a monitor."""

    chardev: str
    pretty: bool


@attrs.frozen(kw_only=True)
class MonitorObjectOptions(MonitorOptions):
    """The options of object-add with type monitor-qmp."""

    ends_with_client: bool = False
    """Delete it, and the chardev, when the first client has left."""


def check_monitor(options: DeviceOptions, sandbox: Sandbox) -> None:
    """Raise OptionsError for a monitor that a client limited to *sandbox* may not make."""
    if sandbox.is_limited and isinstance(options, MonitorOptions) and options.insecure:
        raise OptionsError("'insecure' is for the operator to say: the service has a sandbox")


class MonitorDevice(Device):
    """A monitor made by device_add."""

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


class MonitorObject(MonitorDevice):
    """A monitor made by object-add; its errors are not worded as a device's."""

    options: MonitorObjectOptions

    @property
    def is_current(self) -> bool:
        """Is a command of this monitor's own client being run?"""
        return self._monitor.is_current

    @contextmanager
    def taking(self, name: str) -> Iterator[Chardev]:
        """Do as `Device.taking`, with QEMU's error texts."""
        id = self.options.chardev
        try:
            yield self._chardevs[id]
        except ChardevNotFoundError:
            raise OptionsError(f'chardev "{id}" not found') from None
        except ChardevBusyError:
            raise ChardevBusyError(f"chardev '{id}' is already in use") from None

    async def run(self) -> None:
        if self.options.ends_with_client:
            await self._monitor.serve_session(self.id)
            self.is_done = True
        else:
            await super().run()


MONITOR = Driver("monitor", MonitorOptions, MonitorDevice, MonitorInfo)
MONITOR_OBJECT = Driver("monitor-qmp", MonitorObjectOptions, MonitorObject, MonitorInfo)
