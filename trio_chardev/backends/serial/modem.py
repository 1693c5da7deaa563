"""A serial line's modem lines and break (tty_ioctl(4)), and whether it is there."""

from __future__ import annotations

import errno
import fcntl
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trio_chardev.backends.serial.line import Termios2
from trio_chardev.errors import BackendError, NotSupportedError
from trio_chardev.events import OUTPUTS, ModemLines

# asm-generic/ioctls.h; not in Python's termios
TIOCSBRK = 0x5427
TIOCCBRK = 0x5428

NO_SUCH_CONTROL = (errno.ENOTTY, errno.EINVAL)  # drivers' errors for an ioctl they don't have


def read_modem(fd: int) -> ModemLines:
    """Read which lines are on. Raises OSError, with `NO_SUCH_CONTROL` where there are none."""
    (bits,) = struct.unpack("I", fcntl.ioctl(fd, termios.TIOCMGET, bytes(4)))
    return ModemLines(bits & (~ModemLines(0)).value)


def write_modem(fd: int, lines: ModemLines, of: ModemLines = OUTPUTS) -> None:
    """Turn the outputs *of* on if they are in *lines*, else off. Raises as `read_modem` does.

    One that is as it should be is not written: some drivers make a short pulse of it, and the
    boards behind them reset.
    """
    wrong = (read_modem(fd) ^ lines) & of
    for request, outputs in (termios.TIOCMBIS, wrong & lines), (termios.TIOCMBIC, wrong & ~lines):
        if outputs:
            fcntl.ioctl(fd, request, struct.pack("I", outputs.value))


def write_break(fd: int, is_on: bool) -> None:
    """Turn the break on or off. Raises OSError; a driver without any, as a PTY's, does nothing.

    TIOCSBRK waits for what was written to be sent, see `SerialLine.wait_sent`.
    """
    fcntl.ioctl(fd, TIOCSBRK if is_on else TIOCCBRK)


def is_hung_up(fd: int) -> bool:
    """Is the line gone? Then every ioctl on it fails."""
    try:
        Termios2.of(fd)
    except OSError:
        return True
    return False


def count_unsent(fd: int) -> int:
    """Return how many bytes the kernel still has to send."""
    with suppress(OSError):  # hung up: they will not be sent
        (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
        return int(count)
    return 0


@contextmanager
def control_errors(device: str, control: str) -> Iterator[None]:
    """Convert as `backend_errors` does, but to NotSupportedError if the line has no *control*."""
    try:
        yield
    except OSError as exc:
        if exc.errno in NO_SUCH_CONTROL:
            raise NotSupportedError(f"'{device}' has no {control}") from exc
        raise BackendError.from_os_error(f"Could not use the {control} of '{device}'", exc) from exc
