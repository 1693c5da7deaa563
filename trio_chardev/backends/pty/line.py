"""The line settings of a PTY: what its user makes of them, and what it is shown.

A PTY has no line, but it keeps the settings that its user makes (termios(3)), and the master
can read them. What Linux tells of that, tried on 6.18:

* a tcsetattr(3) on the slave wakes no poll(2) on the master and no inotify(7);
* in packet mode (TIOCPKT, ioctl_tty(2)) it does, but only while EXTPROC is set, with which the
  slave has no echo, no line editing and no ^C any more, and which a program may clear; then
  each read has one byte more. So packet mode is not used here: who wants to know has to look;
* speed, stop bits and flow control are kept. Data bits and parity are not (always 8N), so
  they can't be told; a break (tcsendbreak(3)) and modem lines go nowhere.
"""

from __future__ import annotations

import termios
from contextlib import suppress

import attrs

from trio_chardev.backends.descriptor import FdHolder
from trio_chardev.backends.serial.line import STOP_BITS, Termios2
from trio_chardev.events import LineSettings

FLOW_CONTROL = termios.IXON | termios.IXOFF  # both: a cooked terminal has IXON alone


class PtyLine:
    """The line settings at a master."""

    def __init__(self, master: FdHolder) -> None:
        self._master = master
        self._settings = LineSettings()
        self._raw = self._read()  # at the last look

    def look(self) -> LineSettings | None:
        """What the user has made of the settings since the last look; None: nothing.

        Data bits and parity are those that were shown last.
        """
        before, raw = self._raw, self._read()
        if raw in (before, b""):
            return None
        self._raw = raw
        seen = _Seen.of(raw)
        if not seen.speed or (before and seen == _Seen.of(before)):  # 0 hangs up, if it can
            return None
        self._settings = attrs.evolve(self._settings, **attrs.asdict(seen))
        return self._settings

    def show(self, settings: LineSettings) -> None:
        """Have the user find *settings*, as far as a PTY keeps them."""
        self._settings = settings
        if not self._master.closed:
            Termios2.of(self._master.fd).showing(settings).apply(self._master.fd)
            self._raw = self._read()

    def move(self, master: FdHolder) -> None:
        """Be at *master* from now on, whose user finds what the one before has left."""
        with suppress(OSError):
            Termios2.of(self._master.fd).apply(master.fd)
        self._master = master
        self._raw = self._read()

    def _read(self) -> bytes:
        """The kernel's settings; empty once the master is closed."""
        return b"" if self._master.closed else Termios2.raw_of(self._master.fd)


@attrs.frozen
class _Seen:
    """What a PTY keeps of line settings."""

    speed: int
    stop_bits: int
    xonxoff: bool
    rtscts: bool

    @classmethod
    def of(cls, raw: bytes) -> _Seen:
        """What is in *raw*, see `Termios2`."""
        found = Termios2.unpack(raw)
        return cls(
            speed=found.ospeed,
            stop_bits=2 if found.cflag & STOP_BITS[2] else 1,
            xonxoff=found.iflag & FLOW_CONTROL == FLOW_CONTROL,
            rtscts=bool(found.cflag & termios.CRTSCTS),
        )
