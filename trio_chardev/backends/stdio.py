"""stdio: this process's standard input and output, for one chardev at a time.

Other programs share the open file descriptions, which outlive this process. Each backend reads and
writes in a way that they do not notice, see `hold_shared`; 0 and 1 themselves are never closed.
"""

from __future__ import annotations

import errno
import fcntl
import select
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

from trio_chardev.backends.descriptor import DescriptorBackend
from trio_chardev.backends.holder import FdHolder, hold_shared, owned
from trio_chardev.backends.stdio_terminal import Terminal
from trio_chardev.core.backend import Backend, OpenRequest
from trio_chardev.core.kind import Kind
from trio_chardev.core.line import Line
from trio_chardev.errors import BackendError
from trio_chardev.events import UNKNOWN_SIZE, WindowSize
from trio_chardev.options.backend import BackendOptions

FOREGROUND_POLL = 0.2  # seconds between checks whether the process is in the foreground


@attrs.frozen(kw_only=True)
class StdioOptions(BackendOptions):
    """Uses this process's standard input and output."""

    signal: bool = True
    """Let the terminal's keys, such as Ctrl-C, send signals; if off, they are input."""


class StdioBackend(DescriptorBackend):
    """Uses standard input and output."""

    def __init__(
        self,
        request: OpenRequest,
        terminal: Terminal,
        options: StdioOptions,
        holders: tuple[FdHolder, FdHolder],
    ) -> None:
        super().__init__(request, *holders)
        self.terminal = terminal
        self.keeps_signals = options.signal
        self.echoes = False
        self.is_transparent = False
        self._window_size = UNKNOWN_SIZE

    @property
    def filename(self) -> str:
        return "stdio"

    @property
    def line(self) -> Line:
        return _TerminalLine(self)

    def activate(self) -> None:
        """Set the terminal modes. Raises BackendError."""
        try:
            self.terminal.apply(self)
        except (OSError, termios.error) as exc:
            raise BackendError(f"cannot set up the terminal: {exc.args[-1]}") from exc

    def note_window_size(self, size: WindowSize) -> None:
        """Report the *size* of the terminal's window, if it is another."""
        if size != self._window_size:
            self._window_size = size
            self._on_event(size)

    def receive_nowait(self, max_bytes: int) -> bytes:
        return super().receive_nowait(max_bytes) if self.terminal.may_read() else b""

    def input_ended(self, error: OSError | None) -> None:
        if error is None or error.errno != errno.EIO or not self._is_in_background():
            super().input_ended(error)

    def _is_in_background(self) -> bool:
        """Was EIO only because the process got into the background, not by a hang-up?"""
        if not self.terminal.is_terminal or self.source is None:
            return False
        poll = select.poll()
        poll.register(self.source.fd, 0)  # POLLHUP is reported in any case
        return not poll.poll(0)

    async def wait_readable(self) -> None:
        if self.source is None or self.terminal.may_read():
            await super().wait_readable()
        else:
            await trio.sleep(FOREGROUND_POLL)


class _TerminalLine(Line):
    """The line of the terminal at standard input, which can echo."""

    def __init__(self, backend: StdioBackend) -> None:
        super().__init__(backend.filename)
        self._backend = backend

    async def set_echo(self, echo: bool) -> None:
        """Echo and edit lines as the terminal did at first, or, without *echo*, do neither."""
        await trio.lowlevel.checkpoint()
        self._backend.echoes = echo
        if self._backend.terminal.active is self._backend:
            self._backend.activate()


_in_use: Terminal | None = None


@contextmanager
def _terminal(fds: tuple[int, int], replaces: Backend | None) -> Iterator[Terminal]:
    """Use the terminal, which only the backend to be replaced may use too. Raises BackendError."""
    global _in_use
    if _in_use is None:
        with _stdio_errors():
            _in_use = Terminal(fds)
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


@contextmanager
def _stdio_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, termios.error) as exc:
        raise BackendError(f"cannot use stdio: {exc.args[-1]}") from exc


def hold_standard(fds: tuple[int, int]) -> tuple[FdHolder, FdHolder]:
    """Duplicate *fds*, to numbers above 2, as 0, 1 or 2 may be closed. Raises OSError."""
    source = hold_shared(fcntl.fcntl(fds[0], fcntl.F_DUPFD_CLOEXEC, 3))
    with owned(source.close):
        return source, hold_shared(fcntl.fcntl(fds[1], fcntl.F_DUPFD_CLOEXEC, 3))


@asynccontextmanager
async def open_stdio(
    options: StdioOptions, request: OpenRequest, fds: tuple[int, int] = (0, 1)
) -> AsyncIterator[Backend]:
    """Use standard input and output, *fds*, perhaps shared with the backend to be replaced.

    Raises BackendError, ``cannot use stdio by multiple character devices``.
    """
    if request.files.sandbox.is_limited:
        raise BackendError("cannot use stdio: standard input and output are outside of the sandbox")
    with _terminal(fds, request.replaces) as terminal:
        with _stdio_errors():
            holders = hold_standard(fds)
        backend = StdioBackend(request, terminal, options, holders)
        try:
            terminal.show_window_size(backend)
            backend.set_open(True)
            yield backend
        finally:
            backend.close()


STDIO = Kind(StdioOptions, open_stdio)
