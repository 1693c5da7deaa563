"""Setting a part of a line as one: all of what is named, or nothing; and what a line is like now."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import attrs
import trio

from trio_chardev.core.kept_line import KeptLine
from trio_chardev.core.line import Line
from trio_chardev.core.runner import CLEANUP_TIMEOUT
from trio_chardev.errors import BackendDisconnectedError, NotSupportedError, OptionsError
from trio_chardev.events import (
    OUTPUTS,
    BreakState,
    LineRequest,
    LineSettings,
    ModemLines,
    Parity,
    WindowSize,
)

log = logging.getLogger(__name__)

FlowControl = Literal["none", "xonxoff", "rtscts"]
LineAbility = Literal["settings", "modem", "break"]
MAX_SPEED = (1 << 32) - 1  # bits per second, as termios2 has room for
_SETTINGS = ("speed", "data_bits", "parity", "stop_bits")  # of the same name in LineSettings


@attrs.frozen(kw_only=True)
class LineChange:
    """What to set of a line; None leaves that as it is."""

    speed: int | None = None
    """Bits per second, any that the device can do."""

    data_bits: Literal[5, 6, 7, 8] | None = None
    """Bits of a character."""

    parity: Parity | None = None
    """Parity: N (none), E (even), O (odd), M (mark) or S (space)."""

    stop_bits: Literal[1, 2] | None = None
    """Stop bits of a character."""

    flow: FlowControl | None = None
    """Flow control, by XON and XOFF characters or by the RTS and CTS lines."""

    dtr: bool | None = None
    """DTR on or off."""

    rts: bool | None = None
    """RTS on or off."""

    break_: bool | None = None
    """Break on, until it is turned off, or off."""

    def check(self) -> None:
        """Raise OptionsError for a speed that no line can have."""
        if self.speed is not None and not 0 < self.speed <= MAX_SPEED:
            raise OptionsError(f"'speed' must be from 1 to {MAX_SPEED} bits per second")

    def settings_after(self, before: LineSettings) -> LineSettings:
        """What *before* becomes."""
        named = {name: v for name in _SETTINGS if (v := getattr(self, name)) is not None}
        if self.flow is not None:
            named |= {name: self.flow == name for name in ("xonxoff", "rtscts")}
        return attrs.evolve(before, **named)

    @property
    def has_settings(self) -> bool:
        """Does it name any of the settings?"""
        return any(getattr(self, name) is not None for name in (*_SETTINGS, "flow"))

    @property
    def has_outputs(self) -> bool:
        """Does it name DTR or RTS?"""
        return self.dtr is not None or self.rts is not None

    def outputs_after(self, before: ModemLines) -> ModemLines:
        """What the outputs *before* become."""
        for line, is_on in ((ModemLines.DTR, self.dtr), (ModemLines.RTS, self.rts)):
            if is_on is not None:
                before = before | line if is_on else before & ~line
        return before


@attrs.frozen(kw_only=True)
class LineState:
    """A line as it is now; None where the backend has no such thing, or can't tell now."""

    speed: int | None = None
    """Bits per second."""

    data_bits: int | None = None
    parity: Parity | None = None
    stop_bits: int | None = None
    flow: FlowControl | None = None
    dtr: bool | None = None
    """Outputs, DTR and RTS: are they on?"""

    rts: bool | None = None
    cts: bool | None = None
    """Inputs, CTS, DSR, DCD and RI: are they on?"""

    dsr: bool | None = None
    dcd: bool | None = None
    ri: bool | None = None
    break_: bool | None = None
    """Was a break turned on, and not turned off yet? The kernel can't be asked."""

    supported: tuple[LineAbility, ...]
    """What the line can do."""

    missing: tuple[str, ...] = ()
    """What its driver has refused, see `Line.missing`."""


async def read_state(line: Line, kept: KeptLine) -> LineState:
    """Return the state of *line*, which was set as in *kept*. Raises BackendError."""
    supported: list[LineAbility] = []
    known: dict[str, object] = {}
    try:
        known |= _described(line.settings)
        supported.append("settings")
    except NotSupportedError:
        pass
    try:
        known |= _shown(await line.get_modem())
        supported.append("modem")
    except (NotSupportedError, BackendDisconnectedError):
        pass
    missing = line.missing - {"window"}  # which is no refusal: a board has none
    if "break" not in missing:
        known["break_"] = kept.is_break
        supported.append("break")
    return LineState(supported=tuple(supported), missing=tuple(sorted(missing)), **known)  # type: ignore[arg-type]


def _described(settings: LineSettings) -> dict[str, object]:
    flow = "rtscts" if settings.rtscts else "xonxoff" if settings.xonxoff else "none"
    return {
        "speed": settings.speed,
        "data_bits": settings.data_bits,
        "parity": settings.parity,
        "stop_bits": settings.stop_bits,
        "flow": flow,
    }


def _shown(lines: ModemLines) -> dict[str, object]:
    names = {"dtr": "DTR", "rts": "RTS", "cts": "CTS", "dsr": "DSR", "dcd": "CAR", "ri": "RI"}
    return {name: ModemLines[line] in lines for name, line in names.items()}


@attrs.define(eq=False, repr=False)
class HeldLine:
    """Sets a line that nobody else uses meanwhile, and can put it back as it was."""

    line: Line
    kept: KeptLine
    """What is to be kept of the line, if all goes well."""
    _check: Callable[[], object]
    """Raises if the line is not the backend's in place any more."""
    _settings: LineSettings | None = None
    """Those in force, once they matter."""
    _outputs: ModemLines | None = None
    _is_break: bool = attrs.field(init=False)
    _undo: dict[type, LineRequest] = attrs.field(factory=dict, init=False)
    """What each kind of setting was at first."""

    def __attrs_post_init__(self) -> None:
        self._is_break = self.kept.is_break

    async def look(self, *changes: LineChange) -> None:
        """Look at what *changes* will change, so that it can be put back.

        Raises NotSupportedError, BackendError.
        """
        if any(change.has_settings for change in changes):
            self._settings = self.line.settings
        if any(change.has_outputs for change in changes):
            self._outputs = await self.line.get_modem() & OUTPUTS

    async def do(self, change: LineChange) -> None:
        """Set what *change* names, and `look` has looked at; what is in force is not touched.

        Raises NotSupportedError, BackendError, Cancelled, perhaps half way: see `put_back`.
        """
        self._check()
        if self._settings is not None and change.has_settings:
            wanted = change.settings_after(self._settings)
            await self._set(self._settings, wanted)
            self._settings = wanted
        if change.break_ is not None:
            await self._set(BreakState(self._is_break), BreakState(change.break_))
            self._is_break = change.break_
        if self._outputs is not None and change.has_outputs:
            outputs = change.outputs_after(self._outputs)
            await self._set(self._outputs, outputs)
            self._outputs = outputs

    async def _set(self, before: LineRequest, wanted: LineRequest) -> None:
        if before != wanted:
            self._undo.setdefault(type(before), before)
            await drive(self.line, wanted)
        self.kept = self.kept.after(wanted)

    async def put_back(self) -> None:
        """Put all back as it was, last things first. It can't be Cancelled; raises nothing."""
        with trio.move_on_after(CLEANUP_TIMEOUT, shield=True) as cut:
            for before in reversed(self._undo.values()):
                try:
                    await drive(self.line, before)
                except Exception as exc:
                    log.warning("%s: its line can't be put back: %r", self.line.filename, exc)
        if cut.cancelled_caught:
            log.warning("%s: its line can't be put back in time", self.line.filename)


async def drive(line: Line, request: LineRequest) -> None:
    """Do *request* to *line*. Raises NotSupportedError, BackendError."""
    match request:
        case LineSettings():
            await line.set(request)
        case ModemLines():
            await line.set_modem(request)
        case BreakState():
            await line.set_break(request.is_on)
        case WindowSize():
            await line.set_window_size(request)
        case _:
            await line.purge(request)
