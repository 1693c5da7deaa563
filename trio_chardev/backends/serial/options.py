"""The options of a serial backend."""

from __future__ import annotations

from typing import Literal

import attrs

from trio_chardev.events import LineSettings, Parity
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.values import path_text


@attrs.frozen(kw_only=True)
class SerialOptions(BackendOptions):
    """Uses a serial line."""

    device: str = attrs.field(converter=path_text)
    """The line's device, such as /dev/ttyUSB0 or a name in /dev/serial/by-id. For a line of another
    host rfc2217://HOST:PORT, or socket://HOST:PORT, which has no settings."""

    speed: int = 115200
    """Bits per second, any that the device can do."""

    data_bits: Literal[5, 6, 7, 8] = 8
    """Bits of a character."""

    parity: Parity = "N"
    """Parity: N (none), E (even), O (odd), M (mark: always 1) or S (space: always 0)."""

    stop_bits: Literal[1, 2] = 1
    """Stop bits of a character."""

    xonxoff: bool = False
    """Flow control by XON and XOFF characters."""

    rtscts: bool = False
    """Flow control by the RTS and CTS lines."""

    exclusive: bool | None = None
    """Lock the line (flock, TIOCEXCL), or fail if another program or chardev has it; the default
    is on, but off for the slave of a PTY."""

    reopen_ms: int = 500
    """Milliseconds between looks for a line that went away; 0 ends the backend instead. A PTY is
    not looked for by its number, which others get, but by a link that is made anew."""

    @property
    def line(self) -> LineSettings:
        """The initial settings."""
        return LineSettings(
            self.speed, self.data_bits, self.parity, self.stop_bits, self.xonxoff, self.rtscts
        )
