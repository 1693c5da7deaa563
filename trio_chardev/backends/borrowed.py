"""What others share with this process and find as it was, however it ends: modes and flags.

Terminal modes belong to a terminal, O_NONBLOCK to an open file description (open(2)); both
outlive us, and other programs use them at the same time. So they are changed only where there
is no way round. What is changed is put back when it is needed no more, at the interpreter's
exit, before a signal ends the process, and while it is stopped (SIGTSTP); only SIGKILL,
SIGSTOP and a crash of the interpreter itself leave it.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import signal
import termios
from types import FrameType
from typing import Any, Protocol

FATAL_SIGNALS = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF),
    *(signal.SIGXCPU, signal.SIGIO, signal.SIGPWR),
)
"""Those that end a process which does nothing about them. Handlers of others are left alone."""


class Change(Protocol):
    """Something that was changed. Neither of these may raise but OSError and termios.error."""

    def undo(self) -> None:
        """Put back what was found."""

    def redo(self) -> None:
        """Change it again: the process has been stopped, and goes on."""


_changes: list[Change] = []
_found: dict[signal.Signals, Any] = {}  # the handlers that ours stand in for
_pid = 0  # whose changes they are: a forked child leaves them alone


def add(change: Change) -> None:
    """*change* has been made."""
    _changes.append(change)
    if len(_changes) == 1:
        _begin()


def remove(change: Change) -> None:
    """*change* has been undone."""
    if change in _changes:
        _changes.remove(change)
        if not _changes:
            _end()


def _begin() -> None:
    global _pid
    _pid = os.getpid()
    atexit.register(_undo_all)
    with contextlib.suppress(ValueError):  # not the main thread, so no signals
        for number in FATAL_SIGNALS:
            _replace(number, _on_fatal)
        _replace(signal.SIGTSTP, _on_stop)
        _found[signal.SIGCONT] = signal.signal(signal.SIGCONT, _on_continue)


def _replace(number: signal.Signals, handler: Any) -> None:
    if signal.getsignal(number) is signal.SIG_DFL:
        _found[number] = signal.signal(number, handler)


def _end() -> None:
    atexit.unregister(_undo_all)
    for number, found in _found.items():
        with contextlib.suppress(ValueError):
            if signal.getsignal(number) in (_on_fatal, _on_stop, _on_continue):
                signal.signal(number, signal.SIG_DFL if found is None else found)
    _found.clear()


def _undo_all() -> None:
    if os.getpid() == _pid:
        for change in reversed(_changes):
            with contextlib.suppress(OSError, termios.error):
                change.undo()


def _redo_all() -> None:
    if os.getpid() == _pid:
        for change in _changes:
            with contextlib.suppress(OSError, termios.error):
                change.redo()


# The handlers may interrupt any statement of the main thread, and must not raise there.


def _on_fatal(number: int, frame: FrameType | None) -> None:
    _undo_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _on_stop(number: int, frame: FrameType | None) -> None:
    _undo_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # here it stops, unless nobody could have it go on
    if _changes:
        signal.signal(number, _on_stop)
        _redo_all()


def _on_continue(number: int, frame: FrameType | None) -> None:
    """After SIGSTOP; meanwhile the shell has set up the terminal for itself."""
    _redo_all()


# ---------------------------------------------------------------- O_NONBLOCK


class _Description:
    """A description that is non-blocking for our sake. A `Change`."""

    def __init__(self, fd: int) -> None:
        """Raises OSError, and then nothing has changed."""
        self._fds = [os.dup(fd)]
        self.users = 0
        try:
            self.redo()
        except BaseException:
            os.close(self._fds[0])
            raise

    def include(self, fd: int) -> None:
        """*fd* was found blocking, though it is the same file: another description of it."""
        self._fds.append(os.dup(fd))
        os.set_blocking(fd, False)

    def undo(self) -> None:
        for fd in self._fds:
            os.set_blocking(fd, True)

    def redo(self) -> None:
        for fd in self._fds:
            os.set_blocking(fd, False)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.undo()
        for fd in self._fds:
            os.close(fd)


_Key = tuple[int, int, int]
_descriptions: dict[_Key, _Description] = {}


class NonBlocking:
    """Has a descriptor in non-blocking mode until it is released.

    Where that has to be changed it is put back with the last that has the same file, for two
    descriptors may have one description.
    """

    __slots__ = ("_key",)

    def __init__(self, fd: int) -> None:
        """Raises OSError, and then nothing has changed."""
        self._key: _Key | None = None
        is_blocking = os.get_blocking(fd)
        if not is_blocking and not _descriptions:
            return
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino, fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
        description = _descriptions.get(key)
        if description is None:
            if not is_blocking:
                return
            description = _descriptions[key] = _Description(fd)
            add(description)
        elif is_blocking:
            description.include(fd)
        description.users += 1
        self._key = key

    def release(self) -> None:
        """Put back what was found, if nobody else needs it. Never fails."""
        key, self._key = self._key, None
        if key is None:
            return
        description = _descriptions[key]
        description.users -= 1
        if description.users == 0:
            del _descriptions[key]
            description.close()
            remove(description)
