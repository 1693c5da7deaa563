"""Shared terminal modes and O_NONBLOCK flags, which are restored however the process ends.

Terminal modes belong to a terminal, O_NONBLOCK to an open file description (open(2)); both outlive
this process, and other programs use them at the same time. So they are changed only where there is
no other way. Changes are undone when they are not needed any more, at the interpreter's exit,
before a signal ends the process, and while it is stopped (SIGTSTP). Only SIGKILL, SIGSTOP and a
crash of the interpreter itself leave them.
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
"""The signals whose default action ends the process. Handlers that others set are left alone."""


class Change(Protocol):
    """Something that was changed. The methods may raise only OSError and termios.error."""

    def undo(self) -> None:
        """Restore what was found."""

    def redo(self) -> None:
        """Change it again, as the process goes on after it was stopped."""


_changes: list[Change] = []
_found: dict[signal.Signals, Any] = {}  # the handlers that ours replace
_pid = 0  # of the process that made the changes: a forked child does not undo them


def add(change: Change) -> None:
    """Undo *change*, which has been made, if the process ends or stops."""
    _changes.append(change)
    if len(_changes) == 1:
        _begin()


def remove(change: Change) -> None:
    """Forget *change*, which has been undone."""
    if change in _changes:
        _changes.remove(change)
        if not _changes:
            _end()


def _begin() -> None:
    global _pid
    _pid = os.getpid()
    atexit.register(_undo_all)
    with contextlib.suppress(ValueError):  # not in the main thread, where signals can't be set
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
    os.kill(os.getpid(), number)  # it stops here (not if its process group is orphaned)
    if _changes:
        signal.signal(number, _on_stop)
        _redo_all()


def _on_continue(number: int, frame: FrameType | None) -> None:
    """Redo the changes after SIGSTOP, as the shell has set up the terminal for itself meanwhile."""
    _redo_all()


# ---------------------------------------------------------------- O_NONBLOCK


class _Description:
    """An open file description that was made non-blocking. A `Change`."""

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
        """Add *fd*, another description of the same file, as it was found blocking."""
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
    """Keeps a descriptor in non-blocking mode until it is released.

    If the mode had to be changed, it is restored by the last one for the same file, as two
    descriptors may share a description.
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
        """Restore the mode, if nobody else needs it. Raises nothing."""
        key, self._key = self._key, None
        if key is None:
            return
        description = _descriptions[key]
        description.users -= 1
        if description.users == 0:
            del _descriptions[key]
            description.close()
            remove(description)
