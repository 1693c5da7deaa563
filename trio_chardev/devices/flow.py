"""One direction of a bridge: it passes on bytes, breaks, line settings, modem lines and the window's size.

As long as the sink takes the bytes at once they are sent by the task that reads the source,
in the call that brings them (`receive`). What the sink does not take stays in the source's queue,
which is bounded, so a slow sink slows the source's peer. Then, and when an event comes that takes
time, such as a break, a task of its own is at work: nothing else is sent until it has handled
the first item of the queue. So the order is kept, and no byte is held outside of a queue: a byte
leaves the source's queue when the sink has it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import attrs
import trio

from trio_chardev.core.backend import Backend
from trio_chardev.core.chardev import Chardev
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.line_change import drive
from trio_chardev.core.runner import CLEANUP_TIMEOUT
from trio_chardev.core.waiting import Once, Waiters
from trio_chardev.devices import splice
from trio_chardev.devices.exchange import Exchange
from trio_chardev.devices.notice import Notice
from trio_chardev.devices.pour import Pour
from trio_chardev.errors import (
    BackendDisconnectedError,
    BackendError,
    ChardevError,
    NotSupportedError,
)
from trio_chardev.events import (
    BackendEvent,
    BreakState,
    Event,
    LineRequest,
    LineSettings,
    ModemLines,
    WindowSize,
)

log = logging.getLogger(__name__)

RETRY_INTERVAL = 1.0  # seconds, after an error of a sink that is open
_NAMES = {LineSettings: "settings", WindowSize: "window"}  # see `Line.missing`
MAX_CONTROLS = 64  # breaks and other events that wait for one to be carried out


@attrs.define(eq=False, repr=False)
class Flow:
    """One direction of a bridge. Its owner sets `source` and `sink`, and then runs it by `run_flows`."""

    holds: bool = False
    """Do bytes wait while nobody is at the sink? Else they are dropped, as by a cable."""
    source: Frontend = attrs.field(init=False)
    sink: Frontend = attrs.field(init=False)
    exchange: Exchange | None = None
    """The fast path that it shares with the flow in the other direction."""
    sent: int = 0
    """Bytes that the sink has taken."""
    dropped: int = 0
    """Bytes that were dropped, because nobody was there."""
    failures: int = 0
    """How often something could not be done to the sink, though somebody was there."""
    line: LineSettings | None = None
    """The last line settings that came and were not refused."""
    is_break: bool = False
    """Is the break on that the source has turned on?"""
    passes_eof: bool = False
    """Is the end of the source's peer passed on to the sink's, after all that came before?"""
    says_news: bool = False
    """Is what happens to the source told in a line of text, at a sink that learns nothing of it?"""
    _opened: Backend | None = None
    """The backend of the source's OPENED that came last."""
    _controls: list[BackendEvent | Notice] = attrs.Factory(list)
    _driving: LineRequest | None = None
    """What is being done to the sink's line."""
    _ending: trio.CancelScope | None = None
    """The scope in which the end is passed on to the sink's peer."""
    is_at_work: bool = True
    """Does its task send? At first it does, as the source may bring something before it runs."""
    _splicing: splice.Splicing = attrs.Factory(splice.Splicing, takes_self=True)
    _was_large: bool = False
    """Has the last read brought much, so that the next one tells `_splicing` something?"""
    _pour: Pour = attrs.Factory(Pour, takes_self=True)
    _nursery: trio.Nursery | None = None
    """Where its task runs."""
    _has_task: bool = False
    over: Once = attrs.Factory(Once)
    """Set when one side was removed."""
    _work: Waiters = attrs.Factory(Waiters)
    _sink_opened: Once = attrs.Factory(Once)
    trouble: str = ""
    """What has failed, until something is sent again."""
    _held_at: float | None = None
    """Since when bytes wait for somebody to come to the sink."""

    # ------------------------------------------------------------ handlers

    def receive(self, data: bytes) -> int:
        """Send *data*; the ``on_receive`` of the source. Returns how many bytes were taken."""
        if self.is_at_work or (self.holds and self._may_be_lost):
            self.set_to_work()
            return 0
        size = len(data)
        if size >= splice.SMALL or self._was_large:
            self._was_large = size >= splice.SMALL
            self._splicing.note_read(size)
        try:
            taken = self.sink.try_send(data)
            if taken < size:
                taken += self._pour.send_rest(memoryview(data)[taken:])
            self.sent += taken
            self.trouble = "" if taken else self.trouble
        except BackendDisconnectedError:
            taken = 0 if self.holds else self._drop(data)
        except (ChardevError, trio.ClosedResourceError):  # the task will meet and handle it
            taken = 0
        if taken < size:
            self.set_to_work()
        elif self.exchange is not None and self.exchange.is_possible:
            self.exchange.piece_sent(self, taken)
        return taken

    def control(self, event: BackendEvent | Notice) -> None:
        """Queue a break, line settings, modem lines or the peer's end that the source reported.

        Or what the sink's users are to be told of that.
        """
        if isinstance(event, WindowSize):  # of several only the last matters
            self._controls = [e for e in self._controls if not isinstance(e, WindowSize)]
        self._controls.append(event)
        if len(self._controls) > MAX_CONTROLS:
            oldest = next(e for e in self._controls if type(e) is type(event))
            self._controls.remove(oldest)
        self.set_to_work()

    def source_told(self, event: Event, chardev: Chardev) -> None:
        """Handle OPENED or CLOSED of the source, *chardev*. A change's CLOSED is not an end."""
        if event is Event.OPENED:
            self._opened = chardev.backend
            return
        if self.is_break or BreakState(True) in self._controls:
            self.control(BreakState(False))  # whoever has turned it on can't turn it off any more
        if self.passes_eof and chardev.backend is self._opened and not chardev.is_open:
            self.control(event)

    def forget_end(self) -> None:
        """Pass no end on: the peer that has ended was the sink's, too, which has a new one now."""
        while Event.CLOSED in self._controls:
            self._controls.remove(Event.CLOSED)
        if self._ending is not None:
            self._ending.cancel()

    @property
    def is_setting(self) -> bool:
        """Are the sink's line settings about to become those that the source has asked for?"""
        waiting = (self._driving, *self._controls)
        return any(isinstance(event, LineSettings) for event in waiting)

    def sink_opened(self) -> None:
        """Note that somebody has come to the sink."""
        self._sink_opened.set()

    def keep_settings(self) -> None:
        """Keep settings and sizes for the sink's next backend that the one in place can't have.

        No byte before them depends on them then, so the next one can be set before it is in place.
        """
        line = self.sink.line
        with suppress(ChardevError, trio.ClosedResourceError):
            missing = line.missing
            for event in self._controls:
                if isinstance(event, LineSettings | WindowSize) and _NAMES[type(event)] in missing:
                    line.keep(event)

    @property
    def blocked_at(self) -> float | None:
        """Since when the sink takes nothing, by Trio's clock; None if it does, or nothing waits."""
        if not self.is_at_work:
            return None
        return self.sink.relay.blocked_at if self._held_at is None else self._held_at

    def finish(self) -> None:
        """Hold nothing back for a better time: everything ends soon."""

    # ------------------------------------------------------------ the task

    def begin(self, nursery: trio.Nursery) -> None:
        """Send what has come, and from now on what comes, by a task in *nursery* if need be."""
        self.sink.relay.keeps_refused = True
        self._nursery = nursery
        self.set_to_work()

    def stop(self) -> None:
        """Let nothing be sent any more but by the task that there is."""
        self.is_at_work = True
        self._nursery = None

    def set_to_work(self) -> None:
        """Have the task, which there is while there is work, send until everything has been sent."""
        self.is_at_work = True
        if self._has_task:
            self._work.wake()
        elif self._nursery is not None:
            self._has_task = True
            self._nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            await self._work_on()
        except trio.ClosedResourceError:
            log.debug("no more from '%s'", self.source.id)
            self.stop()
            self.over.set()
            await self.end_break()  # noqa: ASYNC120 - it shields itself, with a deadline

    async def _work_on(self) -> None:
        """Send what the sink does not take at once."""
        has_moved = False
        while True:
            while self._controls:
                await self._carry_out(self._controls.pop(0))
            has_moved = await self._move_some() or has_moved
            if not self._controls:
                self.is_at_work = False
                self._held_at = None
                self.source.accept_input()
            if not (self.is_at_work or has_moved):  # if bytes have, more will come to be moved
                self._has_task = False
                return
            while not self.is_at_work:
                await self._work.wait()

    async def end_break(self) -> None:
        """Turn the source's break off, if it is on, as nobody else will. It can't be Cancelled."""
        if self.is_break:
            self.is_break = False
            with (
                suppress(ChardevError, trio.ClosedResourceError),
                trio.move_on_after(CLEANUP_TIMEOUT, shield=True),
            ):
                await self.sink.line.set_break(False)

    async def _move_some(self) -> bool:
        """Move on some of what the source has; return False if it has nothing."""
        if await self._splicing.push():
            self._held_at = None
            return True
        if data := self.source.relay.peek():
            await self._push(data)
        return bool(data)

    async def _push(self, data: bytes) -> None:
        """Send some of *data*, what the source has next, to the sink; or drop it."""
        self._sink_opened = Once()
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
                self._take(self._drop(data))
        except BackendError as exc:
            self._tell(exc)
            if self.holds or self.sink.is_open:
                await self._wait_for_sink()
            else:
                self._take(self._drop(data))
        else:
            self._note_sent(sent)

    @property
    def _may_be_lost(self) -> bool:
        """Must the next byte be held, as nobody can tell whether the peer is there to read it?"""
        return self.holds and self.sink.backend.peer.may_have_left

    async def _wait_for_sink(self) -> None:
        """Wait for somebody to come; if the sink is open just 1 s, as no event may come then."""
        if self._held_at is None:
            self._held_at = trio.current_time()
        with trio.move_on_after(RETRY_INTERVAL if self.sink.is_open else math.inf):
            await self._sink_opened.wait()

    def _note_sent(self, size: int) -> None:
        self.trouble = ""
        self._held_at = None
        self._take(size)
        self.sent += size

    def _take(self, size: int) -> None:
        """Take from the source what *size* bytes are that were pushed."""
        self.source.relay.consume(size)

    def _tell(self, error: BackendError) -> None:
        """Log *error*, but only once while it recurs."""
        self.failures += 1
        if str(error) != self.trouble:
            self.trouble = str(error)
            log.warning("chardev '%s': %s", self.sink.id, error)

    def _drop(self, data: bytes) -> int:
        self.dropped += len(data)
        self._held_at = None
        self.sink.relay.give_up(data)
        return len(data)

    async def _tell_news(self, notice: Notice) -> None:
        """Tell who is at the sink *notice*, in its own way if it has one."""
        peer = self.sink.backend.peer
        if peer.takes_news:
            peer.tell(notice.text, notice.mark)
        elif self.says_news:
            await self._say(bytes(notice))

    async def _say(self, text: bytes) -> None:
        """Send *text*, which the source has not sent, if somebody is there to read it."""
        if not self._may_be_lost:
            with suppress(BackendError):
                while text:
                    text = text[await self.sink.send_some(text) :]

    async def _carry_out(self, event: BackendEvent | Notice) -> None:
        """Do to the sink what *event* asks for, as far as it can."""
        if isinstance(event, Notice):
            await self._tell_news(event)
            return
        if isinstance(event, LineRequest):
            self._driving = event
            try:
                in_force = await self._drive(event)
            finally:
                self._driving = None
            with suppress(ChardevError):
                self.source.line.acknowledge(event, in_force)
            return
        with suppress(NotSupportedError, BackendDisconnectedError):
            try:
                if event is Event.BREAK:
                    await self.sink.line.send_break()
                elif event is Event.CLOSED:
                    with trio.CancelScope() as self._ending:
                        await self.sink.send_eof()
            except BackendDisconnectedError:
                raise
            except BackendError as exc:
                self._tell(exc)

    async def _drive(self, request: LineRequest) -> LineRequest | None:
        """Do to the sink's line what is asked for; return what is in force then, if it is known.

        A line that lacks that altogether, or is away, is as one that has done it.
        """
        wanted = crossed(request) if isinstance(request, ModemLines) else request
        was_break = self.is_break
        if isinstance(request, BreakState):  # at once, as the source may leave meanwhile
            self.is_break = request.is_on
        try:
            await drive(self.sink.line, wanted)
        except (NotSupportedError, BackendDisconnectedError):
            with suppress(ChardevError):
                self.sink.line.keep(wanted)
        except BackendError as exc:
            self._tell(exc)
            self.is_break = was_break
            return await self._in_force(request)
        if isinstance(request, LineSettings):
            self.line = request
        return request

    async def _in_force(self, refused: LineRequest) -> LineRequest | None:
        """Return what is in force at the sink's line, which has refused *refused*."""
        with suppress(ChardevError):
            match refused:
                case LineSettings():
                    return self.sink.line.settings
                case ModemLines():
                    return await self.sink.line.get_modem()
                case BreakState():
                    return BreakState(self.is_break)
        return self.line if isinstance(refused, LineSettings) else None


async def run_flows(flows: Sequence[Flow], run: Callable[[], Awaitable[None]]) -> None:
    """Run *flows* while *run* runs."""
    try:
        async with trio.open_nursery() as nursery:
            for flow in flows:
                flow.begin(nursery)
            try:
                await run()
            finally:
                for flow in flows:
                    flow.stop()
                nursery.cancel_scope.cancel()
    finally:
        for flow in flows:
            await flow.end_break()  # noqa: ASYNC102 - it shields itself, with a deadline


def crossed(lines: ModemLines) -> ModemLines:
    """Cross *lines* as a null-modem cable does: each output becomes the other side's input."""
    for one, other in (
        (ModemLines.RTS, ModemLines.CTS),
        (ModemLines.DTR, ModemLines.DSR),
    ):
        if lines & (one | other):
            lines |= one | other
    return lines
