"""A serial line's settings (termios(3)): speed, character format, flow control.

trio-serial makes a line raw. The settings are made here, because they change while the line is
open, and all in one step: the kernel's termios2 does that for any rate.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from typing import ClassVar

import attrs
from trio_serial.linux import LinuxSerialStream

from trio_chardev.core.line_change import MAX_SPEED
from trio_chardev.errors import BackendError
from trio_chardev.events import LineSettings

RATE_MASK = termios.CBAUD | termios.CIBAUD
PARITY_MASK = termios.PARENB | termios.PARODD | LinuxSerialStream.CMSPAR
LINE_MASK = RATE_MASK | PARITY_MASK | termios.CSIZE | termios.CSTOPB | termios.CRTSCTS
SPEED_TOLERANCE = 0.03  # some drivers report the rate that their divider gives
UNIX98_PTY_SLAVES = range(136, 144)  # major numbers, from the kernel's devices.txt
CONTROLLING_TERMINAL = os.makedev(5, 0)  # /dev/tty, which may be one of these slaves

DATA_BITS = {5: termios.CS5, 6: termios.CS6, 7: termios.CS7, 8: termios.CS8}
STOP_BITS = {1: 0, 2: termios.CSTOPB}
PARITY = {
    "N": 0,
    "E": termios.PARENB,
    "O": termios.PARENB | termios.PARODD,
    "M": termios.PARENB | termios.PARODD | LinuxSerialStream.CMSPAR,
    "S": termios.PARENB | LinuxSerialStream.CMSPAR,
}


@attrs.frozen
class Termios2:
    """The kernel's struct termios2 (asm-generic/termbits.h), with any rate, unlike tcgetattr(3)."""

    iflag: int
    oflag: int
    cflag: int
    lflag: int
    ldisc_and_cc: bytes
    ispeed: int
    ospeed: int

    LAYOUT: ClassVar = struct.Struct("=4I20s2I")

    @classmethod
    def of(cls, fd: int) -> Termios2:
        """Read the settings in force at *fd*."""
        return cls.unpack(cls.raw_of(fd))

    @classmethod
    def raw_of(cls, fd: int) -> bytes:
        """Read them packed: unpacking takes longer than the ioctl."""
        return fcntl.ioctl(fd, LinuxSerialStream.TCGETS2, bytes(cls.LAYOUT.size))

    @classmethod
    def unpack(cls, raw: bytes) -> Termios2:
        """Unpack what `raw_of` gives."""
        return cls(*cls.LAYOUT.unpack(raw))

    def apply(self, fd: int) -> None:
        """Set everything in one step, without waiting for output (TCSANOW)."""
        packed = self.LAYOUT.pack(*attrs.astuple(self))
        fcntl.ioctl(fd, LinuxSerialStream.TCSETS2, packed)

    def with_line(
        self, line: LineSettings, *, has_breaks: bool, hupcl: bool | None = None
    ) -> Termios2:
        """Return these settings with *line*, for reading; breaks are marked, see `BreakDecoder`.

        *hupcl* says whether the last close drops DTR and RTS; None leaves that. Raises KeyError if
        *line* has a value that does not exist.
        """
        cc = bytearray(self.ldisc_and_cc)
        cc[1 + termios.VMIN] = 1  # with trio-serial's 0, having no data would read as a hang-up
        shown = self.showing(line)
        hangs_up = shown.cflag & termios.HUPCL if hupcl is None else termios.HUPCL * hupcl
        return attrs.evolve(
            shown,
            cflag=shown.cflag & ~termios.HUPCL | hangs_up,
            iflag=(termios.PARMRK if has_breaks else 0)
            | (termios.IXON | termios.IXOFF if line.xonxoff else 0),
            ldisc_and_cc=bytes(cc),
        )

    def showing(self, line: LineSettings) -> Termios2:
        """Return these settings with the speed, the character format and RTS/CTS of *line*.

        Raises KeyError if *line* has a value that does not exist.
        """
        cflag = self.cflag & ~LINE_MASK
        cflag |= LinuxSerialStream.BAUDRATE_CONSTANTS.get(line.speed, LinuxSerialStream.BOTHER)
        cflag |= DATA_BITS[line.data_bits] | PARITY[line.parity] | STOP_BITS[line.stop_bits]
        cflag |= termios.CRTSCTS if line.rtscts else 0
        return attrs.evolve(self, cflag=cflag, ispeed=line.speed, ospeed=line.speed)

    def with_speed_and_format_of(self, other: Termios2) -> Termios2:
        """Return these settings with those of `showing` taken from *other*."""
        cflag = self.cflag & ~LINE_MASK | other.cflag & LINE_MASK
        return attrs.evolve(self, cflag=cflag, ispeed=other.ispeed, ospeed=other.ospeed)

    def find_refused(self, wanted: Termios2, line: LineSettings, is_pty: bool) -> str | None:
        """What of *wanted*, made of *line*, is not in force here, where a driver has been asked?

        Like tcsetattr(3) it succeeds if it took anything.
        """
        differing = self.cflag ^ wanted.cflag
        if is_pty:
            differing &= ~(PARITY_MASK | termios.CSIZE)  # a PTY has no bits, and always reports 8N
        if abs(self.ospeed - line.speed) > line.speed * SPEED_TOLERANCE:
            return f"{line.speed} baud"
        if differing & termios.CSIZE:
            return f"{line.data_bits} data bits"
        if differing & PARITY_MASK:
            return f"parity {line.parity}"
        if differing & termios.CSTOPB:
            return f"{line.stop_bits} stop bits"
        if differing & termios.CRTSCTS:
            return "RTS/CTS flow control"
        return None


def is_pty(fd: int) -> bool:
    """Is it the slave of a PTY? No break comes there, and looking for one halves the rate."""
    return os.major(os.fstat(fd).st_rdev) in UNIX98_PTY_SLAVES


def is_locked_unless_told(status: os.stat_result) -> bool:
    """Is a device with *status* one that two programs open at the same time only by mistake?"""
    device = status.st_rdev
    return os.major(device) not in UNIX98_PTY_SLAVES and device != CONTROLLING_TERMINAL


def are_breaks_marked(fd: int) -> bool:
    """Is PARMRK on? Called for each read with a byte 0xff."""
    iflag = int.from_bytes(Termios2.raw_of(fd)[:4], sys.byteorder)
    return bool(iflag & termios.PARMRK)


def apply_line(fd: int, device: str, line: LineSettings, *, hupcl: bool | None = None) -> None:
    """Set *fd* to *line*. Raises BackendError, and then nothing has changed.

    What is in force already is not set again: that may clear the FIFOs of a UART.
    """
    failed = f"Could not set '{device}' to {line}"
    if not 0 < line.speed <= MAX_SPEED:  # a speed of 0 would hang up
        raise BackendError(f"{failed}: no such speed")
    try:
        before = Termios2.of(fd)
        is_terminal = is_pty(fd)
        wanted = before.with_line(line, has_breaks=not is_terminal, hupcl=hupcl)
        if before.with_speed_and_format_of(wanted) == wanted and not before.find_refused(
            wanted, line, is_terminal
        ):
            return
        wanted.apply(fd)
        if refused := Termios2.of(fd).find_refused(wanted, line, is_terminal):
            before.apply(fd)
    except KeyError as exc:
        raise BackendError(f"{failed}: there is no {exc}") from exc
    except OSError as exc:
        raise BackendError.from_os_error(failed, exc) from exc
    if refused:
        raise BackendError(f"{failed}: the device does not do {refused}")


def apply_line_but_speed(
    fd: int, device: str, line: LineSettings, *, hupcl: bool | None = None
) -> int:
    """Do `apply_line`, but where the device refuses only the speed, with the speed that it has.

    Returns the speed in force. Raises BackendError, OSError.
    """
    try:
        apply_line(fd, device, line, hupcl=hupcl)
    except BackendError:
        speed = Termios2.of(fd).ospeed
        if not speed or speed == line.speed:
            raise
        try:
            apply_line(fd, device, attrs.evolve(line, speed=speed), hupcl=hupcl)
        except BackendError:
            pass  # then it is not the speed
        else:
            return speed
        raise
    return line.speed
