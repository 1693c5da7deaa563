"""What a backend tells its frontend apart from bytes, and the state of a serial line."""

from __future__ import annotations

import enum
from typing import Final, Literal, TypeAlias

import attrs


class Event(enum.Enum):
    """QEMU's chardev events; they reach a frontend in order with the bytes."""

    BREAK = "BREAK"
    OPENED = "OPENED"
    CLOSED = "CLOSED"
    MUX_IN = "MUX_IN"
    MUX_OUT = "MUX_OUT"


Parity = Literal["N", "E", "O", "M", "S"]


@attrs.frozen
class LineSettings:
    """The parameters of a serial line; QEMU opens every line with these defaults."""

    speed: int = 115200
    data_bits: Literal[5, 6, 7, 8] = 8
    parity: Parity = "N"
    stop_bits: Literal[1, 2] = 1
    xonxoff: bool = False
    rtscts: bool = False

    def __str__(self) -> str:
        """The usual short form, such as ``9600 8E1``."""
        return f"{self.speed} {self.data_bits}{self.parity}{self.stop_bits}"


class ModemLines(enum.Flag):
    """Modem control lines, with the values of Linux's TIOCM bits (ioctl_tty(2))."""

    DTR = 0x002
    RTS = 0x004
    CTS = 0x020
    CAR = 0x040
    RI = 0x080
    DSR = 0x100


OUTPUTS: Final = ModemLines.DTR | ModemLines.RTS
"""The lines that a line's user drives."""

INPUTS: Final = ModemLines.CTS | ModemLines.DSR | ModemLines.CAR | ModemLines.RI
"""The lines that the other end drives."""


@attrs.frozen
class BreakState:
    """A break that lasts until it is turned off; `Event.BREAK` is one of a usual length."""

    is_on: bool


class Purge(enum.Flag):
    """Buffers to discard (tcflush(3)), as seen from the line: what came from it, or waits for it."""

    RECEIVE = 1
    TRANSMIT = 2


MAX_COLUMNS = (
    1 << 16
) - 1  # and rows, as winsize of ioctl_tty(2) and NAWS of RFC 1073 have room for


@attrs.frozen
class WindowSize:
    """The size of the window in which somebody sees the line, in characters; 0x0 is unknown.

    Raises ValueError for what does not fit into 16 bits.
    """

    cols: int = attrs.field(default=0)
    rows: int = attrs.field(default=0)

    @cols.validator
    @rows.validator
    def _check(self, attribute: attrs.Attribute[int], value: int) -> None:
        if not 0 <= value <= MAX_COLUMNS:
            raise ValueError(f"{attribute.name} must be from 0 to {MAX_COLUMNS}, not {value}")

    @property
    def is_known(self) -> bool:
        """Is it a size at all, rather than 0x0?"""
        return bool(self.cols or self.rows)

    def __str__(self) -> str:
        """The usual short form, columns first, such as ``80x24``."""
        return f"{self.cols}x{self.rows}"


UNKNOWN_SIZE: Final = WindowSize()
"""The size of a window that nobody has told of."""


LineRequest: TypeAlias = LineSettings | ModemLines | BreakState | Purge | WindowSize
"""What the other end wants of the line, see `trio_chardev.core.line.Line.acknowledge`."""

BackendEvent: TypeAlias = Event | LineRequest
"""What a backend reports, in order with the bytes.

`LineSettings`: the settings that the other end has chosen, as the user of a PTY does.
`ModemLines`: those lines driven by the other end that are on. For a serial line these are its
inputs (CTS, DSR, CAR, RI); for a client that drives a line over a network, DTR and RTS.
`BreakState` and `Purge`: what such a client wants.
`WindowSize`: the size of the other end's window, now or from now on. With a mux only the focused user is
told; who gets the focus, or OPENED, looks at `Frontend.window_size`.
"""
