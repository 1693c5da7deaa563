"""The line calls of one backend, where it has them."""

from __future__ import annotations

import attrs

from trio_chardev.core.abilities import (
    BreakControl,
    EchoControl,
    EofControl,
    LineControl,
    LineDisplay,
    LineState,
    LineWatch,
    ModemControl,
)
from trio_chardev.core.backend import Backend
from trio_chardev.errors import NotSupportedError
from trio_chardev.events import LineSettings, ModemLines

BREAK_DURATION = 0.25  # seconds; tcsendbreak(3) has 0.25 to 0.5


@attrs.frozen
class Controls:
    """What a ``be_change`` handler may use of a backend, for it may not write.

    Each call raises NotSupportedError if the backend has no such thing, and BackendError if
    it fails.
    """

    backend: Backend

    is_original: bool = False
    """The change is being undone: this is the backend that was and stays in place."""

    @property
    def filename(self) -> str:
        """What query-chardev shows."""
        return self.backend.filename

    @property
    def is_open(self) -> bool:
        """Is somebody at the other end?"""
        return self.backend.is_open

    @property
    def line(self) -> LineSettings:
        """The line settings in force."""
        if not isinstance(self.backend, LineState):
            raise self._lacks("line settings")
        return self.backend.line

    def show_line(self, settings: LineSettings) -> None:
        """Have users that see a terminal's settings see *settings*."""
        if not isinstance(self.backend, LineDisplay):
            raise self._lacks("line settings to show")
        self.backend.show_line(settings)

    def look_at_line(self) -> None:
        """Have what has changed reported, by a backend that does not do so by itself."""
        if not isinstance(self.backend, LineWatch):
            raise self._lacks("line to look at")
        self.backend.look_at_line()

    async def set_line(self, settings: LineSettings) -> None:
        """Set speed, data bits, parity, stop bits and flow control."""
        if not isinstance(self.backend, LineControl):
            raise self._lacks("line settings")
        await self.backend.set_line(settings)

    async def get_modem(self) -> ModemLines:
        """The modem lines that are on."""
        if not isinstance(self.backend, ModemControl):
            raise self._lacks("modem lines")
        return await self.backend.get_modem()

    async def set_modem(self, lines: ModemLines) -> None:
        """Turn DTR and RTS on if they are in *lines*, else off."""
        if not isinstance(self.backend, ModemControl):
            raise self._lacks("modem lines")
        await self.backend.set_modem(lines)

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        """Send a break of *duration* seconds."""
        if not isinstance(self.backend, BreakControl):
            raise self._lacks("break")
        await self.backend.send_break(duration)

    def set_echo(self, echo: bool) -> None:
        """Have what is typed at a terminal shown, or not."""
        if not isinstance(self.backend, EchoControl):
            raise self._lacks("echo")
        self.backend.set_echo(echo)

    def send_eof(self) -> None:
        """Tell the peer that no more will come, behind what was sent."""
        if not isinstance(self.backend, EofControl):
            raise self._lacks("end of its own in each direction")
        self.backend.send_eof()

    def _lacks(self, what: str) -> NotSupportedError:
        return NotSupportedError(f"'{self.filename}' has no {what}")
