"""Standard input and output for a command that is a terminal: raw, shared with others, never blocking.

If standard input is a terminal, somebody sits there: his keys are read as they are, his window has a
size, and he is told things in lines between the output. Otherwise it is a pipe, and what is to be told
goes to standard error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from trio_chardev.backends.holder import FdHolder
from trio_chardev.backends.stdio import FOREGROUND_POLL, hold_standard
from trio_chardev.backends.stdio_terminal import Terminal
from trio_chardev.cli.output import OutputError, complain, printable
from trio_chardev.errors import OptionsError
from trio_chardev.events import UNKNOWN_SIZE, WindowSize

STANDARD: Final = (0, 1)
STANDARD_ERROR: Final = 2
READ_SIZE: Final = 1 << 14  # bytes
WRITE_SIZE: Final = 1 << 14  # bytes at once, so that a key does not wait long
MAX_UNWRITTEN: Final = 1 << 16  # bytes of output; more is not asked for
MAX_TOLD: Final = 1 << 13  # bytes of lines on top of them
LAST_WORDS: Final = 1.0  # seconds for the output that is left at the end


class LocalTerminal:
    """Standard input and output. A `User` of the terminal, if there is one."""

    keeps_signals = False
    echoes = False

    def __init__(self, terminal: Terminal, source: FdHolder, sink: FdHolder) -> None:
        self.is_interactive = terminal.is_terminal
        """Does somebody sit at it?"""
        self.is_transparent = os.isatty(terminal.fds[1])
        self.size = UNKNOWN_SIZE
        self.resized = trio.Event()
        """Set, and replaced by another, when the size is another."""
        self._terminal = terminal
        self._source = source
        self._sink = sink
        self._unwritten = bytearray()
        self._held: bytearray | None = None
        self._has_output = trio.Event()
        self._room = trio.lowlevel.ParkingLot()

    def note_window_size(self, size: WindowSize) -> None:
        """See `User.note_window_size`."""
        if size != self.size:
            self.size = size
            resized, self.resized = self.resized, trio.Event()
            resized.set()

    # ------------------------------------------------------------ output

    @property
    def _is_screen(self) -> bool:
        """Is the output what the user looks at, so that he can be told things in between?"""
        return self.is_interactive and self.is_transparent

    def show(self, data: bytes) -> None:
        """Write *data* when there is room, and output is not held."""
        if self._held is not None:
            self._held += data
        else:
            self._write_soon(data)

    def _write_soon(self, data: bytes) -> None:
        if data:
            self._unwritten += data
            self._has_output.set()

    def tell(self, text: str) -> None:
        """Tell the user *text*, on a line of its own; not if he looks at nothing any more."""
        line = f"[trio-chardev: {printable(text)}]"
        if not self._is_screen:
            complain(line)
        elif len(self._unwritten) < MAX_UNWRITTEN + MAX_TOLD:
            self.show(f"\r\n{line}\r\n".encode())

    def tell_lines(self, lines: list[str]) -> None:
        """Show *lines* that he has asked for."""
        text = "".join(f"\r\n{printable(line)}" for line in lines)
        self.show_aside(f"{text}\r\n".encode())

    def show_aside(self, data: bytes) -> None:
        """Show what is not of the device, also while output is held."""
        if self._is_screen:
            self._write_soon(data)
        else:
            with contextlib.suppress(OSError):
                os.write(STANDARD_ERROR, data)

    def hold(self, is_held: bool) -> None:
        """Keep the output back while the user types a line to us."""
        if is_held and self._held is None:
            self._held = bytearray()
        elif not is_held and self._held is not None:
            held, self._held = self._held, None
            self.show(bytes(held))

    async def wait_room(self) -> None:
        """Wait until more output may come."""
        while len(self._unwritten) + len(self._held or b"") >= MAX_UNWRITTEN:
            await self._room.park()

    async def write(self) -> None:
        """Write what is shown, until cancelled. Raises OutputError."""
        while True:
            await self._has_output.wait()
            await self._write_all()
            self._has_output = trio.Event()

    async def _write_all(self) -> None:
        while self._unwritten:
            try:
                with memoryview(self._unwritten) as view, view[:WRITE_SIZE] as piece:
                    count = self._sink.write(piece)
            except BlockingIOError:
                await self._sink.wait_writable()
            except OSError as exc:
                raise OutputError(exc) from exc
            else:
                del self._unwritten[:count]
                self._room.unpark_all()
                await trio.lowlevel.checkpoint()

    async def finish(self) -> None:
        """Write what is left, for 1 s at most. Raises OutputError."""
        self.hold(False)
        with trio.move_on_after(LAST_WORDS):
            await self._write_all()

    # ------------------------------------------------------------ input

    async def read(self) -> bytes:
        """Wait for input; b"" is its end. While we are in the background, there is none."""
        while True:
            if not self._terminal.may_read():
                await trio.sleep(FOREGROUND_POLL)
                continue
            await self._source.wait_readable()
            try:
                return self._source.read(READ_SIZE)
            except BlockingIOError:
                continue
            except OSError as exc:
                if exc.errno != errno.EIO or not self._terminal.in_background:
                    return b""  # the terminal has hung up

    def close(self) -> None:
        """Restore the terminal."""
        self._terminal.restore()
        self._source.close()
        self._sink.close()


@contextmanager
def open_local_terminal(fds: tuple[int, int] = STANDARD) -> Iterator[LocalTerminal]:
    """Use standard input and output, *fds*, and restore the terminal however it ends.

    Raises OptionsError if they can't be used.
    """
    with contextlib.ExitStack() as undo:
        try:
            terminal = Terminal(fds)
            undo.callback(terminal.restore)
            local = LocalTerminal(terminal, *hold_standard(fds))
            undo.pop_all()
            undo.callback(local.close)
            terminal.apply(local)
        except (OSError, termios.error) as exc:
            raise OptionsError(f"cannot use the terminal: {exc.args[-1]}") from exc
        yield local
