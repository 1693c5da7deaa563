"""The line settings and the window size of a PTY: those its user makes, and those its user is shown.

A PTY has no line, but it keeps the settings that its user makes (termios(3)), and the master
can read them. How Linux reports them, tried on 6.18:

* a tcsetattr(3) on the slave wakes no poll(2) on the master and no inotify(7);
* in packet mode (TIOCPKT, ioctl_tty(2)) it does, but only while EXTPROC is set, with which the
  slave has no echo, no line editing and no ^C any more, and which a program may clear; and each
  read has one byte more. So packet mode is not used here: the settings are polled;
* speed, stop bits and flow control are kept. Data bits and parity are not (always 8N), so
  they can't be reported; a break (tcsendbreak(3)) and modem lines go nowhere;
* the window size is one for both sides (TIOCSWINSZ, ioctl_tty(2)), and 0x0 at first. Set at the
  master, it sends SIGWINCH to the slave's foreground job; set at the slave, nothing tells the master.
"""

from __future__ import annotations

import termios
from collections.abc import Callable
from contextlib import suppress

import attrs
import trio

from trio_chardev.backends.descriptor import FdHolder
from trio_chardev.backends.serial.line import STOP_BITS, Termios2
from trio_chardev.backends.terminal_window import get_window_size, set_window_size
from trio_chardev.core.line import Line
from trio_chardev.errors import backend_errors
from trio_chardev.events import UNKNOWN_SIZE, BackendEvent, LineRequest, LineSettings, WindowSize

FLOW_CONTROL = termios.IXON | termios.IXOFF  # both, as a cooked terminal has IXON alone


class PtyLine(Line):
    """The line settings at a master; changes are found by `look` only."""

    def __init__(
        self, filename: str, master: FdHolder, on_event: Callable[[BackendEvent], None]
    ) -> None:
        super().__init__(filename)
        self.is_looked_at = False
        """From the first `look` on the backend looks, too: before it returns bytes that came."""
        self._master = master
        self._on_event = on_event
        self._settings = LineSettings()
        self._raw = self._read()  # at the last look
        self._size = UNKNOWN_SIZE  # likewise, or as it was set

    @property
    def polled(self) -> frozenset[str]:
        return frozenset({"settings", "window"})

    def look(self, *, anew: bool = False) -> None:
        self.is_looked_at = True
        if settings := self.find_changed():
            self._on_event(settings)
        before, self._size = self._size, self._read_size()
        if self._size != before:
            self._on_event(self._size)

    async def set_window_size(self, size: WindowSize) -> None:
        """Let *size* be that of the slave, whose user gets SIGWINCH if it is another."""
        await trio.lowlevel.checkpoint()
        with backend_errors(f"Failed to set the window size of '{self.filename}'"):
            self._write_size(size)

    def show(self, settings: LineSettings) -> None:
        """Set the slave to *settings*, as far as a PTY keeps them, for its user to find.

        If the user has set something that was not reported yet, report that instead.
        """
        if changed := self.find_changed():
            self._on_event(changed)
            return
        self._settings = settings
        if not self._master.closed:
            Termios2.of(self._master.fd).showing(settings).apply(self._master.fd)
            self._raw = self._read()

    def acknowledge(self, request: LineRequest, in_force: LineRequest | None) -> None:
        """Show the settings in force to the user, if others were shown or made since."""
        if isinstance(in_force, LineSettings) and in_force != self._settings:
            self.show(in_force)

    def find_changed(self) -> LineSettings | None:
        """Return the settings if the user has changed them since the last look, else None.

        Data bits and parity are those that were shown last.
        """
        before, raw = self._raw, self._read()
        if raw in (before, b""):
            return None
        self._raw = raw
        seen = _Seen.of(raw)
        if not seen.speed or (before and seen == _Seen.of(before)):  # B0 asks for a hang-up
            return None
        self._settings = attrs.evolve(self._settings, **attrs.asdict(seen))
        return self._settings

    def move(self, filename: str, master: FdHolder) -> None:
        """Use *master* from now on, with the settings of the one before."""
        self.filename = filename
        with suppress(OSError):
            Termios2.of(self._master.fd).apply(master.fd)
        self._master = master
        self._raw = self._read()
        self._write_size(self._size)

    def _read(self) -> bytes:
        """Return the kernel's settings, packed; ``b""`` once the master is closed."""
        return b"" if self._master.closed else Termios2.raw_of(self._master.fd)

    def _read_size(self) -> WindowSize:
        """Return the kernel's window size, or the last one once the master is closed."""
        if self._master.closed:
            return self._size
        return get_window_size(self._master.fd)

    def _write_size(self, size: WindowSize) -> None:
        """Set the kernel's window size, unless the master is closed. Raises OSError."""
        self._size = size
        if not self._master.closed:
            set_window_size(self._master.fd, size)


@attrs.frozen
class _Seen:
    """The line settings that a PTY keeps."""

    speed: int
    stop_bits: int
    xonxoff: bool
    rtscts: bool

    @classmethod
    def of(cls, raw: bytes) -> _Seen:
        """Unpack them from *raw*, see `Termios2`."""
        found = Termios2.unpack(raw)
        return cls(
            speed=found.ospeed,
            stop_bits=2 if found.cflag & STOP_BITS[2] else 1,
            xonxoff=found.iflag & FLOW_CONTROL == FLOW_CONTROL,
            rtscts=bool(found.cflag & termios.CRTSCTS),
        )
