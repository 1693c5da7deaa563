"""What comes from one chardev goes to another: bytes, breaks, line settings, modem lines.

As long as the sink takes the bytes at once they are sent by the task that reads the source,
in the call that brings them (`receive`). What it does not take stays in the source's queue,
which is bounded, so a sink that is slow slows the source's peer. Then, and when something
comes that takes time, such as a break, the task of `run` is at work: nothing else is sent
until it has done the first thing in the queue. So the order is kept, and no byte is held
outside of a queue: a byte leaves the source's when the sink has it.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import suppress

import attrs
import trio

from trio_chardev.core.backend import Backend
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.controls import Controls
from trio_chardev.core.frontend import Frontend
from trio_chardev.devices.exchange import Exchange
from trio_chardev.devices.pour import Pour
from trio_chardev.devices.splice import Splicing
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChardevError,
    NotSupportedError,
)
from trio_chardev.events import BackendEvent, Event, LineSettings, ModemLines

log = logging.getLogger(__name__)

RETRY_INTERVAL = 1.0  # seconds; after an error of a sink that is open
MAX_CONTROLS = 64  # breaks and the like that wait for another to be done


@attrs.define(eq=False)
class Flow:
    """One direction of a bridge. Its owner gives it `source` and `sink`, and runs it."""

    holds: bool = False
    """While nobody is at the sink bytes wait; else they are dropped, as by a cable."""
    source: Frontend = attrs.field(init=False)
    sink: Frontend = attrs.field(init=False)
    exchange: Exchange | None = None
    """What it does with the flow the other way."""
    sent: int = 0
    """Bytes that the sink has taken."""
    dropped: int = 0
    """Bytes that nobody was there to take."""
    line: LineSettings | None = None
    """The last line settings that came and were not refused."""
    modem: ModemLines | None = None
    """The last modem lines that came and were not refused."""
    passes_eof: bool = False
    """When the source's peer has ended the sink's is told, behind all that came before."""
    _opened: Backend | None = None
    """Whose peer the source has last told of."""
    _controls: deque[BackendEvent] = attrs.Factory(deque)
    _ending: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """In which the sink's peer is told the end."""
    is_at_work: bool = True
    """Does its task do the sending? At first, because the source may bring something too soon."""
    _splicing: Splicing = attrs.Factory(Splicing, takes_self=True)
    _pour: Pour = attrs.Factory(Pour, takes_self=True)
    _work: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    _sink_opened: trio.Event = attrs.Factory(trio.Event)
    _trouble: str = ""

    # ------------------------------------------------------------ handlers

    def receive(self, data: bytes) -> int:
        """The ``on_receive`` of the source."""
        if self.is_at_work or self._may_be_lost:
            self.set_to_work()
            return 0
        self._splicing.note_read(len(data))
        try:
            taken = self.sink.try_send(data)
            if taken < len(data):
                taken += self._pour.send_rest(memoryview(data)[taken:])
            self.sent += taken
            self._trouble = "" if taken else self._trouble
        except BackendDisconnectedError:
            taken = 0 if self.holds else self._drop(data)
        except (ChardevError, trio.ClosedResourceError):  # the task finds out what it is
            taken = 0
        if taken < len(data):
            self.set_to_work()
        elif self.exchange is not None:
            self.exchange.piece_sent(self, taken)
        return taken

    def control(self, event: BackendEvent) -> None:
        """The source has reported a break, line settings or modem lines, or its peer's end."""
        self._controls.append(event)
        if len(self._controls) > MAX_CONTROLS:
            oldest = next(e for e in self._controls if type(e) is type(event))
            self._controls.remove(oldest)
        self.set_to_work()

    def source_told(self, event: Event, chardev: Chardev) -> None:
        """*chardev*, the source, has opened or closed. A CLOSED of a change is no peer's end."""
        if event is Event.OPENED:
            self._opened = chardev.backend
        elif self.passes_eof and chardev.backend is self._opened and not chardev.is_open:
            self.control(event)

    def forget_end(self) -> None:
        """The source's peer that has ended was the sink's, too, which has another now."""
        while Event.CLOSED in self._controls:
            self._controls.remove(Event.CLOSED)
        self._ending.cancel()

    def sink_opened(self) -> None:
        """Somebody has come to the sink."""
        self._sink_opened.set()

    async def be_change(self, backend: Controls) -> None:
        """Set the line of the sink's new backend as that of the old one was set."""
        if self.line is not None:
            with suppress(NotSupportedError):
                await backend.line.set(self.line)
        if self.modem is not None:
            with suppress(NotSupportedError):
                await backend.line.set_modem(self.modem)

    # ------------------------------------------------------------ the task

    async def run(self) -> None:
        """Send what the sink does not take at once, until cancelled, or one of the two is gone."""
        self.sink.relay.keeps_refused = True
        try:
            while True:
                while self._controls:
                    await self._carry_out(self._controls.popleft())
                if not await self._splicing.push() and (data := self.source.relay.peek()):
                    await self._push(data)
                if not self._controls:
                    self.is_at_work = False
                    self.source.accept_input()
                while not self.is_at_work:
                    await self._work.park()
        except trio.ClosedResourceError:
            log.debug("no more from '%s'", self.source.id)

    def set_to_work(self) -> None:
        """Have the task do the sending, until all has been sent."""
        self.is_at_work = True
        self._work.unpark_all()

    async def _push(self, data: bytes) -> None:
        """Have the sink take some of *data*, the next bytes of the source; or drop them."""
        self._sink_opened = trio.Event()
        if self._may_be_lost:
            await self._wait_for_sink()
            return
        if sent := self._pour.send_rest(memoryview(data)):
            self._note_sent(sent)
            await trio.lowlevel.checkpoint()
            return
        try:
            sent = await self.sink.send_some(data)
        except BackendDisconnectedError:
            if self.holds:
                await self._wait_for_sink()
            else:
                self.source.relay.consume(self._drop(data))
        except BackendError as exc:
            self._tell(exc)
            if self.holds or self.sink.is_open:
                await self._wait_for_sink()
            else:
                self.source.relay.consume(self._drop(data))
        else:
            self._note_sent(sent)

    @property
    def _may_be_lost(self) -> bool:
        """Is the next byte to be held, as nobody can tell whether the peer is there to read it?"""
        return self.holds and self.sink.backend.peer.may_have_left

    async def _wait_for_sink(self) -> None:
        """Wait for somebody to come, or if the sink is open a moment: nothing may tell then."""
        with trio.move_on_after(RETRY_INTERVAL if self.sink.is_open else math.inf):
            await self._sink_opened.wait()

    def _note_sent(self, size: int) -> None:
        self._trouble = ""
        self.source.relay.consume(size)
        self.sent += size

    def _tell(self, error: BackendError) -> None:
        """Log *error*, but once if it comes again and again."""
        text = f"chardev '{self.sink.id}': {error}"
        if text != self._trouble:
            self._trouble = text
            log.warning("%s", text)

    def _drop(self, data: bytes) -> int:
        self.dropped += len(data)
        self.sink.relay.give_up(data)
        return len(data)

    async def _carry_out(self, event: BackendEvent) -> None:
        """Have the sink do what it can of *event*."""
        with suppress(NotSupportedError, BackendDisconnectedError):
            try:
                match event:
                    case LineSettings():
                        await self._set_line(event)
                    case ModemLines():
                        await self._set_modem(event)
                    case Event.BREAK:
                        await self.sink.line.send_break()
                    case Event.CLOSED:
                        with trio.CancelScope() as self._ending:
                            await self.sink.send_eof()
            except BackendDisconnectedError:
                raise
            except BackendError as exc:
                self._tell(exc)

    async def _set_line(self, settings: LineSettings) -> None:
        before, self.line = self.line, settings
        try:
            await self.sink.line.set(settings)
        except NotSupportedError:
            raise
        except BackendError:
            self.line = before
            raise

    async def _set_modem(self, lines: ModemLines) -> None:
        self.modem = crossed(lines)
        await self.sink.line.set_modem(self.modem)


def crossed(lines: ModemLines) -> ModemLines:
    """What the wires of a null-modem cable make of *lines*: each output is another's input."""
    for one, other in (
        (ModemLines.RTS, ModemLines.CTS),
        (ModemLines.DTR, ModemLines.DSR),
    ):
        if lines & (one | other):
            lines |= one | other
    return lines
