"""A direction of a bridge whose bytes are translated, framed or paced.

Nothing is sent by the task that reads the source, and nothing bypasses this process: all that comes
waits in the source's queue, until the flow's task has sent what it becomes. So a frame that is not
over, and bytes whose time has not come, are where a change or the end of the bridge finds them.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress

import attrs
import trio

from trio_chardev.core.timer import PreciseTimer, open_timer
from trio_chardev.devices.flow import Flow
from trio_chardev.devices.framing import MAX_FRAME, Framer
from trio_chardev.devices.pacing import Pacer, byte_time
from trio_chardev.devices.translation import Translation
from trio_chardev.errors import ChardevError


@attrs.define(eq=False, repr=False)
class ShapedFlow(Flow):
    """A `Flow` that shapes what it sends."""

    translation: Translation = attrs.Factory(lambda: Translation("none"))
    framer: Framer | None = None
    pacer: Pacer | None = None
    _data: bytes = b""
    """The bytes of the source that are being moved on."""
    _output: bytes = b""
    """What is pushed of what they become."""
    _timer: PreciseTimer = attrs.Factory(lambda: PreciseTimer(None))
    """Waits for a byte's time; delays of less than a millisecond need a precise one."""
    _waiting: trio.CancelScope = attrs.Factory(trio.CancelScope)
    """The scope in which the rest of a frame is waited for."""

    def receive(self, data: bytes) -> int:
        """Leave *data* to the task."""
        self.set_to_work()
        return 0

    async def _work_on(self) -> None:
        with open_timer() if self.pacer is not None else nullcontext(self._timer) as self._timer:
            await super()._work_on()

    def finish(self) -> None:
        """Send on from now on what comes, frame or not."""
        self.framer = None
        self._waiting.cancel()

    async def _move_some(self) -> bool:
        """Move on a frame, a line, a byte, or what there is; or wait for its time."""
        self._data, is_whole = self.source.relay.peek_run(MAX_FRAME)
        if self.framer is not None and self._data:
            size = self.framer.find(self._data, trio.current_time(), is_whole=is_whole)
            if not size:
                await self._wait_for_more(self.framer.deadline)
                return True
            self._data = self._data[:size]
        if not self._data:
            return False
        self._output = self.translation.translate(self._data)
        if self.pacer is not None and self._output and self._is_heard:
            if (when := self.pacer.wait_until(self._output)) > trio.current_time():
                await self._timer.wait_until(when)
                return True
            self._output = self._output[: self.pacer.piece(self._output)]
        if self._output:
            await self._push(self._output)
        else:
            self._take(0)
            await trio.lowlevel.checkpoint()
        return True

    async def _wait_for_more(self, deadline: float) -> None:
        """Wait until something has come, or that time, when all that can be read by then has come."""
        with trio.move_on_at(deadline) as self._waiting:
            await self.source.relay.wait_input()
        await trio.lowlevel.checkpoint()

    @property
    def _is_heard(self) -> bool:
        """Is somebody at the sink? What is for nobody need not be slow."""
        return self.sink.is_open or self.sink.backend.peer.is_lingering

    def _note_sent(self, size: int) -> None:
        super()._note_sent(size)
        if self.pacer is not None:
            self.pacer.sent(self._output[:size], trio.current_time(), self._byte_time)

    @property
    def _byte_time(self) -> float:
        """The seconds that a byte takes the sink's line; 0 where it has none that we know."""
        with suppress(ChardevError, trio.ClosedResourceError):
            return byte_time(self.sink.line.settings)
        return 0.0

    def _take(self, size: int) -> None:
        taken = self.translation.took(self._data, size)
        super()._take(taken)
        if self.framer is not None:
            self.framer.sent(taken)
