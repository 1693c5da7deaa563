"""stdio: this process's standard input and output, for one chardev at a time.

Terminal modes and O_NONBLOCK belong to the terminal and to the open file description, which
other processes share and which outlive us. So they are saved once, by the first backend, and
restored when the last one leaves: while a change is under way there may be two. Each backend
reads and writes through duplicates of its own; descriptors 0 and 1 themselves are never closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import attrs

from trio_chardev.backends.descriptor import DescriptorBackend, FdHolder
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.errors import BackendError
from trio_chardev.options import BackendOptions


@attrs.frozen(kw_only=True)
class StdioOptions(BackendOptions):
    """Uses this process's standard input and output."""

    signal: bool = True
    """Let the terminal's keys send signals, such as Ctrl-C; else they are input."""


class StdioBackend(DescriptorBackend):
    """Standard input and output; implements EchoControl."""

    def __init__(self, request: OpenRequest, terminal: _Terminal, options: StdioOptions) -> None:
        source, sink = (_duplicate(fd) for fd in terminal.fds)
        super().__init__(request, source, sink)
        self.terminal = terminal
        self.keeps_signals = options.signal
        self.echoes = False

    @property
    def filename(self) -> str:
        return "stdio"

    def set_echo(self, echo: bool) -> None:
        """With *echo* the terminal echoes and edits lines as it was found to do."""
        self.echoes = echo
        if self.terminal.active is self:
            self.activate()

    def activate(self) -> None:
        """Set the terminal modes. Raises BackendError."""
        try:
            self.terminal.apply(self)
        except (OSError, termios.error) as exc:
            raise BackendError(f"cannot set up the terminal: {exc.args[-1]}") from exc


class _Terminal:
    """The two descriptors, which need not be a terminal, and how they were found."""

    def __init__(self, fds: tuple[int, int]) -> None:
        """Raises OSError, termios.error."""
        self.fds = fds
        self.users = 0
        self.active: StdioBackend | None = None
        """The backend whose modes are set."""
        self._on_sigcont: Any = None
        self._modes = termios.tcgetattr(fds[0]) if os.isatty(fds[0]) else None
        self._blocking = [os.get_blocking(fd) for fd in fds]
        self._set_blocking([False, False])
        with contextlib.suppress(ValueError):  # not the main thread, so no signals
            self._on_sigcont = signal.signal(signal.SIGCONT, self._reapply)

    def apply(self, backend: StdioBackend) -> None:
        """Set the modes that *backend* wants. Raises OSError, termios.error."""
        self._set_blocking([False, False])
        if self._modes is not None:
            self._set_modes(_modes_for(backend, self._modes))
        self.active = backend

    def restore(self) -> None:
        """Leave all as it was found, as far as that can be done."""
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGCONT, self._on_sigcont or signal.SIG_DFL)
        with contextlib.suppress(OSError, termios.error):
            self._set_blocking(self._blocking)
        with contextlib.suppress(OSError, termios.error):
            if self._modes is not None and self.active is not None:
                self._set_modes(self._modes)

    def _reapply(self, signum: int, frame: FrameType | None) -> None:
        """SIGCONT: while we were stopped the shell has set the terminal up for itself.

        It may interrupt any statement of the main thread, and must not raise there.
        """
        if self.active is not None:
            with contextlib.suppress(OSError, termios.error):
                self.apply(self.active)

    def _set_blocking(self, blocking: list[bool]) -> None:
        for fd, value in zip(self.fds, blocking, strict=True):
            os.set_blocking(fd, value)

    def _set_modes(self, modes: list[Any]) -> None:
        if not _in_background(self.fds[0]):
            termios.tcsetattr(self.fds[0], termios.TCSANOW, modes)


def _modes_for(backend: StdioBackend, found: list[Any]) -> list[Any]:
    """The modes of tcgetattr(3) that QEMU sets: input is raw, output post-processed as found."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = found
    if not backend.echoes:
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
    if not backend.keeps_signals:
        lflag &= ~termios.ISIG
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]


def _in_background(fd: int) -> bool:
    """Would setting the modes stop this process (SIGTTOU, tcsetattr(3p))?"""
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:  # not our controlling terminal
        return False


def _duplicate(fd: int) -> FdHolder:
    """A duplicate that can't become 0, 1 or 2, should one of them be closed."""
    return FdHolder(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))


_in_use: _Terminal | None = None


@contextmanager
def _terminal(fds: tuple[int, int], replaces: Backend | None) -> Iterator[_Terminal]:
    """The terminal, if nobody uses it but the backend to be replaced. Raises BackendError."""
    global _in_use
    if _in_use is None:
        try:
            _in_use = _Terminal(fds)
        except (OSError, termios.error) as exc:
            raise BackendError(f"cannot use stdio: {exc.args[-1]}") from exc
    elif not isinstance(replaces, StdioBackend) or replaces.terminal is not _in_use:
        raise BackendError("cannot use stdio by multiple character devices")
    terminal = _in_use
    terminal.users += 1
    try:
        yield terminal
    finally:
        terminal.users -= 1
        if terminal.users == 0:
            terminal.restore()
            _in_use = None


@asynccontextmanager
async def open_stdio(
    options: StdioOptions, request: OpenRequest, fds: tuple[int, int] = (0, 1)
) -> AsyncIterator[Backend]:
    """Take standard input and output, *fds*, or share them with the backend to be replaced.

    Raises BackendError, ``cannot use stdio by multiple character devices``.
    """
    with _terminal(fds, request.replaces) as terminal:
        backend = StdioBackend(request, terminal, options)
        try:
            backend.set_open(True)
            yield backend
        finally:
            backend.close()
