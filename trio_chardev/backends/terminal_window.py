"""The size of a terminal's window, with ioctl_tty(2): reading, setting, and noticing that it has changed.

The kernel sends SIGWINCH to the terminal's foreground job, so a process that was stopped, or in the
background, has to look when it goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import signal
import struct
import termios
from collections.abc import Callable
from types import FrameType

import trio

from trio_chardev.events import WindowSize

_WINSIZE = struct.Struct("HHHH")  # rows, columns, and its width and height in pixels


def get_window_size(fd: int) -> WindowSize:
    """Return the window size of the terminal *fd*. Raises OSError."""
    rows, cols, *_ = _WINSIZE.unpack(fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(_WINSIZE.size)))
    return WindowSize(cols, rows)


def set_window_size(fd: int, size: WindowSize) -> None:
    """Set the window size of the terminal *fd*. Raises OSError."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, _WINSIZE.pack(size.rows, size.cols, 0, 0))


class WindowWatch:
    """Calls *look* in Trio's thread after each SIGWINCH, and when it is asked to.

    A handler that was there is called too. Outside of the main thread, where signals can't be
    handled, only `look_soon` has it called.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._token = trio.lowlevel.current_trio_token()
        self._before = signal.getsignal(signal.SIGWINCH)
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGWINCH, self._handle)
            signal.siginterrupt(signal.SIGWINCH, False)

    def look_soon(self) -> None:
        """Call *look* as soon as Trio's loop goes on; also from a signal handler."""
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._look, idempotent=True)

    def close(self) -> None:
        """Handle no more signals, unless others do so by now."""
        if signal.getsignal(signal.SIGWINCH) == self._handle:
            with contextlib.suppress(ValueError):
                signal.signal(signal.SIGWINCH, self._before or signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.look_soon()
        if callable(self._before):
            self._before(number, frame)
