"""A frontend's line: that of whichever backend is in place."""

from __future__ import annotations

from collections.abc import Callable

from trio_chardev.core.line import BREAK_DURATION, Line
from trio_chardev.core.outbox import Outbox
from trio_chardev.events import LineRequest, LineSettings, ModemLines, Purge


class LineInPlace(Line):
    """Passes each call to the line of the backend in place.

    The calls that may wait use the backend exclusively, like a change: a writer that is stuck gives
    way. They raise as `Frontend.send_all` too, and WriteInChangeError in a ``be_change`` handler.
    """

    def __init__(self, outbox: Outbox, check: Callable[[], None]) -> None:
        """*check* raises if the frontend is no longer attached."""
        super().__init__(outbox.id)
        self._outbox = outbox
        self._check = check

    def _line(self) -> Line:
        self._check()
        return self._outbox.usable_runner().backend.line

    @property
    def settings(self) -> LineSettings:
        return self._line().settings

    async def set(self, settings: LineSettings) -> None:
        async with self._outbox.exclusive():
            await self._line().set(settings)

    def show(self, settings: LineSettings) -> None:
        self._line().show(settings)

    def look(self) -> None:
        self._line().look()

    async def get_modem(self) -> ModemLines:
        async with self._outbox.exclusive():
            return await self._line().get_modem()

    async def set_modem(self, lines: ModemLines) -> None:
        async with self._outbox.exclusive():
            await self._line().set_modem(lines)

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        async with self._outbox.exclusive():
            await self._line().send_break(duration)

    async def set_break(self, is_on: bool) -> None:
        async with self._outbox.exclusive():
            await self._line().set_break(is_on)

    async def purge(self, buffers: Purge) -> None:
        async with self._outbox.exclusive():
            await self._line().purge(buffers)

    def acknowledge(self, request: LineRequest, in_force: LineRequest | None) -> None:
        self._line().acknowledge(request, in_force)

    async def set_echo(self, echo: bool) -> None:
        async with self._outbox.exclusive():
            await self._line().set_echo(echo)
