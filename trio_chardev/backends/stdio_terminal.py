"""The terminal at standard input and output: its modes, and whether we are in the foreground.

The first backend saves the modes and the last one restores them; during a change there may be two.
Until then `borrowed` restores them if the process is stopped or ended.

A process in the background must neither read the terminal nor set its modes: that would stop it
(SIGTTIN, SIGTTOU; tcsetattr(3p), termios(3)), and input is meant for others. Nothing notifies a
process that it is in the foreground again, so it has to poll.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from typing import Any, Protocol

from trio_chardev.backends import borrowed
from trio_chardev.backends.terminal_window import WindowWatch, get_window_size
from trio_chardev.events import WindowSize

JOB_SIGNALS = (signal.SIGTTIN, signal.SIGTTOU)


class User(Protocol):
    """A backend that uses the terminal."""

    @property
    def keeps_signals(self) -> bool:
        """Should keys send signals?"""

    @property
    def echoes(self) -> bool:
        """Should the terminal echo, and edit lines?"""

    @property
    def is_transparent(self) -> bool:
        """Is the output shown as it is, rather than with CR added to LF, where that was so?"""

    def note_window_size(self, size: WindowSize) -> None:
        """Note the *size* of the terminal's window, which may be as before."""


class Terminal:
    """The two descriptors, whether or not they are a terminal. A `borrowed.Change`."""

    def __init__(self, fds: tuple[int, int]) -> None:
        """Raises OSError, termios.error."""
        self.fds = fds
        self.users = 0
        self.active: User | None = None
        """The backend whose modes are set."""
        for fd in fds:
            os.fstat(fd)
        self.is_terminal = os.isatty(fds[0])
        self._found: list[Any] | None = None
        self._is_set = False
        self._ignored: list[signal.Signals] = []
        self._window: WindowWatch | None = None
        if self.is_terminal:
            if not self.in_background:
                self._found = termios.tcgetattr(fds[0])
            self._ignore_job_signals()
            borrowed.add(self)
            self._window = WindowWatch(self._look_at_window)

    @property
    def in_background(self) -> bool:
        """Is the process in the background?"""
        try:
            return self.is_terminal and os.tcgetpgrp(self.fds[0]) != os.getpgrp()
        except OSError:  # not our controlling terminal
            return False

    def apply(self, user: User) -> None:
        """Set *user*'s modes, now or when in the foreground. Raises OSError, termios.error."""
        self.active = user
        self.redo()
        self.show_window_size(user)

    def may_read(self) -> bool:
        """May we read? Sets the modes, if the process has just got into the foreground."""
        if not self.is_terminal:
            return True
        if self.in_background:
            self._is_set = False  # the foreground process may change them
            return False
        if not self._is_set:
            with contextlib.suppress(OSError, termios.error):  # reading reports the error
                self.redo()
        return True

    def undo(self) -> None:
        """Restore the modes found at first, if the process is in the foreground."""
        if self._is_set and self._found is not None and not self.in_background:
            self._is_set = False
            termios.tcsetattr(self.fds[0], termios.TCSANOW, self._found)

    def redo(self) -> None:
        """Set the modes of the active backend, if the process is in the foreground."""
        if self.active is None or not self.is_terminal or self.in_background:
            return
        if self._found is None:  # it began in the background, where the modes were the shell's
            self._found = termios.tcgetattr(self.fds[0])
        self._is_set = True
        if self._window is not None:  # while we were stopped nothing told us of it
            self._window.look_soon()
        termios.tcsetattr(self.fds[0], termios.TCSANOW, modes_for(self.active, self._found))

    def restore(self) -> None:
        """Restore everything, as far as possible."""
        if not self.is_terminal:
            return
        with contextlib.suppress(OSError, termios.error):
            self.undo()
        borrowed.remove(self)
        if self._window is not None:
            self._window.close()
        for number in self._ignored:
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)

    def show_window_size(self, user: User) -> None:
        """Tell *user* the size of the window, if it is that of a terminal."""
        with contextlib.suppress(OSError):
            if self.is_terminal:
                user.note_window_size(get_window_size(self.fds[0]))

    def _look_at_window(self) -> None:
        if self.active is not None:
            self.show_window_size(self.active)

    def _ignore_job_signals(self) -> None:
        """Ignore SIGTTIN and SIGTTOU: the process may get into the background at any moment."""
        with contextlib.suppress(ValueError):  # not in the main thread, where signals can't be set
            for number in JOB_SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, signal.SIG_IGN)
                    self._ignored.append(number)


def modes_for(user: User, found: list[Any]) -> list[Any]:
    """Make modes as QEMU's, for tcsetattr(3): raw input, output processed if it was before."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = found
    if not user.echoes:
        iflag &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        oflag = oflag & ~termios.OPOST if user.is_transparent else oflag | termios.OPOST
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
        cc = [*cc]
        cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    if not user.keeps_signals:
        lflag &= ~termios.ISIG
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]
