"""What a serial driver does beside termios(3): RS-485, low latency.

Both are structs that are read, altered and written back, as programs may have set other members.
Layouts: <linux/serial.h>.
"""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterator
from typing import Protocol

import attrs

from trio_chardev.backends.serial.options import SerialOptions

# asm-generic/ioctls.h
TIOCGSERIAL, TIOCSSERIAL = 0x541E, 0x541F
TIOCGRS485, TIOCSRS485 = 0x542E, 0x542F

SERIAL_SIZE = 128  # bytes; struct serial_struct has 72 on 64-bit machines
FLAGS = struct.Struct("=16xi")  # after type, line, port and irq
ASYNC_LOW_LATENCY = 1 << 13

RS485_SIZE = 32  # bytes
RS485 = struct.Struct("=3I")  # flags, delay_rts_before_send, delay_rts_after_send
SER_RS485_ENABLED = 1
SER_RS485_RTS_ON_SEND = 2
SER_RS485_RTS_AFTER_SEND = 4


class DriverSetting(Protocol):
    """One struct of the driver's, as it is wanted."""

    name: str
    """What is missing if the driver refuses it."""
    get: int
    set: int
    """The ioctls."""
    size: int
    """Bytes of the struct, or more."""

    def alter(self, raw: bytearray) -> None:
        """Make the struct *raw* as it is wanted."""


@attrs.frozen
class LowLatency:
    """Does the driver pass each byte on at once?"""

    is_on: bool
    name = "low-latency"
    get = TIOCGSERIAL
    set = TIOCSSERIAL
    size = SERIAL_SIZE

    def alter(self, raw: bytearray) -> None:
        (flags,) = FLAGS.unpack_from(raw)
        flags &= ~ASYNC_LOW_LATENCY
        FLAGS.pack_into(raw, 0, flags | ASYNC_LOW_LATENCY * self.is_on)


@attrs.frozen
class Rs485:
    """Does the driver turn the transmitter on by RTS? The delays are in milliseconds."""

    is_on: bool
    before: int = 0
    after: int = 0
    name = "rs485"
    get = TIOCGRS485
    set = TIOCSRS485
    size = RS485_SIZE

    def alter(self, raw: bytearray) -> None:
        flags, before, after = RS485.unpack_from(raw)
        if self.is_on:
            flags = flags & ~SER_RS485_RTS_AFTER_SEND | SER_RS485_ENABLED | SER_RS485_RTS_ON_SEND
            before, after = self.before, self.after
        else:
            flags &= ~SER_RS485_ENABLED
        RS485.pack_into(raw, 0, flags, before, after)


def settings_of(options: SerialOptions) -> Iterator[DriverSetting]:
    """What *options* want of the driver."""
    if options.rs485 is not None:
        yield Rs485(options.rs485, options.rs485_delay_before_ms, options.rs485_delay_after_ms)
    if options.low_latency is not None:
        yield LowLatency(options.low_latency)


@attrs.frozen
class Undo:
    """How to make a struct of the driver's as it was."""

    request: int
    raw: bytes

    def __call__(self, fd: int) -> None:
        """Raises OSError."""
        fcntl.ioctl(fd, self.request, self.raw)


def apply(fd: int, setting: DriverSetting) -> Undo | None:
    """Apply *setting*, unless it is so already: then the result is None. Raises OSError."""
    before = fcntl.ioctl(fd, setting.get, bytes(setting.size))
    wanted = bytearray(before)
    setting.alter(wanted)
    if wanted == before:
        return None
    fcntl.ioctl(fd, setting.set, bytes(wanted))
    return Undo(setting.set, before)
