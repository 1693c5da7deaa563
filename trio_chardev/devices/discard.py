"""discard: receives, and does nothing with it (RFC 863)."""

from __future__ import annotations

import attrs

from trio_chardev.core.handlers import stateless
from trio_chardev.devices.base import Device, DeviceInfo, DeviceOptions, DeviceRequest
from trio_chardev.devices.registry import Driver


@attrs.frozen(kw_only=True)
class DiscardOptions(DeviceOptions):
    """Receives, and does nothing with it (RFC 863)."""

    chardev: str
    """Id of the chardev to use."""


@attrs.frozen(kw_only=True)
class DiscardInfo(DeviceInfo):
    """What query-devices shows of a discard."""

    chardev: str
    bytes: int
    """Bytes that were received."""


class Discard(Device):
    """A device that takes its input and drops it."""

    options: DiscardOptions

    def __init__(self, options: DiscardOptions, request: DeviceRequest) -> None:
        super().__init__(options, request)
        self._received = 0

    def start(self) -> None:
        self.attach("chardev", be_change=stateless, on_receive=self._on_receive)

    def _on_receive(self, data: bytes) -> int:
        self._received += len(data)
        return len(data)

    @property
    def info(self) -> DiscardInfo:
        return DiscardInfo(id=self.id, chardev=self.options.chardev, bytes=self._received)


DISCARD = Driver("discard", DiscardOptions, Discard, DiscardInfo)
