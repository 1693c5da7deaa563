"""What was set of a chardev's line, by whomever: it is set again on each new backend."""

from __future__ import annotations

from contextlib import suppress

import attrs

from trio_chardev.core.line import Line
from trio_chardev.errors import NotSupportedError
from trio_chardev.events import BreakState, LineRequest, LineSettings, ModemLines, WindowSize


@attrs.frozen
class KeptLine:
    """The line as it was last set, where it was set at all: None leaves it to the backend."""

    settings: LineSettings | None = None
    modem: ModemLines | None = None
    """The outputs, DTR and RTS, that are on."""
    is_break: bool = False
    window_size: WindowSize | None = None

    def after(self, request: LineRequest) -> KeptLine:
        """What is kept once *request* was done."""
        match request:
            case LineSettings():
                return attrs.evolve(self, settings=request)
            case ModemLines():
                return attrs.evolve(self, modem=request)
            case BreakState():
                return attrs.evolve(self, is_break=request.is_on)
            case WindowSize():
                return attrs.evolve(self, window_size=request)
        return self  # a purge leaves nothing behind

    async def set_up(self, line: Line) -> None:
        """Set *line*, that of a new backend, likewise; what it has not is left out.

        Raises BackendError if the backend refuses.
        """
        if self.settings is not None:
            with suppress(NotSupportedError):
                await line.set(self.settings)
        if self.modem is not None:
            with suppress(NotSupportedError):
                await line.set_modem(self.modem)
        if self.is_break:
            with suppress(NotSupportedError):
                await line.set_break(True)
        if self.window_size is not None:
            with suppress(NotSupportedError):
                await line.set_window_size(self.window_size)


NOTHING_KEPT = KeptLine()
