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

import attrs

from trio_chardev.backends.descriptor import FdHolder
from trio_chardev.backends.serial_line import STOP_BITS, Termios2
from trio_chardev.events import LineSettings

FLOW_CONTROL = termios.IXON | termios.IXOFF  # both: a cooked terminal has IXON alone


class PtyLine:
    """The line settings at a master."""

    def __init__(self, master: FdHolder) -> None:
        self._master = master
        self._settings = LineSettings()
        self._seen = self._look()

    def look(self) -> LineSettings | None:
        """What the user has made of the settings since the last look; None: nothing.

        Data bits and parity are those that were shown last.
        """
        seen = self._look()
        if seen in (self._seen, None):
            return None
        self._seen = seen
        if seen is None or not seen.speed:  # 0 hangs up, where there is a line
            return None
        self._settings = attrs.evolve(self._settings, **attrs.asdict(seen))
        return self._settings

    def show(self, settings: LineSettings) -> None:
        """Have the user find *settings*, as far as a PTY keeps them."""
        self._settings = settings
        if not self._master.closed:
            Termios2.of(self._master.fd).showing(settings).apply(self._master.fd)
            self._seen = self._look()

    def _look(self) -> _Seen | None:
        if self._master.closed:
            return None
        found = Termios2.of(self._master.fd)
        return _Seen(
            speed=found.ospeed,
            stop_bits=2 if found.cflag & STOP_BITS[2] else 1,
            xonxoff=found.iflag & FLOW_CONTROL == FLOW_CONTROL,
            rtscts=bool(found.cflag & termios.CRTSCTS),
        )


@attrs.frozen
class _Seen:
    """What a PTY keeps of line settings."""

    speed: int
    stop_bits: int
    xonxoff: bool
    rtscts: bool
