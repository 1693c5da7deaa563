"""bridge: joins two chardevs, as a cable does; the backend of either can be changed meanwhile.

``chardev`` leads to the device, such as a board or VM, and ``peer`` to the device's users.
Bytes and breaks go both ways, and so do line settings and modem lines where a backend learns
of them. What a side can't do is left out. Before a new backend takes its place it is set as
the old one was; if it refuses, there is no change.
"""

from __future__ import annotations

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
from trio_chardev.events import BackendEvent, Event

LOOK_INTERVAL = 0.1  # seconds between looks at lines that don't report their changes
ON_FAILURE = ChardevError, trio.ClosedResourceError
"""Raised by a line that lacks something, or whose backend or chardev is gone."""

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
        self._stirred = trio.Event()
        """Set when there may be something to look at or to show that was not there before."""

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
            _look_for(backend, towards.source)
            towards.keep_settings()
            if away is self.to_chardev:
                self._show_line(backend)

        def on_event(event: BackendEvent) -> None:
            if event in (Event.OPENED, Event.CLOSED):
                self._stirred.set()
                away.source_told(event, self._chardevs[getattr(self.options, name)])
            elif event is Event.BREAK or not isinstance(event, Event):
                away.control(event)

        return self.attach(
            name,
            be_change=be_change,
            on_event=on_event,
            on_receive=away.receive,
            on_open=towards.sink_opened,
            on_line=lambda: self._stirred.set(),
            answers_line=True,
        )

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.to_peer.run)
            nursery.start_soon(self.to_chardev.run)
            await self._look()

    async def _look(self) -> None:
        """Look at lines that don't report their changes, as long as the other side can use them.

        What is shown and what is looked at can only change when an event or `on_line` says so.
        """
        while True:
            self._stirred = trio.Event()
            self._show_line(self.peer)
            while self._look_once() and not self._stirred.is_set():
                with trio.move_on_after(LOOK_INTERVAL):
                    await self._stirred.wait()
            await self._stirred.wait()

    def _look_once(self) -> bool:
        """Look at both sides. Is it worthwhile to do so again?"""
        looks = [
            _look_for(user, source) and source.is_open and user.is_open
            for source, user in ((self.chardev, self.peer), (self.peer, self.chardev))
        ]
        return any(looks)

    def _show_line(self, peer: Controls | Frontend) -> None:
        """Show the users of *peer* the device's line settings, if both lines can do that."""
        with suppress(*ON_FAILURE):
            peer.line.show(self.chardev.line.settings)

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


def _look_for(user: Controls | Frontend, source: Frontend) -> bool:
    """Look at *source*, if it may have changed unnoticed in a way that *user* can follow."""
    try:
        if source.line.polled <= user.line.missing:
            return False
        source.line.look()
    except ON_FAILURE:
        return False
    return True
