"""echo: sends back what it receives (RFC 862)."""

from __future__ import annotations

import attrs

from trio_chardev.core.handlers import stateless
from trio_chardev.devices.base import Device, DeviceInfo, DeviceOptions, DeviceRequest
from trio_chardev.devices.flow import Flow, run_flows
from trio_chardev.devices.registry import Driver
from trio_chardev.events import BackendEvent, Event


@attrs.frozen(kw_only=True)
class EchoOptions(DeviceOptions):
    """Sends back what it receives (RFC 862)."""

    chardev: str
    """Id of the chardev to use."""


@attrs.frozen(kw_only=True)
class EchoInfo(DeviceInfo):
    """What query-devices shows of an echo."""

    chardev: str
    bytes: int
    """Bytes that were sent back."""


class Echo(Device):
    """A device that sends its input back."""

    options: EchoOptions

    def __init__(self, options: EchoOptions, request: DeviceRequest) -> None:
        super().__init__(options, request)
        self._flow = Flow(passes_eof=True)

    def start(self) -> None:
        self._flow.source = self._flow.sink = self.attach(
            "chardev",
            be_change=stateless,
            on_event=self._on_event,
            on_receive=self._flow.receive,
            on_open=self._flow.forget_end,
        )

    def _on_event(self, event: BackendEvent) -> None:
        if event is Event.OPENED:
            self._flow.sink_opened()
        if event in (Event.OPENED, Event.CLOSED):
            self._flow.source_told(event, self._chardevs[self.options.chardev])

    async def run(self) -> None:
        await run_flows([self._flow], self._flow.over.wait)

    @property
    def info(self) -> EchoInfo:
        return EchoInfo(id=self.id, chardev=self.options.chardev, bytes=self._flow.sent)


ECHO = Driver("echo", EchoOptions, Echo, EchoInfo)
