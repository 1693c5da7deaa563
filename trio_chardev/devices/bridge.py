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

from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.waiting import Once
from trio_chardev.core.wall_clock import since_1970
from trio_chardev.devices.base import Device, DeviceInfo, DeviceOptions, DeviceRequest
from trio_chardev.devices.exchange import Exchange
from trio_chardev.devices.flow import Flow, run_flows
from trio_chardev.devices.framing import SILENCE, Framer, parse_delimiter
from trio_chardev.devices.looks import ON_FAILURE, Looked, get_looks, look_for, looked_of
from trio_chardev.devices.notice import Watch
from trio_chardev.devices.pacing import Pacer
from trio_chardev.devices.registry import Driver
from trio_chardev.devices.shaped import ShapedFlow
from trio_chardev.devices.translation import Translate, Translation
from trio_chardev.errors import OptionsError
from trio_chardev.events import BackendEvent, Event, WindowSize

MICROSECOND, MILLISECOND = 1e-6, 1e-3
MAX_DELAY = 10.0  # seconds, of a frame's silence or between two bytes
LOOKS_AT_SIZE = Event.OPENED, Event.MUX_IN
"""When the users' window may be another one, whose size is not told by an event."""

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

    translate_to_chardev: Translate = "none"
    """What becomes of line ends on their way to the device: icrnl (CR to LF), inlcr (LF to CR),
    igncr (no CR), onlcr (LF to CR LF), as by a terminal; cr, lf, crlf: each, CR LF too, to that."""

    translate_to_peer: Translate = "none"
    """What becomes of line ends on their way to the users, as above."""

    pace_char_us: int = 0
    """Microseconds between two bytes to the device."""

    pace_line_ms: int = 0
    """Milliseconds after each line to the device."""

    frame_silence_us: int = 0
    """Microseconds of silence after which what the device has sent is passed on, as one piece."""

    frame_delimiter: str | None = None
    """What the device sends is passed on up to this, as one piece; \\r, \\n, \\t, \\xNN are escapes."""

    notice: bool = False
    """Are users told in a line of text that the device is gone, back, or has been changed?"""

    def check(self) -> None:
        self.make_framer()
        self.make_pacer()
        self.check_sides()

    def check_sides(self) -> None:
        """Raise OptionsError unless the sides are two."""
        if self.chardev == self.peer:
            raise OptionsError(
                f"Property 'bridge.peer' can't take value '{self.peer}': "
                "it is the bridge's other side"
            )

    def make_framer(self) -> Framer | None:
        """Make what frames that which the device sends, if anything does. Raises OptionsError."""
        silence = self._seconds("frame_silence_us", MICROSECOND)
        text = self.frame_delimiter
        if text is None:
            return Framer(silence) if silence else None
        try:
            return Framer(silence or SILENCE, parse_delimiter(text))
        except ValueError as exc:
            raise OptionsError(f"Property 'bridge.frame-delimiter' {exc}") from None

    def make_pacer(self) -> Pacer | None:
        """Make what paces that which is sent to the device, if anything does. Raises OptionsError."""
        char = self._seconds("pace_char_us", MICROSECOND)
        line = self._seconds("pace_line_ms", MILLISECOND)
        return Pacer(char, line) if char or line else None

    def _seconds(self, name: str, unit: float) -> float:
        """Return the value of a property that is a time. Raises OptionsError."""
        value: int = getattr(self, name)
        if not 0 <= value * unit <= MAX_DELAY:
            raise OptionsError(
                f"Property 'bridge.{name.replace('_', '-')}' can't take value '{value}': "
                f"it may be from 0 to {MAX_DELAY / unit:.0f}"
            )
        return value * unit


@attrs.frozen
class FlowInfo:
    """One direction of a bridge, as query-devices shows it."""

    bytes: int
    """Bytes that have reached the other side."""

    dropped: int
    """Bytes that were dropped, because nobody was there."""

    line: str | None = None
    """The line settings that were passed on last, such as ``9600 8N1``."""

    queued: int = attrs.field(kw_only=True)
    """Bytes that have come and are still to be passed on."""

    failures: int = attrs.field(kw_only=True)
    """How often something could not be done to the other side, though somebody was there."""

    last_error: str | None = None
    """What has failed, until bytes are passed on again."""

    blocked_since: float | None = None
    """Since when the other side takes nothing, in seconds since 1970."""


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
        self.to_peer = self._make_flow(options.translate_to_peer, framer=options.make_framer())
        self.to_chardev = self._make_flow(options.translate_to_chardev, pacer=options.make_pacer())
        if not isinstance(self.to_peer, ShapedFlow) and not isinstance(self.to_chardev, ShapedFlow):
            exchange = Exchange(self.to_peer, self.to_chardev)
            self.to_peer.exchange = self.to_chardev.exchange = exchange
        self.to_peer.says_news = options.notice
        self.to_peer.passes_eof = self.to_chardev.passes_eof = options.eof == "pass"
        self._stirred = Once()
        """Set when there may be something to look at or to show that was not there before."""
        self._looked: Looked | None = None
        self._watch: Watch | None = None
        """What the users were told of the device."""

    def _make_flow(
        self, translate: Translate, framer: Framer | None = None, pacer: Pacer | None = None
    ) -> Flow:
        holds = self.options.when_closed == "hold"
        if translate == "none" and framer is None and pacer is None:
            return Flow(holds)
        return ShapedFlow(holds, translation=Translation(translate), framer=framer, pacer=pacer)

    def start(self) -> None:
        self.options.check_sides()
        if (device := self._chardevs.get(self.options.chardev)) is not None:
            self._watch = Watch(device.backend, device.is_open)
        self.chardev = self._attach("chardev", self.to_peer, self.to_chardev)
        self.peer = self._attach("peer", self.to_chardev, self.to_peer)
        self.to_peer.source = self.to_chardev.sink = self.chardev
        self.to_chardev.source = self.to_peer.sink = self.peer
        self._note_kinds()

    def _note_kinds(self) -> None:
        """Note that one of the backends may be of another kind."""
        if self.to_peer.exchange is not None:
            self.to_peer.exchange.look_anew()

    def _attach(self, name: str, away: Flow, towards: Flow) -> Frontend:
        side = _Side(self, name, away, towards)
        return self.attach(
            name,
            be_change=side.be_change,
            on_event=side.on_event,
            on_receive=away.receive,
            on_open=towards.sink_opened,
            on_line=side.on_line,
            answers_line=True,
        )

    def _pass_window_size(self, *, anew: bool = True) -> None:
        """Tell the device the size of its users' window, if it is known; a device has none.

        Unless *anew* not if it is the one that was told last.
        """
        size = self._chardevs[self.options.peer].window_size
        if size.is_known and (anew or size != self.chardev.line.kept.window_size):
            self.to_chardev.control(size)

    def _ignored(self, source: Frontend) -> frozenset[str]:
        """What *source* may change that is none of the other side's business."""
        return frozenset({"window"}) if source is self.to_peer.source else frozenset()

    def _tell_users(self, *, is_event: bool) -> None:
        """Tell the device's users what is new of it, if they want to know.

        By an event, which comes after the bytes of before; only a new backend where nobody is has none.
        """
        if self._watch is None:
            return
        device = self._chardevs[self.options.chardev]
        if is_event or not (device.is_open or device.backend is self._watch.backend):
            notice = self._watch.look(device.backend, is_open=device.is_open)
            if notice is not None and (self.options.notice or self._peer_takes_news):
                self.to_peer.control(notice)

    @property
    def _peer_takes_news(self) -> bool:
        """Do the users learn by themselves what happens to the device, as at a console?"""
        return self.peer.is_attached and self.peer.backend.peer.takes_news

    def finish(self) -> None:
        self.to_peer.finish()
        self.to_chardev.finish()

    async def run(self) -> None:
        await run_flows((self.to_peer, self.to_chardev), self._look)

    async def _look(self) -> None:
        """Look at lines that don't report their changes, as long as the other side can use them.

        What is shown and what is looked at can only change when an event or `on_line` says so.
        """
        pairs = (self.chardev, self.peer), (self.peer, self.chardev)
        while True:
            self._stirred = Once()
            self._show_line(self.peer)
            polled = [
                source
                for source, user in pairs
                if look_for(user, source, self._ignored(source), anew=True)
                and source.is_open
                and user.is_open
            ]
            self._looked = None
            if not polled:
                await self._stirred.wait()
                continue
            self._looked = looked_of(polled, self.scope.cancel, lambda: self.moved)
            with get_looks().at(self._looked):
                await self._stirred.wait()

    def _show_line(self, peer: Controls | Frontend) -> None:
        """Show the users of *peer* the device's line settings, if both lines can do that.

        Those that the users have just made are shown, or not, by `Line.acknowledge`.
        """
        if self.to_chardev.is_setting:
            return
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


@attrs.frozen(eq=False)
class _Side:
    """The handlers of one of the chardevs that are joined."""

    bridge: Bridge
    name: str
    """The property that names it."""
    away: Flow
    towards: Flow

    async def be_change(self, backend: Controls) -> None:
        """See `Chardev.attach`."""
        bridge, source = self.bridge, self.towards.source
        look_for(backend, source, bridge._ignored(source))
        if self.away is bridge.to_peer:
            bridge._pass_window_size(anew=False)
        self.towards.keep_settings()
        if self.away is bridge.to_chardev:
            bridge._show_line(backend)

    def on_event(self, event: BackendEvent) -> None:
        """See `Chardev.attach`."""
        bridge, away = self.bridge, self.away
        if bridge._looked is not None:
            bridge._looked.stir()
        if away is bridge.to_chardev and (event in LOOKS_AT_SIZE or isinstance(event, WindowSize)):
            bridge._pass_window_size()
        if event in (Event.OPENED, Event.CLOSED):
            bridge._stirred.set()
            if away is bridge.to_peer:
                bridge._tell_users(is_event=True)
            away.source_told(event, bridge._chardevs[getattr(bridge.options, self.name)])
        elif event is Event.BREAK or not isinstance(event, Event | WindowSize):
            away.control(event)

    def on_line(self) -> None:
        """See `Chardev.attach`."""
        self.bridge._stirred.set()
        self.bridge._note_kinds()
        if self.away is self.bridge.to_peer:
            self.bridge._tell_users(is_event=False)


def _info(flow: Flow) -> FlowInfo:
    return FlowInfo(
        bytes=flow.sent,
        dropped=flow.dropped,
        line=None if flow.line is None else str(flow.line),
        queued=flow.source.relay.queued,
        failures=flow.failures,
        last_error=flow.trouble or None,
        blocked_since=since_1970(flow.blocked_at),
    )


BRIDGE = Driver("bridge", BridgeOptions, Bridge, BridgeInfo)
