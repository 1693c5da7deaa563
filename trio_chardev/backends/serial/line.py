"""A serial line's settings, modem lines and locks (tty_ioctl(4)).

trio-serial makes a line raw. The settings are made here, because they change while the line is
open, and all in one step: the kernel's termios2 does that for any rate.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

import attrs
from trio_serial.linux import LinuxSerialStream

from trio_chardev.backends.serial.holders import name_holders
from trio_chardev.errors import BackendError, NotSupportedError, backend_errors
from trio_chardev.events import LineSettings, ModemLines

# asm-generic/ioctls.h; not in Python's termios
TIOCSBRK = 0x5427
TIOCCBRK = 0x5428

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

    def with_line(self, line: LineSettings, *, has_breaks: bool) -> Termios2:
        """Return these settings with *line*, for reading; breaks are marked, see `BreakDecoder`.

        Raises KeyError if *line* has a value that does not exist.
        """
        cc = bytearray(self.ldisc_and_cc)
        cc[1 + termios.VMIN] = 1  # with trio-serial's 0, having no data would read as a hang-up
        return attrs.evolve(
            self.showing(line),
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


def check_speed(device: str, line: LineSettings) -> None:
    """Raise BackendError for a speed that no device can have."""
    if not 0 < line.speed < 1 << 32:  # a speed of 0 would hang up
        raise BackendError(f"Could not set '{device}' to {line}: no such speed")


def apply_line(fd: int, device: str, line: LineSettings) -> None:
    """Set *fd* to *line*. Raises BackendError, and then nothing has changed."""
    failed = f"Could not set '{device}' to {line}"
    check_speed(device, line)
    try:
        before = Termios2.of(fd)
        wanted = before.with_line(line, has_breaks=not is_pty(fd))
        if wanted == before:  # setting it again may still clear the FIFOs of a UART
            return
        wanted.apply(fd)
        if refused := _find_refused(fd, wanted, line):
            before.apply(fd)
    except KeyError as exc:
        raise BackendError(f"{failed}: there is no {exc}") from exc
    except OSError as exc:
        raise BackendError.from_os_error(failed, exc) from exc
    if refused:
        raise BackendError(f"{failed}: the device does not do {refused}")


def _find_refused(fd: int, wanted: Termios2, line: LineSettings) -> str | None:
    """Return what the driver did not take: like tcsetattr(3) it succeeds if it took anything."""
    got = Termios2.of(fd)
    differing = got.cflag ^ wanted.cflag
    if is_pty(fd):
        differing &= ~(PARITY_MASK | termios.CSIZE)  # a PTY has no bits, and always reports 8N
    if abs(got.ospeed - line.speed) > line.speed * SPEED_TOLERANCE:
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


# ---------------------------------------------------------------- modem lines and state

MODEM_INPUTS = ModemLines.CTS | ModemLines.DSR | ModemLines.CAR | ModemLines.RI
NO_SUCH_CONTROL = (errno.ENOTTY, errno.EINVAL)  # drivers' errors for an ioctl they don't have


def read_modem(fd: int) -> ModemLines:
    """Read which lines are on. Raises OSError, with `NO_SUCH_CONTROL` where there are none."""
    (bits,) = struct.unpack("I", fcntl.ioctl(fd, termios.TIOCMGET, bytes(4)))
    return ModemLines(bits & (~ModemLines(0)).value)


def write_modem(fd: int, lines: ModemLines) -> None:
    """Turn DTR and RTS on or off. Raises as `read_modem` does."""
    for output in (ModemLines.DTR, ModemLines.RTS):
        request = termios.TIOCMBIS if output in lines else termios.TIOCMBIC
        fcntl.ioctl(fd, request, struct.pack("I", output.value))


def write_break(fd: int, is_on: bool) -> None:
    """Turn the break on or off, if the line has any.

    TIOCSBRK waits for what was written to be sent, see `SerialLine.wait_sent`.
    """
    with suppress(OSError):
        fcntl.ioctl(fd, TIOCSBRK if is_on else TIOCCBRK)


@attrs.frozen
class Found:
    """The state of a line before it was altered."""

    settings: Termios2
    modem: ModemLines | None

    @classmethod
    def at(cls, fd: int) -> Found:
        """Read the state of *fd*. Raises OSError, with `NO_SUCH_CONTROL` if it is not a line."""
        settings = Termios2.of(fd)
        try:
            return cls(settings, read_modem(fd))
        except OSError:
            return cls(settings, None)

    def restore(self, fd: int) -> None:
        """Restore what differs, unless the line is gone."""
        with suppress(OSError):
            if Termios2.of(fd) != self.settings:
                self.settings.apply(fd)
            if self.modem is not None:
                write_modem(fd, self.modem)


def is_hung_up(fd: int) -> bool:
    """Is the line gone? Then every ioctl on it fails."""
    try:
        Termios2.of(fd)
    except OSError:
        return True
    return False


def count_unsent(fd: int) -> int:
    """Return how many bytes the kernel still has to send."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
    except OSError:  # hung up: they will not be sent
        return 0
    return int(count)


# ---------------------------------------------------------------- the whole line


@attrs.define(eq=False)
class WantedLine:
    """The wanted state of a line, with methods that put a line into it."""

    device: str
    settings: LineSettings
    exclusive: bool
    modem: ModemLines | None = None
    """DTR and RTS; None leaves them as they are."""
    is_break: bool = False
    """Is the break on? The kernel can't be asked."""
    is_locked: bool = False

    async def set_up(self, fd: int) -> None:
        """Set up a line that was just opened. Raises BackendError, perhaps half way."""
        if self.exclusive:
            try:
                self._lock(fd)
            except BlockingIOError as exc:
                raise self._held(await name_holders(self.device)) from exc
        with backend_errors(f"Could not set up '{self.device}'"):
            # It opens the line again, and leaves it raw when it closes that. It is given our
            # descriptor, as the name may be on a disk that hangs, or lead elsewhere by now.
            async with LinuxSerialStream(f"/proc/self/fd/{fd}"):
                pass
            self._apply(fd)
            if self.exclusive:
                self._refuse_opens(fd)

    def take_over(self, fd: int, before: WantedLine) -> None:
        """Set up a line that is as *before* says. Raises BackendError, and then restores it."""
        locks = self.exclusive and not before.is_locked
        with backend_errors(f"Could not take over '{self.device}'"):
            found = Found.at(fd)
            try:
                if locks:
                    self._lock(fd)
                self._apply(fd, before)
                if locks:
                    self._refuse_opens(fd)
            except BlockingIOError as exc:
                raise self._held("another program has it") from exc
            except BaseException:
                found.restore(fd)
                write_break(fd, before.is_break)
                if locks:  # closing would not undo it, as the descriptor shares its description
                    fcntl.flock(fd, fcntl.LOCK_UN)
                raise
        if before.is_locked and not self.exclusive:
            before.unlock(fd)
        self.is_locked = self.exclusive

    def unlock(self, fd: int) -> None:
        """Undo the locks; TIOCEXCL would hold for as long as anybody has the line open."""
        if self.is_locked:
            self.is_locked = False
            with suppress(OSError):  # hung up, which undoes the locks
                fcntl.ioctl(fd, termios.TIOCNXCL)
                fcntl.flock(fd, fcntl.LOCK_UN)

    def _lock(self, fd: int) -> None:
        """Take the lock that terminal programs look at; other programs heed TIOCEXCL only.

        Raises BlockingIOError if it is taken, BackendError if the file system has no locks.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as exc:
            raise BackendError.from_os_error(f"Could not lock '{self.device}'", exc) from exc

    def _held(self, by: str) -> BackendError:
        return BackendError(f"Could not lock '{self.device}': {by}")

    def _refuse_opens(self, fd: int) -> None:
        fcntl.ioctl(fd, termios.TIOCEXCL)
        self.is_locked = True

    def _apply(self, fd: int, before: WantedLine | None = None) -> None:
        apply_line(fd, self.device, self.settings)
        if self.is_break != (before is not None and before.is_break):
            write_break(fd, self.is_break)
        if self.modem is not None:
            try:
                write_modem(fd, self.modem)
            except OSError as exc:
                if exc.errno not in NO_SUCH_CONTROL:  # else it is now an adaptor without them
                    raise


@contextmanager
def control_errors(device: str, control: str) -> Iterator[None]:
    """Convert as `backend_errors` does, but to NotSupportedError if the line has no *control*."""
    try:
        yield
    except OSError as exc:
        if exc.errno in NO_SUCH_CONTROL:
            raise NotSupportedError(f"'{device}' has no {control}") from exc
        raise BackendError.from_os_error(f"Could not use the {control} of '{device}'", exc) from exc
