"""The line of a mux, which is its base's."""

from __future__ import annotations

from trio_chardev.backends.stacked.base import base_errors
from trio_chardev.core.frontend import Frontend
from trio_chardev.core.line import BREAK_DURATION, Line
from trio_chardev.events import LineRequest, LineSettings, ModemLines, Purge, WindowSize


class MuxLine(Line):
    """Passes each call to the base, but for the echo, which is a terminal's own affair."""

    is_settable = True

    def __init__(self, filename: str, base: Frontend) -> None:
        super().__init__(filename)
        self._base = base.line

    @property
    def missing(self) -> frozenset[str]:
        with base_errors():
            return self._base.missing

    @property
    def settings(self) -> LineSettings:
        with base_errors():
            return self._base.settings

    async def set(self, settings: LineSettings) -> None:
        with base_errors():
            await self._base.set(settings)

    def show(self, settings: LineSettings) -> None:
        with base_errors():
            self._base.show(settings)

    @property
    def polled(self) -> frozenset[str]:
        with base_errors():
            return self._base.polled

    @property
    def is_notified(self) -> bool:
        with base_errors():
            return self._base.is_notified

    def look(self, *, anew: bool = False) -> None:
        with base_errors():
            self._base.look(anew=anew)

    async def get_modem(self) -> ModemLines:
        with base_errors():
            return await self._base.get_modem()

    async def set_modem(self, lines: ModemLines) -> None:
        with base_errors():
            await self._base.set_modem(lines)

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        with base_errors():
            await self._base.send_break(duration)

    async def set_break(self, is_on: bool) -> None:
        with base_errors():
            await self._base.set_break(is_on)

    async def purge(self, buffers: Purge) -> None:
        with base_errors():
            await self._base.purge(buffers)

    async def set_window_size(self, size: WindowSize) -> None:
        with base_errors():
            await self._base.set_window_size(size)

    def keep(self, request: LineRequest) -> None:
        with base_errors():
            self._base.keep(request)

    def acknowledge(self, request: LineRequest, in_force: LineRequest | None) -> None:
        with base_errors():
            self._base.acknowledge(request, in_force)
