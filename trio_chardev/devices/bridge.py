"""bridge: joins two chardevs, as a cable does; the backend of either can be changed meanwhile.

``chardev`` leads to the device, such as a board or VM, and ``peer`` to the device's users.
Bytes and breaks go both ways, and so do line settings and modem lines where a backend learns
of them. What a side can't do is left out. Before a new backend takes its place it is set as
the old one was; if it refuses, there is no change.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import ClassVar, Literal

import attrs
import trio

from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.devices.base import Device, DeviceInfo, DeviceOptions, DeviceRequest
from trio_chardev.devices.exchange import Exchange
from trio_chardev.devices.flow import Flow
from trio_chardev.errors import ChardevError, OptionsError
from trio_chardev.events import BackendEvent, Event, LineSettings

LOOK_INTERVAL = 0.1  # seconds between looks at lines that don't report their changes
LOOK_BELOW_INTERVAL = 1.0  # seconds; a mux or hub does not report changes of its bases' backends

WhenClosed = Literal["drop", "hold"]
Eof = Literal["keep", "pass"]


@attrs.frozen(kw_only=True)
class BridgeOptions(DeviceOptions):
    """Joins two chardevs, as a cable does."""

    uses: ClassVar = ("chardev", "peer")

    chardev: str
    """Id of the chardev where the device is."""

    peer: str
    """Id of the chardev where the users of the device come."""

    when_closed: WhenClosed = "drop"
    """What is sent to a side where nobody is: drop it, or hold it until somebody comes."""

    eof: Eof = "keep"
    """When one side's peer ends: keep the other's for the next who comes, or pass the end on to
    it, where that is a socket, behind all that came before; then it can be sent nothing more."""


@attrs.frozen
class FlowInfo:
    """One direction of a bridge, as query-devices shows it."""

    bytes: int
    """Bytes that have reached the other side."""

    dropped: int
    """Bytes that were dropped, because nobody was there."""

    line: str | None = None
    """The line settings that were passed on last, such as ``9600 8N1``."""


@attrs.frozen(kw_only=True)
class BridgeInfo(DeviceInfo):
    """What query-devices shows of a bridge."""

    chardev: str
    peer: str
    when_closed: WhenClosed
    state: Literal["open", "chardev-closed", "peer-closed", "closed"]
    """Is somebody there at both sides, or at which is nobody?"""

    to_peer: FlowInfo
    """From the chardev to the peer."""

    to_chardev: FlowInfo
    """From the peer to the chardev."""


class Bridge(Device):
    """A device that joins two chardevs."""

    options: BridgeOptions

    def __init__(self, options: BridgeOptions, request: DeviceRequest) -> None:
        super().__init__(options, request)
        holds = options.when_closed == "hold"
        self.to_peer = Flow(holds)
        self.to_chardev = Flow(holds)
        self.to_peer.exchange = self.to_chardev.exchange = Exchange(self.to_peer, self.to_chardev)
        self.to_peer.passes_eof = self.to_chardev.passes_eof = options.eof == "pass"
        self._opened = trio.Event()
        self._shown: LineSettings | None = None  # the device's line settings that the users see

    def start(self) -> None:
        if self.options.chardev == self.options.peer:
            raise OptionsError(
                f"Property '{self.driver}.peer' can't take value '{self.options.peer}': "
                "it is the bridge's other side"
            )
        self.chardev = self._attach("chardev", self.to_peer, self.to_chardev)
        self.peer = self._attach("peer", self.to_chardev, self.to_peer)
        self.to_peer.source = self.to_chardev.sink = self.chardev
        self.to_chardev.source = self.to_peer.sink = self.peer

    def _attach(self, name: str, away: Flow, towards: Flow) -> Frontend:
        async def be_change(backend: Controls) -> None:
            if away is self.to_chardev:
                self._show_line(backend)

        def on_event(event: BackendEvent) -> None:
            if event in (Event.OPENED, Event.CLOSED):
                self._opened.set()
                away.source_told(event, self._chardevs[getattr(self.options, name)])
            elif event is Event.BREAK or not isinstance(event, Event):
                away.control(event)

        return self.attach(
            name,
            be_change=be_change,
            on_event=on_event,
            on_receive=away.receive,
            on_open=towards.sink_opened,
            answers_line=True,
        )

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.to_peer.run)
            nursery.start_soon(self.to_chardev.run)
            await self._look()

    async def _look(self) -> None:
        """Look again and again at lines that don't report their changes, while peers are there."""
        self._opened.set()
        while True:
            if self._opened.is_set():  # the backend may be another
                self._opened = trio.Event()
                self._shown = None
            self._show_line(self.peer)
            looks = [_look_at(side) and side.is_open for side in (self.chardev, self.peer)]
            if any(looks):
                await trio.sleep(LOOK_INTERVAL)
            else:
                with trio.move_on_after(self._patience):
                    await self._opened.wait()

    @property
    def _patience(self) -> float:
        """Seconds to wait for somebody to come, while there is nothing to look at."""
        stand = any(side.backend.stacking.bases for side in (self.chardev, self.peer))
        return LOOK_BELOW_INTERVAL if stand else math.inf

    def _show_line(self, peer: Controls | Frontend) -> None:
        """Show the users of *peer* the device's line settings, if both lines can do that."""
        with suppress(ChardevError, trio.ClosedResourceError):
            line = self.chardev.line.settings
            if peer is not self.peer or line != self._shown:
                self._shown = line
                peer.line.show(line)

    @property
    def moved(self) -> int:
        return self.to_peer.sent + self.to_chardev.sent

    @property
    def info(self) -> BridgeInfo:
        device, user = self.chardev.is_open, self.peer.is_open
        return BridgeInfo(
            id=self.id,
            chardev=self.options.chardev,
            peer=self.options.peer,
            when_closed=self.options.when_closed,
            state=(
                ("open" if user else "peer-closed")
                if device
                else ("chardev-closed" if user else "closed")
            ),
            to_peer=_info(self.to_peer),
            to_chardev=_info(self.to_chardev),
        )


def _info(flow: Flow) -> FlowInfo:
    return FlowInfo(flow.sent, flow.dropped, None if flow.line is None else str(flow.line))


def _look_at(side: Frontend) -> bool:
    """Look once. Is there anything to look at?"""
    try:
        side.line.look()
    except (ChardevError, trio.ClosedResourceError):
        return False
    return True
