"""bridge: joins two chardevs, as a cable does; either can be changed under it.

The one, ``chardev``, is where the device is, the other, ``peer``, where its users come.
Bytes and breaks go both ways, and so do line settings and modem lines where a backend learns
of them. What a side cannot do is left out. Before a new backend takes its place it is set as
the old one was; if it refuses, there is no change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import attrs
import trio

from trio_chardev.core.device import Device, DeviceInfo, DeviceOptions, DeviceRequest
from trio_chardev.core.frontend import Frontend
from trio_chardev.errors import OptionsError
from trio_chardev.events import BackendEvent, Event
from trio_chardev.frontends.flow import Flow

LOOK_INTERVAL = 0.1  # seconds between looks at lines that do not tell when they change

WhenClosed = Literal["drop", "hold"]


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


@attrs.frozen
class FlowInfo:
    """One direction of a bridge."""

    bytes: int
    """Bytes that have reached the other side."""

    dropped: int
    """Bytes that were dropped, because nobody was there."""

    line: str | None = None
    """The line settings that went with them last, such as ``9600 8N1``."""


@attrs.frozen(kw_only=True)
class BridgeInfo(DeviceInfo):
    """What query-devices tells of a bridge."""

    chardev: str
    peer: str
    when_closed: WhenClosed
    state: Literal["open", "chardev-closed", "peer-closed", "closed"]
    """Is somebody there, at both sides, or at which not?"""

    to_peer: FlowInfo
    """From the chardev to the peer."""

    to_chardev: FlowInfo
    """From the peer to the chardev."""


class Bridge(Device):
    """Made by device_add."""

    options: BridgeOptions

    def __init__(self, options: BridgeOptions, request: DeviceRequest) -> None:
        super().__init__(options, request)
        holds = options.when_closed == "hold"
        self.to_peer = Flow(holds)
        self.to_chardev = Flow(holds)
        self._opened = trio.Event()

    def start(self) -> None:
        if self.options.chardev == self.options.peer:
            raise OptionsError(
                f"Property '{self.driver}.peer' can't take value '{self.options.peer}': "
                "it is the bridge's other side"
            )
        device = self._attach("chardev", self.to_peer, self.to_chardev)
        user = self._attach("peer", self.to_chardev, self.to_peer)
        self.to_peer.source = self.to_chardev.sink = device
        self.to_chardev.source = self.to_peer.sink = user

    def _attach(self, name: str, away: Flow, towards: Flow) -> Frontend:
        return self.attach(
            name,
            be_change=towards.be_change,
            on_event=self._on_event(away, towards),
            on_receive=away.receive,
        )

    def _on_event(self, away: Flow, towards: Flow) -> Callable[[BackendEvent], None]:
        """For the side from which *away* leads."""

        def on_event(event: BackendEvent) -> None:
            if event is Event.OPENED:
                towards.sink_opened()
                self._opened.set()
            elif not isinstance(event, Event) or event is Event.BREAK:
                away.control(event)

        return on_event

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.to_peer.run)
            nursery.start_soon(self.to_chardev.run)
            await self._look()

    async def _look(self) -> None:
        """Look again and again at the lines that have to be looked at."""
        while True:
            self._opened = trio.Event()
            sides = [side for side in self._frontends if side.is_open and side.can_look_at_line]
            if sides:
                await trio.sleep(LOOK_INTERVAL)
                for side in sides:
                    side.look_at_line()
            else:
                await self._opened.wait()

    @property
    def info(self) -> BridgeInfo:
        device, user = self.to_peer.source.is_open, self.to_chardev.source.is_open
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
