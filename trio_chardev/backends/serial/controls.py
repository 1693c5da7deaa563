"""What a user can do to a serial line: settings, modem lines, break.

While a line is shared with the backend to be replaced, only its owner alters it: what is set before
the commit is remembered, and the commit applies it. What is set while the line is away is applied
when it is back.
"""

from __future__ import annotations

import termios
from collections.abc import Callable
from contextlib import suppress

import trio

from trio_chardev.backends.holder import FdHolder
from trio_chardev.backends.serial.line import apply_line
from trio_chardev.backends.serial.modem import (
    control_errors,
    count_unsent,
    is_hung_up,
    read_modem,
    write_break,
    write_modem,
)
from trio_chardev.backends.serial.wanted import WantedLine
from trio_chardev.core.line import BREAK_DURATION, Line
from trio_chardev.errors import BackendDisconnectedError
from trio_chardev.events import INPUTS, OUTPUTS, BackendEvent, LineSettings, ModemLines, Purge

POLL_INTERVAL = 0.01  # seconds


class SerialLine(Line):
    """The line that *holder* has open, or had open before it went away."""

    is_settable = True

    def __init__(
        self,
        wanted: WantedLine,
        holder: FdHolder,
        on_event: Callable[[BackendEvent], None],
        owner: SerialLine | None = None,
    ) -> None:
        super().__init__("serial")
        self.wanted = wanted
        self.holder = holder
        self.owner = owner
        """The one that may alter the line that both have open; None means this one."""
        self.absence = "went away"
        """Why it is not there, while it is not."""
        self._on_event = on_event
        self._inputs: ModemLines | None = None  # as the last look found them

    def take_over(self) -> None:
        """Become the owner. Raises BackendError, and then the line has not changed."""
        if (owner := self.owner) is not None:
            self.wanted.take_over(self.holder.fd, owner.wanted)
            self._inputs = owner._inputs
            self.owner, owner.owner = None, self

    def check_there(self) -> None:
        """Raise BackendDisconnectedError while the line is away."""
        if self.holder.closed:
            raise BackendDisconnectedError(f"'{self.wanted.device}' {self.absence}")

    async def wait_sent(self) -> None:
        """Wait until the device has sent all it was given."""
        await trio.lowlevel.checkpoint()
        # The kernel reports that to nobody but a caller that blocks in tcdrain(3).
        while not self.holder.closed and count_unsent(self.holder.fd):  # noqa: ASYNC110
            await trio.sleep(POLL_INTERVAL)

    @property
    def _may_alter(self) -> bool:
        return self.owner is None and not self.holder.closed and not is_hung_up(self.holder.fd)

    @property
    def missing(self) -> frozenset[str]:
        """What the driver has refused when the line was opened.

        Beside those of every line these are ``exclusive``, ``rs485`` and ``low-latency``.
        """
        return self.wanted.missing

    @property
    def settings(self) -> LineSettings:
        """The settings in force; before the commit, and while the line is away, the wanted ones."""
        return self.wanted.in_force

    async def set(self, settings: LineSettings) -> None:
        """Set the line at once, or as soon as it is there and owned by this backend.

        Raises BackendError if the device does not support *settings*. When that or Cancelled is
        raised, nothing has changed.
        """
        await trio.lowlevel.checkpoint()
        if self._may_alter:
            apply_line(self.holder.fd, self.wanted.device, settings)
        self.wanted.note_set(settings)

    @property
    def polled(self) -> frozenset[str]:
        """The modem lines, unless the device has none, such as a PTY's slave."""
        return frozenset({"modem"}) - self.missing

    def look(self, *, anew: bool = False) -> None:
        """Report the inputs that have changed since the last look, or *anew* those that are on.

        Else the first look reports nothing: most adaptors have no wires, and another line should not
        be driven by that. A pulse between two looks is missed.
        """
        if self.owner is not None or self.holder.closed:
            return
        try:
            lines = read_modem(self.holder.fd) & INPUTS
        except OSError:  # it has no modem lines, or is going away
            return
        before, self._inputs = self._inputs, lines
        if anew or before not in (None, lines):
            self._on_event(lines)

    async def get_modem(self) -> ModemLines:
        """Return the modem lines that are on.

        Raises BackendDisconnectedError while the line is away, NotSupportedError if it has no
        modem lines, like a PTY.
        """
        await trio.lowlevel.checkpoint()
        self.check_there()
        with control_errors(self.wanted.device, "modem lines"):
            return read_modem(self.holder.fd)

    async def set_modem(self, lines: ModemLines) -> None:
        """Turn DTR and RTS on or off at once, or as soon as the line is there and owned.

        Raises NotSupportedError if it has no modem lines. When Cancelled, nothing has changed.
        """
        await trio.lowlevel.checkpoint()
        if self._may_alter:
            with control_errors(self.wanted.device, "modem lines"):
                write_modem(self.holder.fd, lines)
        elif self.owner is not None:
            with control_errors(self.wanted.device, "modem lines"):
                read_modem(self.holder.fd)
        self.wanted.modem, self.wanted.driven = lines & OUTPUTS, OUTPUTS

    async def send_break(self, duration: float = BREAK_DURATION) -> None:
        """Send a break of *duration* seconds, after what was written before.

        When Cancelled, the break is over, and may have been cut short. A break that is on stays on.
        Raises BackendDisconnectedError, NotSupportedError.
        """
        await self.wait_sent()  # else TIOCSBRK would wait for it, and block every task
        self.check_there()
        holder = self.holder
        try:
            with control_errors(self.wanted.device, "break"):
                write_break(holder.fd, True)
            await trio.sleep(duration)
        finally:
            if not (holder.closed or self.wanted.is_break):
                with suppress(OSError):
                    write_break(holder.fd, False)

    async def set_break(self, is_on: bool) -> None:
        """Turn the break on, after what was written before, or off, at once or when it is there.

        Raises NotSupportedError. When Cancelled, nothing has changed.
        """
        if is_on:
            await self.wait_sent()
        else:
            await trio.lowlevel.checkpoint()
        if self._may_alter:
            with control_errors(self.wanted.device, "break"):
                write_break(self.holder.fd, is_on)
        self.wanted.is_break = is_on

    async def purge(self, buffers: Purge) -> None:
        """Discard what the kernel holds (tcflush(3)). Raises BackendDisconnectedError."""
        await trio.lowlevel.checkpoint()
        self.check_there()
        if self._may_alter:
            with control_errors(self.wanted.device, "buffers"):
                _flush(self.holder.fd, _QUEUES[buffers])


_QUEUES = {
    Purge.RECEIVE: termios.TCIFLUSH,
    Purge.TRANSMIT: termios.TCOFLUSH,
    Purge.RECEIVE | Purge.TRANSMIT: termios.TCIOFLUSH,
}


def _flush(fd: int, queue: int) -> None:
    """Do tcflush(3). Raises OSError, which termios.error is not."""
    try:
        termios.tcflush(fd, queue)
    except termios.error as exc:
        raise OSError(*exc.args) from exc
