"""Looks for a serial line that is absent, until it can be opened and set up."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import attrs
import trio

from trio_chardev.backends.serial.arrivals import next_pause
from trio_chardev.backends.serial.device import Device, is_absent
from trio_chardev.core.peer import Outlook
from trio_chardev.errors import BackendError

log = logging.getLogger(__name__)


@attrs.define(eq=False, repr=False)
class Search:
    """Looks for *device* `interval` seconds after it was missed, then when it comes, or seldom."""

    label: str
    device: Device
    interval: float
    error: str = ""
    """Why the line is not open: how the last look ended, or what happened before."""
    _on_failure: Callable[[], None] = lambda: None
    """Called when the line could not be opened, or was lost."""
    _next_look: float | None = attrs.field(default=None, init=False)
    _pausing: trio.CancelScope | None = attrs.field(default=None, init=False)

    async def run(self, open_line: Callable[[], Awaitable[None]]) -> None:
        """Call *open_line* until it does not raise BackendError."""
        pause = self.interval
        await self._pause(pause, trio.sleep_forever)
        while True:
            arrivals = await self.device.watch()  # from before the look, so that none is missed
            try:
                await open_line()
                return
            except BackendError as exc:
                self._note(exc)
                self._on_failure()
                is_told = arrivals.works and is_absent(exc)
                pause = next_pause(pause, self.interval, is_told=is_told)
                if await self._pause(pause, arrivals.wait):
                    pause = 0
            finally:
                arrivals.close()

    async def _pause(self, seconds: float, wait: Callable[[], Awaitable[None]]) -> bool:
        """Wait, but not longer than *seconds*, nor after `retry`. Has *wait* ended?"""
        self._next_look = trio.current_time() + seconds
        try:
            with trio.move_on_at(self._next_look) as self._pausing:
                await wait()
        finally:
            self._next_look = None
        return not self._pausing.cancelled_caught

    def _note(self, error: BackendError) -> None:
        if str(error) != self.error:
            self.error = str(error)
            log.info("chardev '%s': %s", self.label, self.error)

    def note_loss(self, error: str) -> None:
        """Note that the line is open no more, for that reason."""
        self.error = error
        self._on_failure()

    def retry(self) -> None:
        """Look now; a look that is under way is enough."""
        if self._next_look is not None and self._pausing is not None:
            self._pausing.cancel()

    @property
    def outlook(self) -> Outlook:
        """See `Peer.outlook`."""
        return Outlook(
            may_come=self.interval > 0, last_error=self.error or None, next_try=self._next_look
        )
