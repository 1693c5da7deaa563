"""The options of a serial backend."""

from __future__ import annotations

from typing import Literal, Self

import attrs

from trio_chardev.core.line_change import MAX_SPEED
from trio_chardev.errors import OptionsError
from trio_chardev.events import LineSettings, Parity
from trio_chardev.options.backend import BackendOptions
from trio_chardev.options.members import IN_QMP
from trio_chardev.options.values import path_text

Output = Literal["on", "off", "keep"]
"""What becomes of a modem line that we drive, when the line is opened."""

MAX_DELAY = (1 << 32) - 1  # milliseconds, of struct serial_rs485


@attrs.frozen(kw_only=True)
class SerialOptions(BackendOptions):
    """Uses a serial line.

    With ``wait=off`` the line may be absent, or in use by another program: then the chardev is
    there, closed, and the line is looked for. That is the default where a service starts, on its
    command line and in its ``--state``; elsewhere, as for chardev-add, it is an error.
    """

    path: str = attrs.field(converter=path_text, metadata={IN_QMP: "device"})
    """The line's device, such as /dev/ttyUSB0 or a name in /dev/serial/by-id. Or
    ``usb:SERIAL`` for the USB adaptor with that serial number, ``usb:SERIAL:INTERFACE`` for one of
    its lines, with the hexadecimal number that /dev/serial/by-id shows after ``-if``. Or for a line
    of another host rfc2217://HOST:PORT, or socket://HOST:PORT, which has no settings."""

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
    """Milliseconds until a line that went away, or is absent, is looked for; from then on at once
    when its name is made (inotify), and now and then, at intervals that double up to a minute, or
    5 s where nothing would tell. 0 ends the backend instead. A PTY is not looked for by its number,
    which others get, but by a link that is made anew."""

    wait: bool | None = None
    """Opening needs the line to be there; off: it may come later."""

    hupcl: bool = True
    """DTR and RTS drop when the last program closes the line, as it is off then (stty's hupcl);
    many boards reset at that."""

    dtr: Output = "keep"
    """DTR when the line is opened: on, off, or as the kernel has it, which turns it on."""

    rts: Output = "keep"
    """RTS when the line is opened, likewise."""

    rs485: bool | None = None
    """The driver turns the transmitter on by RTS while it sends (RS-485); by default that stays as
    it is."""

    rs485_delay_before_ms: int = 0
    """Milliseconds from RTS to the first bit, with ``rs485=on``."""

    rs485_delay_after_ms: int = 0
    """Milliseconds from the last bit until RTS goes, with ``rs485=on``."""

    low_latency: bool | None = None
    """The driver passes each byte on at once (setserial's low_latency); by default that stays as it
    is."""

    def at_start(self) -> Self:
        if self.wait is None and self.reopen_ms:
            return attrs.evolve(self, wait=False)
        return self

    @property
    def again(self) -> Self | None:
        """With an error if it is absent, or another program has it."""
        options = super().again
        if options is None or options.wait is not False:
            return options
        return attrs.evolve(options, wait=None)

    def check(self) -> None:
        """Raise OptionsError if the options make no sense."""
        if self.path == "usb:":
            raise OptionsError("path=usb: needs the adaptor's serial number, as in usb:A50285BI")
        if self.reopen_ms < 0:
            raise OptionsError("reopen-ms must not be negative")
        if self.wait is False and not self.reopen_ms:
            raise OptionsError("wait=off needs a reopen-ms above 0")
        if not 0 < self.speed <= MAX_SPEED:
            raise OptionsError(f"speed must be from 1 to {MAX_SPEED}")
        for name, delay in (
            ("rs485-delay-before-ms", self.rs485_delay_before_ms),
            ("rs485-delay-after-ms", self.rs485_delay_after_ms),
        ):
            if not 0 <= delay <= MAX_DELAY:
                raise OptionsError(f"{name} must be from 0 to {MAX_DELAY}")
            if delay and not self.rs485:
                raise OptionsError(f"{name} needs rs485=on")

    @property
    def line(self) -> LineSettings:
        """The initial settings."""
        return LineSettings(
            self.speed, self.data_bits, self.parity, self.stop_bits, self.xonxoff, self.rtscts
        )
