"""Standard input and output where they are a terminal: its modes, and whose turn it is.

The modes are saved once, by the first backend, and restored when the last one leaves: while a
change is under way there may be two. Until then `borrowed` puts them back, should the process
be stopped or ended.

A process in the background is no party to the terminal: to read or to set modes would stop it
(SIGTTIN, SIGTTOU; tcsetattr(3p), termios(3)), and what is typed is for others. So meanwhile
neither is done. Nothing tells when it comes to the foreground; it has to look.
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
from typing import Any, Protocol

from trio_chardev.backends import borrowed

JOB_SIGNALS = (signal.SIGTTIN, signal.SIGTTOU)


class User(Protocol):
    """A backend that uses the terminal."""

    @property
    def keeps_signals(self) -> bool:
        """Shall the keys send signals?"""

    @property
    def echoes(self) -> bool:
        """Shall the terminal echo, and edit lines?"""


class Terminal:
    """The two descriptors, which need not be a terminal. A `borrowed.Change`."""

    def __init__(self, fds: tuple[int, int]) -> None:
        """Raises OSError, termios.error."""
        self.fds = fds
        self.users = 0
        self.active: User | None = None
        """Whose modes are set."""
        for fd in fds:
            os.fstat(fd)
        self.is_terminal = os.isatty(fds[0])
        self._found: list[Any] | None = None
        self._is_set = False
        self._ignored: list[signal.Signals] = []
        if self.is_terminal:
            if not self.in_background:
                self._found = termios.tcgetattr(fds[0])
            self._ignore_job_signals()
            borrowed.add(self)

    @property
    def in_background(self) -> bool:
        """Do others have the terminal now?"""
        try:
            return self.is_terminal and os.tcgetpgrp(self.fds[0]) != os.getpgrp()
        except OSError:  # not our controlling terminal
            return False

    def apply(self, user: User) -> None:
        """Set the modes that *user* wants, now or in the foreground. Raises OSError, termios.error."""
        self.active = user
        self.redo()

    def may_read(self) -> bool:
        """Is it ours to read from? Sets the modes, if it is that again."""
        if not self.is_terminal:
            return True
        if self.in_background:
            self._is_set = False  # others set them as they like
            return False
        if not self._is_set:
            with contextlib.suppress(OSError, termios.error):  # reading meets it
                self.redo()
        return True

    def undo(self) -> None:
        """Put back the modes that were found, if they are ours to set."""
        if self._is_set and self._found is not None and not self.in_background:
            self._is_set = False
            termios.tcsetattr(self.fds[0], termios.TCSANOW, self._found)

    def redo(self) -> None:
        """Set the modes of the active user, if they are ours to set."""
        if self.active is None or not self.is_terminal or self.in_background:
            return
        if self._found is None:  # it began in the background, with the shell's own
            self._found = termios.tcgetattr(self.fds[0])
        self._is_set = True
        termios.tcsetattr(self.fds[0], termios.TCSANOW, modes_for(self.active, self._found))

    def restore(self) -> None:
        """Leave all as it was found, as far as that can be done."""
        if not self.is_terminal:
            return
        with contextlib.suppress(OSError, termios.error):
            self.undo()
        borrowed.remove(self)
        for number in self._ignored:
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)

    def _ignore_job_signals(self) -> None:
        """Between a look and a read it may have got into the background."""
        with contextlib.suppress(ValueError):  # not the main thread, so no signals
            for number in JOB_SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, signal.SIG_IGN)
                    self._ignored.append(number)


def modes_for(user: User, found: list[Any]) -> list[Any]:
    """The modes of tcgetattr(3) that QEMU sets: input is raw, output post-processed as found."""
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
        oflag |= termios.OPOST
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
        cc = [*cc]
        cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    if not user.keeps_signals:
        lflag &= ~termios.ISIG
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]
